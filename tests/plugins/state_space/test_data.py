"""Data: generators by their recipes, decoders against hostile files, loaders."""

import io
import os
import random
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from plugins.state_space.data import DigitsData, Sequences, SequentialMNISTData, SpeechDigitsData, collate
from plugins.state_space.data.lra import (
    PATHFINDER_32,
    ListOpsData,
    PathfinderData,
    RetrievalData,
    draw_pathfinder,
    generate_listops,
)
from plugins.state_space.data.lra.image import read_records
from plugins.state_space.data.lra.listops import CLOSE, END, TOKENS, VOCABULARY, evaluate, parse
from plugins.state_space.data.lra.pathfinder import _DeadEnd, _two_targets
from plugins.state_space.data.lra.retrieval import encode as encode_bytes
from plugins.state_space.data.lra.text import character_table, encode
from plugins.state_space.data.speech import decode_wav, load_speech


def needs(*names: str) -> None:
    folder = Path(os.environ.get("FRAMEWORK_DATA", "/nowhere"))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        pytest.skip(f"FRAMEWORK_DATA does not hold {', '.join(missing)}")


def test_listops_lists_evaluate_to_their_labels_and_keep_their_bounds() -> None:
    generator = random.Random(0)
    for _ in range(30):
        tokens, value = generate_listops(generator)
        assert parse(tokens) == value
        operators = sum(code in range(TOKENS["[MIN"], TOKENS["[SM"] + 1) for code in tokens)
        assert tokens.count(CLOSE) == operators and tokens[-1] == END and max(tokens) < VOCABULARY == 18
        assert 500 < len(tokens) - 1 < 2000


def test_listops_classes_follow_the_published_frequencies() -> None:
    generator = random.Random(1)
    values = [generate_listops(generator, 6, 5, 20, 100).value for _ in range(4000)]
    frequencies = np.bincount(values, minlength=10) / 4000
    assert frequencies.min() > 0.05 and frequencies[0] > 0.11 and frequencies[9] > 0.11


@pytest.mark.parametrize(
    "operator,values,expected",
    [("[MIN", [3, 1, 2], 1), ("[MAX", [3, 1, 2], 3), ("[MED", [3, 1, 2], 2), ("[MED", [3, 6], 4), ("[SM", [9, 9], 8)],
)
def test_listops_operators(operator: str, values: list[int], expected: int) -> None:
    assert evaluate(operator, values) == expected


def test_listops_data_are_unique_deterministic_and_cached() -> None:
    options = {"train_size": 40, "val_size": 10, "test_size": 10, "max_depth": 5, "min_length": 10, "max_length": 60}
    first, second, other = (ListOpsData(8, generation_seed=s, **options) for s in (0, 0, 1))
    for data in (first, second, other):
        data.setup()
    lists = [tuple(x.tolist()) for part in first.sets.values() for x, _ in part]
    assert len(set(lists)) == 60
    assert lists == [tuple(x.tolist()) for part in second.sets.values() for x, _ in part]
    assert lists != [tuple(x.tolist()) for part in other.sets.values() for x, _ in part]
    batch = next(iter(first.train_dataloader()))
    assert batch["x"].shape == (8, int(batch["lengths"].max())) and batch["x"].dtype == torch.long


def test_pathfinder_images() -> None:
    labels = []
    for index in range(12):
        image, label = draw_pathfinder(PATHFINDER_32, np.random.default_rng([0, index]))
        again, _ = draw_pathfinder(PATHFINDER_32, np.random.default_rng([0, index]))
        assert np.array_equal(image, again)
        assert image.shape == (32, 32) and image.max() == 255
        assert 0.05 < (image > 60).mean() < 0.6
        labels.append(label)
    assert 0 < sum(labels) < 12


