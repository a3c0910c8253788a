"""BVH files with labels in their names, in folders and archives; the cache; mirrors as training data."""

import tarfile
import zipfile

import numpy as np
import pytest
import torch

from framework.errors import DataMissing
from plugins.motion.bvh import from_positions, write_bvh
from plugins.motion.data import BandaiNamco, BVHFolder, CaptionedMotion, StickFigures, cached, export_humanml3d
from plugins.motion.data.cache import fingerprint
from plugins.motion.data.synthetic import stick_figure
from plugins.motion.representation import HumanML3D
from plugins.motion.skeletons import BANDAI_NAMCO

CONTENTS, STYLES = ("raise-up-left-hand", "walk"), ("elderly", "normal")
ROLES = {
    "right_hip": "UpperLeg_R", "left_hip": "UpperLeg_L", "right_shoulder": "UpperArm_R", "left_shoulder": "UpperArm_L",
    "left_ankle": "Foot_L", "left_toe": "Toes_L", "right_ankle": "Foot_R", "right_toe": "Toes_R",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FRAMEWORK_DATA", str(tmp_path / "data"))


@pytest.fixture
def folder(tmp_path):
    """Stick figures as BVH files, named as the real clips are."""
    generator = torch.Generator().manual_seed(0)
    for content in CONTENTS:
        for style in STYLES:
            for k in range(1, 6):
                clip = from_positions(stick_figure(content, style, 30 + k, 30.0, generator), BANDAI_NAMCO, 30.0)
                write_bvh(tmp_path / "data" / "motion" / "mine" / f"dataset-2_{content}_{style}_{k:03d}.bvh", clip)
    return tmp_path / "data" / "motion" / "mine"


def pattern():
    return r"dataset-2_(?P<content>[^_]+)_(?P<style>[^_]+)_\d+"


def archived(folder, kind):
    if kind == "folder":
        return folder
    target = folder.parent / f"mine.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in folder.iterdir():
                archive.write(path, f"deep/{path.name}")
    else:
        with tarfile.open(target, "w:xz") as archive:
            archive.add(folder, "deep")
    return target


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.xz"])
def test_clips_and_labels_of_folders_and_archives(folder, kind):
    source = archived(folder, kind)
    data = BVHFolder(str(source.relative_to(folder.parent.parent)), pattern(), text="hashing", stride=2, frames=16)
    assert data.contents == CONTENTS and data.styles == STYLES and data.fps == pytest.approx(15)
    data.setup()
    assert len(data.train_set) == 16 and len(data.test_set) == 4
    assert all(name.endswith("_005") for name in data.test_set.clips.names)
    batch = next(iter(data.test_dataloader()))
    assert batch["motion"].shape == (4, 16, 64) and batch["lengths"].tolist() == [16] * 4
    for name, c, s, text in zip(
        data.test_set.clips.names, batch["content"], batch["style"], batch["text"], strict=True
    ):
        assert f"_{CONTENTS[c]}_{STYLES[s]}_" in name
        assert text == data.prompts.held_out(CONTENTS[c], STYLES[s])


def test_fast_keeps_the_first_two_and_the_last_of_every_cell(folder):
    data = BVHFolder(str(archived(folder, "tar.xz")), pattern(), fast=True)
    data.setup()
    assert {name[-3:] for name in data.train_set.clips.names} == {"001", "002"} and len(data.train_set) == 8
    assert {name[-3:] for name in data.test_set.clips.names} == {"005"} and len(data.test_set) == 4


def test_the_second_start_reads_nothing(folder, monkeypatch):
    first = BVHFolder(str(folder), pattern(), text="hashing")
    first.setup()
    second = BVHFolder(str(folder), pattern(), text="hashing")
    monkeypatch.setattr(BVHFolder, "_read", lambda self: pytest.fail("read the files again"))
    second.setup()
    assert torch.equal(first.train_set.motion, second.train_set.motion)


def test_a_skeleton_named_by_its_joints(folder):
    ours = BVHFolder(str(folder), pattern(), text="hashing")
    named = BVHFolder(str(folder), pattern(), skeleton=ROLES, text="hashing", representation="humanml3d")
    for data in (ours, named):
        data.setup()
    assert named.representation.dim == 251 and set(named.skeleton.names) == set(BANDAI_NAMCO.names)
    # turn, root velocity and height do not depend on the order of the joints
    mine, theirs = (d.normalizer.denormalize(d.test_set.motion)[..., :4] for d in (ours, named))
    assert torch.allclose(mine, theirs, atol=1e-4)


def test_mirrored_training_clips_carry_mirrored_labels():
    data = StickFigures(clips_per_cell=2, text="labels", mirror=True)
    plain = StickFigures(clips_per_cell=2, text="labels")
    for d in (data, plain):
        d.setup()
    assert len(data.train_set) == 2 * len(plain.train_set) and len(data.test_set) == len(plain.test_set)
    names = data.train_set.clips.names
    i = names.index("walk-turn-left_normal_000")
    j = names.index("walk-turn-left_normal_000-mirrored")
    assert data.contents[data.train_set.content[j]] == "walk-turn-right"
    features = [data.normalizer.denormalize(data.train_set.clips[k]) for k in (i, j)]
    yaws = [float(data.representation.yaw(f)[-1]) for f in features]
    assert yaws[0] > 0.3 and yaws[1] == pytest.approx(-yaws[0], abs=1e-3)


def test_training_draws_from_torchs_generator_alone():
    data = StickFigures(clips_per_cell=3, frames=32)
    data.setup()
    indices = list(range(64))
    torch.manual_seed(1)
    a = data.train_set.__getitems__(indices)
    torch.manual_seed(1)
    b = data.train_set.__getitems__(indices)
    c = data.train_set.__getitems__(indices)
    assert torch.equal(a["motion"], b["motion"]) and a["text"] == b["text"]
    assert a["text"] != c["text"]
    assert torch.equal(data.test_set[3]["motion"], data.test_set.__getitems__([3])["motion"][0])


def test_what_is_wrong_is_said(folder):
    with pytest.raises(DataMissing, match="nowhere"):
        BVHFolder("motion/nowhere")
    with pytest.raises(ValueError, match="content"):
        BVHFolder(str(folder), r"(?P<style>\w+)")
    with pytest.raises(ValueError, match="regular expression"):
        BVHFolder(str(folder), r"(?P<content>")
    with pytest.raises(ValueError, match="no BVH file whose name fits"):
        BVHFolder(str(folder), r"walk(?P<content>\d+)")
    with pytest.raises(ValueError, match="skeleton 'horse'"):
        BVHFolder(str(folder), pattern(), skeleton="horse")
    with pytest.raises(ValueError, match="multiple of unit_length"):
        BVHFolder(str(folder), pattern(), frames=30)
    with pytest.raises(ValueError, match="representation"):
        StickFigures(representation="quaternions")
    with pytest.raises(ValueError, match="text 'bert'"):
        StickFigures(text="bert")
    (folder / "dataset-2_walk_normal_003.bvh").write_text("HIERARCHY ROOT")
    data = BVHFolder(str(folder), pattern(), text="hashing")
    with pytest.raises(ValueError, match="dataset-2_walk_normal_003"):
        data.setup()


def test_missing_clips_say_where_they_come_from():
    with pytest.raises(DataMissing, match="BandaiNamcoResearchInc"):
        BandaiNamco(text="hashing").setup()


def test_a_damaged_cache_is_made_anew_and_a_changed_folder_is_seen(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"x": torch.ones(2)}

    for _ in range(2):
        assert torch.equal(cached("thing", {"a": 1}, make)["x"], torch.ones(2))
    assert len(made) == 1
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"rubbish")
    cached("thing", {"a": 1}, make)
    cached("thing", {"a": 2}, make)
    assert len(made) == 3
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "a").write_text("1")
    before = fingerprint(tmp_path / "things"), fingerprint(tmp_path / "things" / "a")
    (tmp_path / "things" / "a").write_text("22")
    after = fingerprint(tmp_path / "things"), fingerprint(tmp_path / "things" / "a")
    assert before[0] != after[0] and before[1] != after[1]


