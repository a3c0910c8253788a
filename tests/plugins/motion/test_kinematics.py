"""Forward and inverse kinematics, skeletons."""

import dataclasses

import pytest
import torch

from plugins.motion.kinematics import (
    chain_fk,
    chain_ik,
    fit_skeleton,
    fk,
    heading,
    ik,
    kabsch,
    mirror_positions,
    retarget,
)
from plugins.motion.rotations import axis_quaternion, identity_quaternion, normalize, quaternion_to_matrix
from plugins.motion.skeletons import BANDAI_NAMCO, HUMANML3D, KIT, Skeleton, skeleton_from_names

SKELETONS = [BANDAI_NAMCO, HUMANML3D, KIT]


def pose(skeleton, frames=6, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    turns = identity_quaternion(1, dtype=dtype) + 0.4 * torch.randn(
        frames, len(skeleton), 4, generator=g, dtype=torch.float64
    ).to(dtype)
    return normalize(turns), torch.randn(frames, 3, generator=g, dtype=torch.float64).to(dtype)


def test_forward_kinematics_is_the_product_of_homogeneous_matrices():
    rotations, root = pose(BANDAI_NAMCO)
    positions, _ = fk(rotations, root, BANDAI_NAMCO)
    local = torch.eye(4, dtype=torch.float64).repeat(len(root), len(BANDAI_NAMCO), 1, 1)
    local[..., :3, :3] = quaternion_to_matrix(rotations)
    local[..., :3, 3] = BANDAI_NAMCO.offsets
    local[:, 0, :3, 3] = root
    for j in range(len(BANDAI_NAMCO)):
        matrix, up = local[:, j], BANDAI_NAMCO.parents[j]
        while up >= 0:
            matrix, up = local[:, up] @ matrix, BANDAI_NAMCO.parents[up]
        assert torch.allclose(positions[:, j], matrix[:, :3, 3], atol=1e-12)


def test_translations_replace_offsets():
    rotations, root = pose(BANDAI_NAMCO)
    moved = BANDAI_NAMCO.offsets.expand(len(root), -1, -1) * 2
    positions, _ = fk(rotations, root, BANDAI_NAMCO, moved)
    assert torch.allclose(BANDAI_NAMCO.lengths(positions), 2 * BANDAI_NAMCO.offsets.norm(dim=-1).expand(len(root), -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_kinematics_reproduces_positions_of_the_skeleton(dtype):
    rotations, root = pose(BANDAI_NAMCO, dtype=dtype)
    positions, _ = fk(rotations, root, BANDAI_NAMCO)
    again, _ = fk(*ik(positions, BANDAI_NAMCO), BANDAI_NAMCO)
    assert torch.allclose(again, positions, atol=1e-5 if dtype == torch.float32 else 1e-10)


def test_inverse_kinematics_of_the_rest_pose_is_the_identity():
    rest, _ = fk(identity_quaternion(1, 21, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64), BANDAI_NAMCO)
    rotations, _ = ik(rest, BANDAI_NAMCO)
    assert torch.allclose(rotations.abs(), identity_quaternion(1, 21, dtype=torch.float64), atol=1e-7)


def test_kabsch_finds_the_rotation_and_never_a_reflection():
    rotation = quaternion_to_matrix(normalize(torch.randn(5, 4, dtype=torch.float64)))
    source = torch.randn(5, 4, 3, dtype=torch.float64)
    assert torch.allclose(kabsch(source, source @ rotation.mT), rotation, atol=1e-10)
    mirrored = source * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert torch.allclose(torch.linalg.det(kabsch(source, mirrored)), torch.ones(5, dtype=torch.float64))


def test_a_fitted_skeleton_explains_another_body():
    body = Skeleton(
        BANDAI_NAMCO.names, BANDAI_NAMCO.parents, BANDAI_NAMCO.offsets * torch.linspace(1.3, 0.8, 21).double()[:, None]
    )
    positions, _ = fk(*pose(body, 20), body)
    without, _ = fk(*ik(positions, BANDAI_NAMCO), BANDAI_NAMCO)
    fitted = fit_skeleton(positions, BANDAI_NAMCO)
    with_fit, _ = fk(*ik(positions, fitted), fitted)
    assert (without - positions).norm(dim=-1).max() > 0.05
    assert (with_fit - positions).norm(dim=-1).max() < 0.02


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_chain_kinematics_are_inverse_to_each_other(skeleton):
    positions, _ = fk(*pose(skeleton), skeleton)
    root = axis_quaternion("y", torch.linspace(-3, 3, len(positions), dtype=torch.float64))
    again = chain_fk(chain_ik(positions, skeleton, root), positions[:, 0], skeleton)
    assert torch.allclose(again, positions, atol=1e-10)


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_retargeting_is_inverse_then_forward_kinematics_on_other_bones(skeleton):
    positions, _ = fk(*pose(skeleton), skeleton)
    assert torch.allclose(retarget(positions, skeleton), positions, atol=1e-10)
    stretch = torch.linspace(0.7, 1.6, len(skeleton), dtype=torch.float64)[:, None]
    other = dataclasses.replace(skeleton, offsets=skeleton.offsets * stretch)
    moved = retarget(positions, other)
    legs = [sum(float(s.offsets[j].norm()) for j in s.leg) for s in (other, skeleton)]
    root = positions[:, 0] * legs[0] / legs[1]
    turned = axis_quaternion("y", torch.linspace(-3, 3, len(positions), dtype=torch.float64))
    assert torch.allclose(moved, chain_fk(chain_ik(positions, skeleton, turned), root, other), atol=1e-10)
    with pytest.raises(ValueError, match="no length"):
        retarget(torch.zeros_like(positions), skeleton)


@pytest.mark.parametrize("skeleton", [BANDAI_NAMCO, HUMANML3D])
def test_the_rest_pose_faces_forward_and_its_mirror_image_is_itself(skeleton):
    rest, _ = fk(
        identity_quaternion(1, len(skeleton), dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64), skeleton
    )
    assert torch.allclose(heading(rest, skeleton), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64), atol=1e-12)
    assert torch.allclose(mirror_positions(rest, skeleton), rest, atol=1e-12)


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_left_and_right_pair_up(skeleton):
    swap = skeleton.mirrored
    assert all(swap[swap[j]] == j for j in range(len(skeleton)))
    right_hip, left_hip, right_shoulder, left_shoulder = skeleton.face_joints
    assert swap[right_hip] == left_hip and swap[right_shoulder] == left_shoulder
    assert swap[skeleton.feet[0]] == skeleton.feet[2] and swap[skeleton.hands[0]] == skeleton.hands[1]
    assert sum(j != s for j, s in enumerate(swap)) == 16
    positions, _ = fk(*pose(skeleton), skeleton)
    assert torch.equal(mirror_positions(mirror_positions(positions, skeleton), skeleton), positions)


def test_a_skeleton_from_names_covers_every_bone():
    roles = {
        "right_hip": "UpperLeg_R", "left_hip": "UpperLeg_L", "right_shoulder": "UpperArm_R",
        "left_shoulder": "UpperArm_L",
    }  # fmt: skip
    body = skeleton_from_names(BANDAI_NAMCO.names, BANDAI_NAMCO.parents, BANDAI_NAMCO.offsets, roles)
    assert body.face_joints == BANDAI_NAMCO.face_joints and body.feet is None
    edges = sorted((a, b) for chain in body.chains for a, b in zip(chain, chain[1:], strict=False))
    assert edges == sorted(body.bones)
    with pytest.raises(ValueError, match="left_hip"):
        skeleton_from_names(body.names, body.parents, body.offsets, {"right_hip": "UpperLeg_R"})
    with pytest.raises(ValueError, match="no joint 'Elbow'"):
        skeleton_from_names(body.names, body.parents, body.offsets, roles | {"left_hip": "Elbow"})
    with pytest.raises(ValueError, match="tail"):
        skeleton_from_names(body.names, body.parents, body.offsets, roles | {"tail": "Hips"})
    with pytest.raises(ValueError, match="feet"):
        body.require("feet")


def test_impossible_skeletons_are_refused():
    with pytest.raises(ValueError, match="parents must come before"):
        Skeleton(("a", "b", "c"), (-1, 2, 0), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="root"):
        Skeleton(("a",), (0,), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="do not make a skeleton"):
        Skeleton(("a", "b"), (-1, 0), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="not its child"):
        Skeleton(("a", "b", "c"), (-1, 0, 0), torch.zeros(3, 3), chains=((0, 1, 2),))
    with pytest.raises(ValueError, match="rotations must end in"):
        fk(torch.zeros(2, 5, 4), torch.zeros(2, 3), BANDAI_NAMCO)
