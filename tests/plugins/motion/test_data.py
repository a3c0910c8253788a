"""Rotations, skeletons, BVH, representations, splits, sentences, loaders."""

import io
import math

import numpy as np
import pytest
import torch

from plugins.motion.bvh import from_positions, read_bvh, round_trip_error, write_bvh
from plugins.motion.data import CaptionedMotion, Clips, MotionSet, StickFigures, tail_split
from plugins.motion.data.captioned import read_captions
from plugins.motion.data.synthetic import stick_figure
from plugins.motion.kinematics import fk, ik, mirror_positions
from plugins.motion.representation import Essential, HumanML3D, Normalizer, gaussian_smooth
from plugins.motion.rotations import (
    axis_quaternion,
    euler_to_quaternion,
    matrix_to_euler,
    matrix_to_quaternion,
    matrix_to_sixd,
    normalize,
    quaternion_between,
    quaternion_rotate,
    quaternion_to_matrix,
    sixd_to_matrix,
)
from plugins.motion.skeletons import BANDAI_NAMCO, HUMANML3D, KIT
from plugins.motion.text import Hashing, prompts_for

SKELETONS = {"bandai_namco": BANDAI_NAMCO, "humanml3d": HUMANML3D, "kit": KIT}


def quaternions(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, 4, generator=g, dtype=torch.float64))


def figure(content="walk-turn-left", frames=40, seed=1):
    return stick_figure(content, "normal", frames, 15.0, torch.Generator().manual_seed(seed))


def wobbly(skeleton, frames=30, seed=0):
    """A smooth motion of any skeleton that walks along a curve, all joints swinging."""
    g = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 2, frames, dtype=torch.float64)[:, None, None]
    joints = len(skeleton)
    angles = 0.4 * torch.sin(
        2 * t + 6 * torch.rand(joints, 3, generator=g, dtype=torch.float64)
    ) * torch.rand(joints, 3, generator=g, dtype=torch.float64)
    angles[:, 0] = torch.cat([0.7 * t[:, :, 0], 0 * t[:, :, 0], 0 * t[:, :, 0]], -1)
    rotations = euler_to_quaternion(angles, "YXZ")
    root = torch.cat([t[:, 0], 1 + 0 * t[:, 0], 0.5 * t[:, 0] ** 2], -1)
    lengths = torch.ones(joints, 1, dtype=torch.float64) * 0.2
    positions, _ = fk(rotations, root, skeleton, skeleton.offsets * lengths)
    return positions


def test_rotation_conversions_round_trip():
    q = quaternions(50)
    m = quaternion_to_matrix(q)
    assert torch.allclose(m @ m.mT, torch.eye(3, dtype=m.dtype).expand_as(m), atol=1e-12)
    assert torch.allclose(quaternion_to_matrix(matrix_to_quaternion(m)), m, atol=1e-10)
    assert torch.allclose(sixd_to_matrix(matrix_to_sixd(m)), m, atol=1e-10)
    # first two columns
    assert torch.equal(matrix_to_sixd(m), torch.cat([m[..., 0], m[..., 1]], -1))
    for order in ("ZXY", "XYZ", "YXZ"):
        angles = matrix_to_euler(m, order)
        assert torch.allclose(quaternion_to_matrix(euler_to_quaternion(angles, order)), m, atol=1e-9)
    v = torch.randn(50, 3, dtype=torch.float64)
    assert torch.allclose(quaternion_rotate(q, v), torch.einsum("nij,nj->ni", m, v), atol=1e-12)


def test_rotation_between_directions_also_when_opposite():
    u = normalize(torch.randn(20, 3, dtype=torch.float64))
    for v in (normalize(torch.randn(20, 3, dtype=torch.float64)), u, -u):
        assert torch.allclose(quaternion_rotate(quaternion_between(u, v), u), v, atol=1e-7)


def test_fk_of_ik_gives_the_positions_back():
    positions = figure()
    rotations, root = ik(positions, BANDAI_NAMCO)
    again, _ = fk(rotations, root, BANDAI_NAMCO)
    assert (again - positions).norm(dim=-1).max() < 1e-6


def test_bvh_reads_orders_and_position_channels_as_written():
    text = """HIERARCHY
ROOT Base
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Arm
  {
    OFFSET 9 9 9
    CHANNELS 6 Yposition Xposition Zposition Yrotation Zrotation Xrotation
    End Site
    {
      OFFSET 0 1 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.05
1 2 3 90 0 0   20 10 0 0 0 0
1 2 3 0 90 0   20 10 0 0 0 0
"""
    bvh = read_bvh(io.StringIO(text))
    positions = bvh.positions
    assert bvh.fps == pytest.approx(20)
    # position channels replace the offset 9 9 9: (10, 20, 0), turned by 90° about z, then about x
    assert torch.allclose(positions[0, 1] - positions[0, 0], torch.tensor([-20.0, 10.0, 0.0]).double(), atol=1e-9)
    assert torch.allclose(positions[1, 1] - positions[1, 0], torch.tensor([10.0, 0.0, 20.0]).double(), atol=1e-9)
    with pytest.raises(ValueError, match="[Ff]rame"):
        read_bvh(io.StringIO(text.replace("Frames: 2", "Frames: 3")))