def test_clips_written_in_the_official_layout_are_read_again(tmp_path):
    source = StickFigures(clips_per_cell=2, text="hashing")
    target = export_humanml3d(source, tmp_path / "data" / "motion" / "mine")
    # 21 joints, as KIT has
    data = CaptionedMotion("kit", "motion/mine", text="hashing", frames=64, workers=0)
    data.setup()
    _, clips = source.load()
    long = [i for i in range(0, len(clips), 2) if len(clips[i]) > 24]
    assert len(data.train_set) == len(long) and data.train_set.clips.frames.shape[1] == 251
    clip = data.train_set.clips[3]
    features = data.normalizer.denormalize(clip)
    expected = HumanML3D(BANDAI_NAMCO, True, 15.0).encode(clips[long[3]].double()).float()
    assert torch.allclose(features, expected, atol=1e-4)
    joints = torch.from_numpy(np.load(target / "new_joints" / f"{long[3]:06d}.npy"))
    assert torch.allclose(HumanML3D(BANDAI_NAMCO, True, 15.0).decode(expected), joints[:-1], atol=1e-4)
    assert len(data.train_set.text[0]) == 16 and len(data.test_set.text[0]) == 1
    assert np.load(target / "Mean.npy").shape == np.load(target / "Std.npy").shape == (251,)
    with pytest.raises(FileExistsError, match="mine"):
        export_humanml3d(source, target)