def test_pathfinder_targets_follow_the_recipe() -> None:
    margin, length = 1, PATHFINDER_32.paddle_length
    found = 0
    for index in range(200):
        try:
            curves, occupied = _two_targets(PATHFINDER_32, margin, np.random.default_rng([1, index]))
        except _DeadEnd:
            continue
        found += 1
        (y, x), (v, u) = (curve.origin for curve in curves)
        assert 14 <= y < 18 and 14 <= x < 18
        assert abs(np.hypot(y - v, x - u) - PATHFINDER_32.seed_distance) < 1
        for curve in curves:
            assert len(curve.dashes) == PATHFINDER_32.contour_length and curve.tip != curve.origin
            for dash in curve.dashes:
                assert occupied[dash.window][dash.space].all()
            masks = []
            for dash in curve.dashes:
                mask = np.zeros((32, 32), dtype=bool)
                dash.occupy(mask)
                masks.append(mask)
            for i, mask in enumerate(masks):
                # a curve never runs into itself, and its next dash is a dash and a gap away
                assert not any((mask & earlier).any() for earlier in masks[: max(0, i - 1)])
            centres = [np.argwhere(mask).mean(0) for mask in masks]
            gaps = [np.hypot(*(q - p)) for p, q in zip(centres, centres[1:], strict=False)]
            assert max(gaps) < 2 * (length + margin) and np.mean(gaps) > length
    assert found > 5


def test_pathfinder_data() -> None:
    data = PathfinderData(4, train_size=6, val_size=2, test_size=2)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["x"].shape == (4, 1024, 1) and batch["x"].min() >= -1 and batch["x"].max() == 1


def test_pooled_images_are_averages_of_blocks() -> None:
    sizes = {"train_size": 3, "val_size": 1, "test_size": 1, "contour_length": 3, "distractors": 0}
    full, pooled = PathfinderData(1, **sizes), PathfinderData(1, pool=2, **sizes)
    full.setup()
    pooled.setup()
    for (x, y), (small, label) in zip(full.sets["train"], pooled.sets["train"], strict=True):
        blocks = x.reshape(16, 2, 16, 2).mean((1, 3)).flatten()
        assert y == label and (blocks - small.flatten()).abs().max() <= 0.51 / 127.5


def test_digits() -> None:
    data = DigitsData(64, repeat=4)
    data.setup()
    assert len(data.sets["train"]) == 1437 and len(data.sets["test"]) == 360
    x, _ = data.sets["train"][0]
    assert x.shape == (256, 1) and torch.equal(x[0::4], x[3::4]) and 0 <= x.min() and x.max() <= 1


def test_collate_pads_and_stacks() -> None:
    sequences = Sequences([torch.ones(3, 1), torch.ones(5, 1)], torch.tensor([0, 1]))
    batch = collate([sequences[0], sequences[1]])
    assert batch["x"].shape == (2, 5, 1) and batch["lengths"].tolist() == [3, 5] and batch["x"][0, 3:].sum() == 0
    pairs = collate(
        [((torch.ones(2), torch.ones(4)), torch.tensor(1)), ((torch.ones(1), torch.ones(1)), torch.tensor(0))]
    )
    assert pairs["x"].shape == (2, 2, 4) and pairs["lengths"].tolist() == [[2, 4], [1, 1]]
    with pytest.raises(ValueError, match="labels"):
        Sequences([torch.ones(3)], torch.tensor([0, 1]))