def test_bvh_features_bvh_round_trip(tmp_path):
    positions = figure()
    assert float(round_trip_error(positions, BANDAI_NAMCO, 15.0).max()) < 0.01  # cm
    path = write_bvh(tmp_path / "clip.bvh", from_positions(positions, BANDAI_NAMCO, 15.0))
    again = read_bvh(path, scale=0.01)
    again = again.positions
    representation = Essential(BANDAI_NAMCO, compatible=False)
    features = representation.encode(again[:, : len(BANDAI_NAMCO)])
    home = representation.canonicalize(positions)[:-1]
    assert (representation.decode(features) - home).norm(dim=-1).max() < 1e-4


@pytest.mark.parametrize("kind", [Essential, HumanML3D])
@pytest.mark.parametrize("name", SKELETONS)
def test_features_give_the_positions_back_and_do_not_see_place_or_yaw(kind, name):
    skeleton = SKELETONS[name]
    representation, positions = kind(skeleton), wobbly(skeleton)
    features = representation.encode(positions)
    joints = len(skeleton)
    assert features.shape == (29, representation.dim)
    assert representation.dim == (4 + 3 * (joints - 1) if kind is Essential else 12 * joints - 1)
    home = representation.canonicalize(positions)[:-1]
    assert (representation.decode(features) - home).norm(dim=-1).max() < 1e-5
    turn = axis_quaternion("y", torch.tensor(1.3, dtype=torch.float64))
    moved = quaternion_rotate(turn, positions) + torch.tensor([3.0, 0.0, -2.0]).double()
    assert (representation.encode(moved) - features).abs().max() < 1e-6
    assert torch.equal(representation.mirror(representation.mirror(features)), features)
    assert sorted(i for s in representation.groups.values() for i in range(*s.indices(representation.dim))) == list(
        range(representation.dim)
    )


def test_widths_are_the_published_ones():
    assert HumanML3D(HUMANML3D).dim == 263 and HumanML3D(KIT).dim == 251
    assert Essential(HUMANML3D).dim == 67 and Essential(KIT).dim == 64


@pytest.mark.parametrize("compatible", [True, False])
def test_mirrored_features_are_features_of_the_mirrored_motion(compatible):
    representation = Essential(BANDAI_NAMCO, compatible=compatible)
    positions = wobbly(BANDAI_NAMCO)
    a = representation.mirror(representation.encode(positions))
    b = representation.encode(mirror_positions(positions, BANDAI_NAMCO))
    assert (a - b).abs().max() < 1e-9


def test_the_quirk_changes_the_heading():
    positions = wobbly(HUMANML3D)
    a, b = (HumanML3D(HUMANML3D, compatible=c).encode(positions) for c in (True, False))
    assert (a - b).abs().max() > 1e-3


def test_turn_is_half_an_angle_and_contacts_are_squared_displacements():
    positions = figure("walk-turn-left")
    representation = HumanML3D(BANDAI_NAMCO, compatible=False, smooth=0.0)
    features = representation.encode(positions)
    yaw = representation.yaw(features)
    assert float(yaw[-1]) > 0.3  # to the left
    assert float((yaw[1] - yaw[0]).abs()) == pytest.approx(2 * float(features[0, 0].abs()), rel=1e-6)
    still = positions[:1].expand(10, -1, -1)
    assert representation.encode(still)[:, representation.groups["contacts"]].min() == 1


def test_gaussian_smoothing_is_scipys():
    from scipy.ndimage import gaussian_filter1d

    x = np.random.default_rng(0).normal(size=(30, 3))
    expected = gaussian_filter1d(x, 5.0, axis=0, mode="nearest")
    assert np.abs(gaussian_smooth(torch.from_numpy(x), 5.0).numpy() - expected).max() < 1e-12


def test_normalisation_shares_its_scale_within_a_group():
    x = torch.randn(500, 6) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    groups = {"turn": slice(0, 2), "positions": slice(2, 6)}
    plain, biased = Normalizer.fit(x, groups), Normalizer.fit(x, groups, feat_bias=5.0)
    each = x.double().std(0, correction=0)
    assert plain.std[0] == plain.std[1] == pytest.approx(float(each[:2].mean()), rel=1e-5)
    assert torch.allclose(biased.std[:2] * 5, plain.std[:2]) and torch.equal(biased.std[2:], plain.std[2:])
    assert torch.allclose(plain.denormalize(plain.normalize(x)), x, atol=1e-5)


def test_too_few_frames_and_wrong_shapes_are_told():
    representation = Essential(BANDAI_NAMCO)
    with pytest.raises(ValueError, match="2 frames"):
        representation.encode(torch.zeros(1, 21, 3))
    with pytest.raises(ValueError, match="21"):
        representation.encode(torch.zeros(5, 20, 3))
    with pytest.raises(ValueError, match="numbers a frame"):
        representation.decode(torch.zeros(5, 3))


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
