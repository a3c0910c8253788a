"""Features: an independent transcription of the published recipe, recovery, invariance, mirrors, scales."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from plugins.motion.kinematics import fk as forward_kinematics
from plugins.motion.kinematics import mirror_positions
from plugins.motion.representation import Essential, HumanML3D, Normalizer, gaussian_smooth
from plugins.motion.rotations import (
    axis_quaternion,
    identity_quaternion,
    normalize,
    quaternion_multiply,
    quaternion_rotate,
)
from plugins.motion.skeletons import BANDAI_NAMCO, HUMANML3D, KIT, Skeleton

SKELETONS = {"bandai_namco": BANDAI_NAMCO, "humanml3d": HUMANML3D, "kit": KIT}
UP = np.array([0.0, 1.0, 0.0])


def wander(skeleton, frames=40, seed=0, turning=1.0, dtype=torch.float64):
    """A body that walks a curve and moves its limbs smoothly."""
    g = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 1, frames, dtype=torch.float64)[:, None, None]
    waves = torch.sin(
        6 * t * torch.rand(1, len(skeleton), 3, generator=g, dtype=torch.float64)
        + 6 * torch.rand(1, len(skeleton), 3, generator=g, dtype=torch.float64)
    )
    turns = normalize(torch.cat([torch.ones(frames, len(skeleton), 1, dtype=torch.float64), 0.25 * waves], -1))
    yaw = axis_quaternion("y", 0.4 + turning * t[:, 0, 0])
    turns[:, 0] = quaternion_multiply(yaw, turns[:, 0])
    path = torch.stack([3 * t[:, 0, 0].sin(), 1 + 0.1 * (9 * t[:, 0, 0]).sin(), 2 * t[:, 0, 0] ** 2], -1)
    return forward_kinematics(turns, path, skeleton)[0].to(dtype)


def between(u, v):
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    q = np.append(np.cross(u, v), 1 + u @ v)  # x, y, z, w
    return Rotation.from_quat(q / np.linalg.norm(q))


def recipe(positions, skeleton, sigma=20.0):
    """The published preprocessing, frame by frame, in numpy and scipy."""
    p = positions.copy()
    p[..., 1] -= p[..., 1].min()
    p[..., [0, 2]] -= p[0, 0, [0, 2]]
    rh, lh, rs, ls = skeleton.face_joints
    across = (p[0, rh] - p[0, lh]) + (p[0, rs] - p[0, ls])
    forward = np.cross(UP, across)
    first = between(forward, np.array([0.0, 0, 1]))
    p = np.stack([first.apply(frame) for frame in p])
    across = (p[:, lh] - p[:, rh]) + (p[:, rs] - p[:, ls])
    forward = np.cross(UP, across / np.linalg.norm(across, axis=-1, keepdims=True))
    forward = gaussian_filter1d(
        forward / np.linalg.norm(forward, axis=-1, keepdims=True), sigma, axis=0, mode="nearest"
    )
    root = [between(f, np.array([0.0, 0, 1])) for f in forward]
    root[0] = Rotation.identity()
    directions = skeleton.offsets.numpy()
    rows = []
    for t in range(len(p) - 1):
        step = root[t + 1].apply(p[t + 1, 0] - p[t, 0])
        turn = (root[t + 1] * root[t].inv()).as_quat(canonical=False)[1]
        body = root[t].apply(p[t] - p[t, 0] * [1, 0, 1])
        sixd = {}
        for chain in skeleton.chains:
            so_far = root[t]
            for a, b in zip(chain, chain[1:], strict=False):
                swing = between(directions[b], p[t, b] - p[t, a])
                matrix = (so_far.inv() * swing).as_matrix()
                sixd[b] = np.concatenate([matrix[:, 0], matrix[:, 1]])
                so_far = swing
        velocity = root[t].apply(p[t + 1] - p[t])
        feet = list(skeleton.feet)
        contact = ((p[t + 1, feet] - p[t, feet]) ** 2).sum(-1) < skeleton.contact_threshold
        rows.append(
            np.concatenate(
                [[np.arcsin(turn)], step[[0, 2]], [p[t, 0, 1]], body[1:].ravel()]
                + [np.concatenate([sixd[j] for j in range(1, len(skeleton))]), velocity.ravel(), contact]
            )
        )
    return np.stack(rows)


@pytest.mark.parametrize("name", SKELETONS)
def test_the_published_recipe_to_its_last_number(name):
    skeleton = SKELETONS[name]
    positions = wander(skeleton, 16)
    ours = HumanML3D(skeleton).encode(positions)
    assert ours.shape == (15, 12 * len(skeleton) - 1)
    expected = torch.from_numpy(recipe(positions.numpy(), skeleton))
    assert torch.allclose(ours, expected, atol=1e-9)
    assert torch.equal(Essential(skeleton).encode(positions), ours[:, : 4 + 3 * (len(skeleton) - 1)])


def test_widths():
    assert HumanML3D(HUMANML3D).dim == 263 and HumanML3D(KIT).dim == 251
    assert Essential(HUMANML3D).dim == 67 and Essential(BANDAI_NAMCO).dim == 64
    for representation in (HumanML3D(HUMANML3D), Essential(KIT)):
        columns = [c for group in representation.groups.values() for c in range(representation.dim)[group]]
        assert columns == list(range(representation.dim))


@pytest.mark.parametrize("kind", [Essential, HumanML3D])
@pytest.mark.parametrize(
    ("compatible", "name"),
    # the published heading subtracts the hips from the shoulders: no heading where they are about as wide
    [(False, "bandai_namco"), (False, "humanml3d"), (False, "kit"), (True, "humanml3d"), (True, "kit")],
)
def test_positions_come_back(kind, compatible, name):
    skeleton = SKELETONS[name]
    representation = kind(skeleton, compatible)
    positions = wander(skeleton)
    back = representation.decode(representation.encode(positions))
    assert (back - representation.canonicalize(positions)[:-1]).norm(dim=-1).max() < 1e-10
    single = representation.decode(representation.encode(positions.float()))
    assert single.dtype == torch.float32
    assert (single - representation.canonicalize(positions)[:-1]).norm(dim=-1).max() < 1e-5


def test_turning_past_the_back_is_right_without_the_quirks_and_wrong_with_them():
    positions = wander(BANDAI_NAMCO, 200, turning=9.0)
    repaired, published = Essential(BANDAI_NAMCO, compatible=False), Essential(BANDAI_NAMCO)
    error = repaired.decode(repaired.encode(positions)) - repaired.canonicalize(positions)[:-1]
    assert error.norm(dim=-1).max() < 1e-10
    error = published.decode(published.encode(positions)) - published.canonicalize(positions)[:-1]
    assert error.norm(dim=-1).max() > 0.01
    assert repaired.yaw(repaired.encode(positions))[-1] == pytest.approx(9.0, abs=2.0)


def test_yaw_is_positive_to_the_left():
    representation = Essential(BANDAI_NAMCO, compatible=False, smooth=0)
    rest = forward_kinematics(
        identity_quaternion(30, 21, dtype=torch.float64), torch.zeros(30, 3, dtype=torch.float64), BANDAI_NAMCO
    )[0]
    angle = torch.linspace(0, 1, 30, dtype=torch.float64)
    turned = quaternion_rotate(axis_quaternion("y", angle)[:, None], rest)
    left = BANDAI_NAMCO.index("UpperArm_L")
    assert turned[-1, left, 2] < turned[0, left, 2]  # the left shoulder goes back
    assert torch.allclose(representation.yaw(representation.encode(turned)), angle[:-1], atol=1e-9)


@pytest.mark.parametrize("representation", [Essential(HUMANML3D), HumanML3D(KIT), HumanML3D(BANDAI_NAMCO, False)])
def test_yaw_and_place_do_not_matter(representation):
    positions = wander(representation.skeleton)
    features = representation.encode(positions)
    for angle in (0.7, 2.9, -1.6):
        turned = quaternion_rotate(axis_quaternion("y", torch.tensor(angle, dtype=torch.float64)), positions)
        moved = turned + torch.tensor([4.0, -2.0, 7.0], dtype=torch.float64)
        assert (representation.encode(moved) - features).abs().max() < 1e-10


@pytest.mark.parametrize("representation", [Essential(HUMANML3D), HumanML3D(HUMANML3D), HumanML3D(BANDAI_NAMCO, False)])
def test_mirrors(representation):
    positions = wander(representation.skeleton)
    features = representation.encode(positions)
    assert torch.equal(representation.mirror(representation.mirror(features)), features)
    mirrored = representation.encode(mirror_positions(positions, representation.skeleton))
    assert (representation.mirror(features) - mirrored).abs().max() < 1e-10


def test_batches_and_single_clips_agree_and_gradients_flow():
    representation = HumanML3D(BANDAI_NAMCO, compatible=False)
    batch = torch.stack([wander(BANDAI_NAMCO, seed=s) for s in range(3)])
    features = representation.encode(batch)
    assert torch.allclose(features[1], representation.encode(batch[1]), atol=1e-12)
    assert torch.allclose(representation.decode(features)[2], representation.decode(features[2]), atol=1e-12)
    small = features[0, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(representation.decode, small)
    assert representation.decode(features[:0]).shape == (0, 39, 21, 3)


def test_rotations_alone_recover_the_body():
    positions = wander(HUMANML3D)
    body = HUMANML3D.with_lengths(positions[0])
    positions = forward_kinematics(*_ik(positions, body), body)[0]
    representation = HumanML3D(body)
    features = representation.encode(positions)
    again = representation.recover_from_rotations(features)
    assert (again - representation.canonicalize(positions)[:-1]).norm(dim=-1).max() < 1e-6


def _ik(positions, skeleton):
    from plugins.motion.kinematics import ik

    return ik(positions, skeleton)


def test_bad_shapes_are_refused():
    representation = Essential(BANDAI_NAMCO)
    with pytest.raises(ValueError, match="at least 2 frames"):
        representation.encode(torch.zeros(1, 21, 3))
    with pytest.raises(ValueError, match="21, 3"):
        representation.encode(torch.zeros(5, 22, 3))
    with pytest.raises(ValueError, match="64 numbers a frame"):
        representation.decode(torch.zeros(5, 67))
    with pytest.raises(ValueError, match="face_joints"):
        Essential(Skeleton(("a",), (-1,), torch.zeros(1, 3)))


@pytest.mark.parametrize("frames", [1, 5, 300])
def test_smoothing_is_scipys(frames):
    x = torch.randn(2, frames, 3, dtype=torch.float64)
    expected = gaussian_filter1d(x.numpy(), 20.0, axis=1, mode="nearest")
    assert torch.allclose(gaussian_smooth(x, 20.0), torch.from_numpy(expected), atol=1e-12)
    assert torch.equal(gaussian_smooth(x, 0.0), x)
    with pytest.raises(ValueError, match="sigma"):
        gaussian_smooth(x, -1.0)


def test_scales_are_shared_by_groups_and_biased_for_the_evaluators():
    representation = HumanML3D(HUMANML3D)
    features = torch.randn(500, 263, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.5, 3, 263) + 2
    plain = Normalizer.fit(features, representation.groups)
    biased = Normalizer.fit(features, representation.groups, feat_bias=5)
    each = features.double().std(0, correction=0)
    for name, columns in representation.groups.items():
        assert torch.allclose(plain.std[columns], each[columns].mean().float().expand_as(plain.std[columns]))
        factor = 5.0 if name in ("turn", "velocity", "height", "contacts") else 1.0
        assert torch.allclose(biased.std[columns] * factor, plain.std[columns])
    assert torch.allclose(plain.mean, features.mean(0), atol=1e-5)
    assert torch.allclose(plain.denormalize(plain(features)), features, atol=1e-5)
    again = Normalizer(torch.zeros(263), torch.ones(263))
    again.load_state_dict(plain.state_dict())
    assert torch.equal(again(features), plain(features))


def test_a_constant_group_keeps_its_scale_and_nonsense_is_refused():
    groups = {"turn": slice(0, 1), "positions": slice(1, 3)}
    assert Normalizer.fit(torch.ones(4, 3), groups).std.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="feat_bias"):
        Normalizer.fit(torch.ones(4, 3), groups, feat_bias=0)
    with pytest.raises(ValueError, match="at least one row"):
        Normalizer.fit(torch.ones(0, 3), groups)
    with pytest.raises(ValueError, match="positive"):
        Normalizer(torch.zeros(2), torch.tensor([1.0, 0.0]))
