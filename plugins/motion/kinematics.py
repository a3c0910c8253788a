"""Forward and inverse kinematics, in the two conventions of the field.

``fk``/``ik`` speak the language of animation files: a joint's rotation turns everything below it, so

    global rotation G_j = G_parent · R_j,        position p_j = p_parent + G_parent · offset_j.

``chain_fk``/``chain_ik`` speak that of HumanML3D (Guo et al. 2022): the rotation is stored with the child of the bone
it turns and accumulates along a chain; each chain starts from the root's rotation, wherever it branches off:

    G_child = G_previous · R_child,              p_child = p_previous + G_child · offset_child.

Rotations are quaternions (w, x, y, z); every function takes any leading shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from plugins.motion.rotations import (
    identity_quaternion,
    matrix_to_quaternion,
    normalize,
    quaternion_between,
    quaternion_conjugate,
    quaternion_multiply,
    quaternion_rotate,
)
from plugins.motion.skeletons import Skeleton


def fk(
    rotations: Tensor, root: Tensor, skeleton: Skeleton, translations: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Positions and global rotations of all joints.

    Args:
        rotations: (…, J, 4) local quaternions.
        root: (…, 3) position of joint 0.
        skeleton: gives parents and offsets.
        translations: (…, J, 3) replaces the offsets where every frame has its own, as BVH position channels do.

    Returns:
        positions (…, J, 3) and global quaternions (…, J, 4).
    """
    _check(rotations, skeleton, 4, "rotations")
    offsets = skeleton.offsets.to(rotations) if translations is None else translations
    turned, placed = [rotations[..., 0, :]], [root]
    for j, parent in enumerate(skeleton.parents[1:], 1):
        placed.append(placed[parent] + quaternion_rotate(turned[parent], offsets[..., j, :]))
        turned.append(quaternion_multiply(turned[parent], rotations[..., j, :]))
    return torch.stack(torch.broadcast_tensors(*placed), -2), torch.stack(turned, -2)


def ik(positions: Tensor, skeleton: Skeleton) -> tuple[Tensor, Tensor]:
    """Local rotations (…, J, 4) and root (…, 3) that pose the skeleton as the positions (…, J, 3) show it.

    A joint with several children is turned by the least-squares rotation (Kabsch) of its offsets onto them; a joint
    with one child by the shortest turn from its parent's frame, so that no twist is invented; a leaf stays in its
    parent's frame. Bone lengths are the skeleton's: where those of the positions differ, ``fk`` keeps directions.
    """
    _check(positions, skeleton, 3, "positions")
    offsets = skeleton.offsets.to(positions)
    turned: list[Tensor] = []
    for j, parent in enumerate(skeleton.parents):
        above = (
            turned[parent]
            if j
            else identity_quaternion(*positions.shape[:-2], dtype=positions.dtype, device=positions.device)
        )
        children = list(skeleton.children[j])
        wanted = positions[..., children, :] - positions[..., j, None, :]
        if not children:
            turned.append(above)
        elif len(children) == 1:
            now = quaternion_rotate(above, offsets[children[0]])
            turned.append(quaternion_multiply(quaternion_between(now, wanted[..., 0, :]), above))
        else:
            turned.append(matrix_to_quaternion(kabsch(offsets[children].expand_as(wanted), wanted)))
    local = [turned[0]] + [
        quaternion_multiply(quaternion_conjugate(turned[parent]), turned[j])
        for j, parent in enumerate(skeleton.parents[1:], 1)
    ]
    return normalize(torch.stack(local, -2)), positions[..., 0, :]


def kabsch(source: Tensor, target: Tensor) -> Tensor:
    """The rotation matrix (…, 3, 3) that brings vectors source (…, N, 3) closest to target (…, N, 3)."""
    u, _, vh = torch.linalg.svd(target.mT @ source)
    sign = torch.ones(u.shape[:-1], dtype=u.dtype, device=u.device)
    sign[..., 2] = torch.linalg.det(u @ vh).sign()
    return (u * sign[..., None, :]) @ vh


def fit_skeleton(positions: Tensor, skeleton: Skeleton, rounds: int = 3) -> Skeleton:
    """The skeleton whose rigid offsets explain positions (T, J, 3) best, in the rest pose of ``skeleton``.

    A bone is as long as on average, and where a joint has several children, their offsets are averaged in the
    joint's own frame and aligned with it anew, for a few rounds.
    """
    fitted = dataclasses.replace(skeleton, offsets=_lengthened(skeleton, positions))
    for _ in range(rounds):
        offsets = fitted.offsets.clone()
        _, turned = fk(*ik(positions, fitted), fitted)
        for j, children in enumerate(skeleton.children):
            if len(children) > 1:
                bones = positions[:, list(children)] - positions[:, j, None]
                own = quaternion_rotate(quaternion_conjugate(turned[:, j, None]), bones)
                offsets[list(children)] = own.mean(0).to(offsets)
        fitted = dataclasses.replace(fitted, offsets=offsets)
    return fitted


