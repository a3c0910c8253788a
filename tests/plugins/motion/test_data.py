"""Splits, crops, sentences, loaders."""

import math

import numpy as np
import pytest
import torch

from plugins.motion.data import CaptionedMotion, Clips, MotionSet, StickFigures, tail_split
from plugins.motion.data.captioned import read_captions
from plugins.motion.data.synthetic import stick_figure
from plugins.motion.skeletons import BANDAI_NAMCO
from plugins.motion.text import Hashing, prompts_for


def figure(content="walk-turn-left", frames=40, seed=1):
    return stick_figure(content, "normal", frames, 15.0, torch.Generator().manual_seed(seed))


def test_the_tail_of_every_cell_is_for_testing():
    names = [f"{c}_{i:02d}" for c in "ab" for i in range(10)]
    content = torch.tensor([0] * 10 + [1] * 10)
    clips = Clips(torch.zeros(20, 1), torch.arange(21), names, content, torch.zeros(20, dtype=torch.long))
    train, test = tail_split(clips, 0.2)
    assert test == [8, 9, 18, 19] and sorted(train + test) == list(range(20))


def test_crops_padding_and_sentences():
    lengths = [5, 30]
    frames = torch.arange(1.0, 36.0)[:, None]
    clips = Clips(frames, torch.tensor([0, 5, 35]), ["a", "b"], torch.tensor([0, 1]), torch.tensor([0, 0]))
    data = MotionSet(clips, ["x", "y"], torch.eye(2), [[0], [0, 1]], frames=16, unit_length=4)
    batch = data.__getitems__([0, 1])
    assert batch["lengths"].tolist() == [4, 16] and batch["motion"][0, 4:].abs().max() == 0
    assert torch.equal(batch["mask"].sum(1), batch["lengths"]) and batch["text"] == ["x", "x"]
    assert batch["motion"][1, 0, 0] == 5 + (lengths[1] - 16) // 2 + 1
    torch.manual_seed(0)
    random = MotionSet(clips, ["x", "y"], torch.eye(2), [[0], [0, 1]], 16, 4, random=True, shorten=1 / 3)
    drawn = [random[1] for _ in range(300)]
    assert {d["text"] for d in drawn} == {"x", "y"}
    assert sum(int(d["lengths"]) == 12 for d in drawn) / 300 == pytest.approx(1 / 3, abs=0.1)


def test_one_template_of_every_label_is_held_out():
    prompts = prompts_for(["walk", "walk-turn-left"], ["elderly", "normal"])
    for content in ("walk", "walk-turn-left"):
        for style in ("elderly", "normal"):
            train = prompts.train(content, style)
            assert len(train) >= 3 and prompts.held_out(content, style) not in train
    assert all("left" in text for text in prompts.train("walk-turn-left", "elderly"))


def test_stick_figures_do_what_their_labels_say():
    left = BANDAI_NAMCO.names.index("Hand_L")
    right = BANDAI_NAMCO.names.index("Hand_R")
    raised = figure("raise-up-left-hand")[-1]
    assert raised[left, 1] > raised[right, 1] + 0.3
    walk, run = figure("walk"), figure("run")
    assert (run[-1, 0] - run[0, 0]).norm() > 1.5 * (walk[-1, 0] - walk[0, 0]).norm()
    assert figure("walk")[..., 1].min() >= -1e-9
    with pytest.raises(ValueError, match="fly"):
        figure("fly")


def test_stick_figures_as_data(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTION_CACHE", str(tmp_path))
    data = StickFigures(clips_per_cell=2, frames=32)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["motion"].shape == (64, 32, 64) and batch["text_emb"].shape == (64, data.text_dim)
    assert len(data.train_set) == len(data.test_set) == 70
    decoded = data.representation.decode(data.normalizer.denormalize(batch["motion"][0, : batch["lengths"][0]]))
    assert decoded[..., 1].min() > -0.2 and 1.0 < float(decoded[..., 1].max()) < 2.3


def test_captioned_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("FRAMEWORK_DATA", str(tmp_path))
    monkeypatch.setenv("MOTION_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "motion" / "HumanML3D"
    (root / "new_joint_vecs").mkdir(parents=True)
    (root / "texts").mkdir()
    rng = np.random.default_rng(0)
    for name, frames in (("000001", 100), ("000002", 30), ("000003", 150)):
        np.save(root / "new_joint_vecs" / f"{name}.npy", rng.normal(size=(frames, 263)).astype(np.float32))
        (root / "texts" / f"{name}.txt").write_text(
            "a man walks#a/DET man/NOUN walk/VERB#0.0#0.0\nhe waves#he/PRON wave/VERB#1.0#4.0\n"
        )
    for part in ("train", "val", "test"):
        (root / f"{part}.txt").write_text("000001\n000002\n000003\n999999\n")
    data = CaptionedMotion("humanml3d", text="hashing", batch_size=2, workers=0)
    data.setup()
    # two whole clips and two of three seconds; 30 frames are too few, 999999 has no file
    assert sorted(data.train_set.clips.lengths.tolist()) == [60, 60, 100, 150]
    batch = next(iter(data.test_dataloader()))
    assert batch["motion"].shape == (2, 196, 263) and batch["lengths"].max() <= 196
    (root / "texts" / "000001.txt").write_text("a line without times\n")
    with pytest.raises(ValueError, match="000001.txt:1"):
        read_captions(root / "texts" / "000001.txt")


def test_hashing_is_the_same_everywhere():
    encoder = Hashing(64)
    a, b = encoder.encode(["a person walks", "a person runs"])
    assert torch.equal(a, encoder.encode(["a person walks"])[0]) and not torch.equal(a, b)
    assert math.isfinite(float(a.norm()))


def test_real_clips_where_the_data_is(tmp_path):
    from framework.data import data_dir
    from plugins.motion.data import BandaiNamco

    if not (data_dir() / "motion").is_dir():
        pytest.skip("FRAMEWORK_DATA does not hold motion/bandai-namco-2.tar.xz")
    data = BandaiNamco(fast=True)
    data.setup()
    batch = data.test_set.__getitems__(range(len(data.test_set)))
    positions = data.representation.decode(data.normalizer.denormalize(batch["motion"]))
    mask = batch["mask"]
    assert 1.2 < float(positions[..., 1].amax(-1)[mask].median()) < 2.0  # metres
    bones = (positions[:, :, 14] - positions[:, :, 13]).norm(dim=-1)[mask]
    assert float(bones.std()) < 0.02 and 0.3 < float(bones.mean()) < 0.5