def wav(samples: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def test_wav_decoding() -> None:
    samples = np.array([0, 1, -32768, 32767], dtype="<i2")
    assert decode_wav(wav(samples)).tolist() == samples.tolist()
    for bad in (wav(samples, rate=16000), wav(samples, channels=2), b"RIFF", b""):
        with pytest.raises(ValueError):
            decode_wav(bad)


def test_speech_archive_with_a_hostile_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "speech").mkdir()
    with tarfile.open(tmp_path / "speech/free-spoken-digits.tar.xz", "w:xz") as archive:
        for name in ("../../7_evil_0.wav", "recordings/3_theo_6.wav", "recordings/notes.txt"):
            content = wav(np.arange(100, dtype="<i2"))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("recordings/1_link_0.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    monkeypatch.setenv("FRAMEWORK_DATA", str(tmp_path / "."))
    monkeypatch.setenv("STATE_SPACE_CACHE", str(tmp_path / "cache"))
    waveforms, digits, indices = load_speech()
    assert digits.tolist() == [3, 7] and indices.tolist() == [6, 0] and len(waveforms[0]) == 100
    assert not list(tmp_path.parent.glob("*evil*")) and not list(tmp_path.rglob("*evil*"))
    data = SpeechDigitsData(2, max_length=50, decimate=2)
    data.setup()
    x, y = data.sets["test"][0]
    assert x.shape == (25, 1) and y == 7 and x.std().item() == pytest.approx(1, abs=1e-4)


def test_speech_official_split() -> None:
    needs("speech/free-spoken-digits.tar.xz")
    data = SpeechDigitsData(8, val_recordings=5)
    data.setup()
    assert {k: len(v) for k, v in data.sets.items()} == {"test": 300, "val": 300, "train": 2400}
    assert sum(len(x) > 5300 for x in data.sets["train"].x) < 0.06 * 2400


def test_mnist_permutation_and_sizes() -> None:
    needs("mnist/t10k-images-idx3-ubyte.gz", "mnist/train-images-idx3-ubyte.gz")
    plain, permuted = (
        SequentialMNISTData(8, permuted=p, train_size=50, test_size=20, val_size=10) for p in (False, True)
    )
    for data in (plain, permuted):
        data.setup()
        assert {k: len(v) for k, v in data.sets.items()} == {"train": 50, "val": 10, "test": 20}
    a, b = plain.sets["test"][3][0], permuted.sets["test"][3][0]
    assert a.shape == (784, 1) and a.max() <= 1 and not torch.equal(a, b)
    assert torch.equal(a.sort(0).values, b.sort(0).values)


def test_cifar_records() -> None:
    record = bytes([7]) + bytes([255] * 1024) + bytes([0] * 1024) + bytes([0] * 1024)
    grey, labels = read_records(record * 2)
    assert labels.tolist() == [7, 7] and grey.shape == (2, 1024) and grey.unique().tolist() == [76]
    with pytest.raises(ValueError, match="records"):
        read_records(record[:-1])


def test_characters() -> None:
    table = character_table(["aab", "ab?"], min_frequency=2)
    assert table == {"a": 3, "b": 4}
    assert encode("ab?ab", table, 4).tolist() == [3, 4, 1, 2]
    assert encode_bytes("aé", 10).tolist() == [3 + 97, 1, 2]


def test_retrieval_reads_pairs_and_names_bad_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aan").mkdir()
    for part in ("train", "eval", "test"):
        (tmp_path / f"aan/new_aan_pairs.{part}.tsv").write_text('1.0\tx\ty\t"ab\tcde\n0.0\tx\ty\tf\tg\n')
    monkeypatch.setenv("FRAMEWORK_DATA", str(tmp_path))
    data = RetrievalData(2)
    data.setup()
    batch = collate([data.sets["train"][0], data.sets["train"][1]])
    assert batch["lengths"].tolist() == [[4, 4], [2, 2]] and batch["y"].tolist() == [1, 0]
    (tmp_path / "aan/new_aan_pairs.train.tsv").write_text("1.0\tonly\ttwo\n")
    with pytest.raises(ValueError, match="line 1"):
        RetrievalData(2).setup()


def test_bad_settings() -> None:
    for make, message in (
        (lambda: DigitsData(0), "batch_size"),
        (lambda: DigitsData(repeat=0), "repeat"),
        (lambda: SpeechDigitsData(val_recordings=41), "val_recordings"),
        (lambda: SequentialMNISTData(train_size=0), "train_size"),
        (lambda: ListOpsData(max_args=1), "max_args"),
        (lambda: PathfinderData(variant="path"), "variant"),
        (lambda: PathfinderData(contour_length=1), "contour_length"),
        (lambda: PathfinderData(pool=5), "pool"),
        (lambda: RetrievalData(max_length=1), "max_length"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