def _lengthened(skeleton: Skeleton, positions: Tensor) -> Tensor:
    return normalize(skeleton.offsets) * skeleton.lengths(positions).mean(0).to(skeleton.offsets)[:, None]


def chain_ik(positions: Tensor, skeleton: Skeleton, root: Tensor) -> Tensor:
    """Swing rotations (…, J, 4) of positions (…, J, 3) along the skeleton's chains, stored with the child.

    Args:
        root: (…, 4) the root's rotation, which starts every chain.
    """
    _check(positions, skeleton, 3, "positions")
    skeleton.require("chains")
    directions = normalize(skeleton.offsets).to(positions)
    local = list(identity_quaternion(*positions.shape[:-1], dtype=positions.dtype, device=positions.device).unbind(-2))
    local[0] = root
    for chain in skeleton.chains:
        turned = root
        for above, below in zip(chain, chain[1:], strict=False):
            bone = positions[..., below, :] - positions[..., above, :]
            swing = quaternion_between(directions[below], bone)
            local[below] = quaternion_multiply(quaternion_conjugate(turned), swing)
            turned = swing
    return torch.stack(local, -2)


def chain_fk(rotations: Tensor, root: Tensor, skeleton: Skeleton) -> Tensor:
    """Positions (…, J, 3) from chain rotations (…, J, 4), the root's first, and root positions (…, 3)."""
    _check(rotations, skeleton, 4, "rotations")
    skeleton.require("chains")
    offsets = skeleton.offsets.to(rotations)
    placed: dict[int, Tensor] = {0: root}
    for chain in skeleton.chains:
        turned = rotations[..., 0, :]
        for above, below in zip(chain, chain[1:], strict=False):
            turned = quaternion_multiply(turned, rotations[..., below, :])
            placed[below] = placed[above] + quaternion_rotate(turned, offsets[below])
    return torch.stack([placed[j] for j in range(len(skeleton))], -2)


def sideways(positions: Tensor, face_joints: Sequence[int], flipped_hips: bool = False) -> Tensor:
    """From left to right (…, 3), not of unit length: that of the shoulders plus that of the hips.

    Args:
        face_joints: right hip, left hip, right shoulder, left shoulder.
        flipped_hips: of ``heading``.
    """
    right_hip, left_hip, right_shoulder, left_shoulder = (positions[..., j, :] for j in face_joints)
    hips = right_hip - left_hip
    return right_shoulder - left_shoulder + (-hips if flipped_hips else hips)


def heading(positions: Tensor, skeleton: Skeleton, flipped_hips: bool = False) -> Tensor:
    """Unit horizontal directions (…, 3) the body faces: up × (right − left), hips and shoulders added.

    Args:
        flipped_hips: the hips enter with the opposite sign, as in the published HumanML3D features.
    """
    skeleton.require("face_joints")
    across = sideways(positions, skeleton.face_joints, flipped_hips)  # type: ignore[arg-type]
    zero = torch.zeros_like(across[..., 0])
    return normalize(torch.stack([across[..., 2], zero, -across[..., 0]], -1))


def retarget(positions: Tensor, skeleton: Skeleton) -> Tensor:
    """The motion (…, T, J, 3) of another body on the bones of ``skeleton``, as HumanML3D unifies its skeletons.

    Every bone keeps its direction and gets the skeleton's length; the root's path is scaled by the ratio of the legs.
    This is what ``chain_ik`` followed by ``chain_fk`` gives, whatever the root's rotation.

    Args:
        skeleton: with ``leg`` and bone lengths (``Skeleton.with_lengths`` of a reference frame).

    Raises:
        ValueError: the skeleton names no leg, or the legs of the first frame have no length.
    """
    _check(positions, skeleton, 3, "positions")
    skeleton.require("leg")
    leg = list(skeleton.leg)  # type: ignore[arg-type]
    lengths = torch.linalg.vector_norm(skeleton.offsets, dim=-1).to(positions)
    own = skeleton.lengths(positions[..., 0, :, :])[..., leg].sum(-1)
    if not bool((own > 0).all()):
        raise ValueError("the legs of the first frame have no length: these are no joint positions of this skeleton")
    placed = [positions[..., 0, :] * (lengths[leg].sum() / own)[..., None, None]]
    for j, parent in enumerate(skeleton.parents[1:], 1):
        bone = normalize(positions[..., j, :] - positions[..., parent, :])
        placed.append(placed[parent] + lengths[j] * bone)
    return torch.stack(placed, -2)


def mirror_positions(positions: Tensor, skeleton: Skeleton) -> Tensor:
    """The motion (…, J, 3) in a mirror: x negated, left and right joints exchanged."""
    flipped = positions[..., list(skeleton.mirrored), :]
    return flipped * flipped.new_tensor([-1.0, 1.0, 1.0])


def _check(x: Tensor, skeleton: Skeleton, width: int, name: str) -> None:
    if x.shape[-2:] != (len(skeleton), width):
        raise ValueError(f"{name} must end in ({len(skeleton)}, {width}) for this skeleton, not {tuple(x.shape)}")
