"""Joint positions as features relative to the heading: the representations of HumanML3D (12J − 1 numbers a frame, 263
for 22 joints) and of MARDM (its first 4 + 3(J − 1), 67 for 22 joints: nothing redundant)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from plugins.motion.kinematics import chain_fk, chain_ik, heading
from plugins.motion.representation.canonical import canonicalize, facing_rotations, gaussian_smooth
from plugins.motion.rotations import (
    matrix_to_quaternion,
    matrix_to_sixd,
    normalize,
    quaternion_conjugate,
    quaternion_multiply,
    quaternion_rotate,
    quaternion_to_matrix,
    sixd_to_matrix,
)
from plugins.motion.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class Essential:
    """Turning, root velocity, root height and joint positions in the body's frame: 4 + 3(J − 1) numbers a frame.

    A row holds, in this order: half the turn to the next frame (rad), the root's displacement to the next frame along
    x and z in that frame's heading, the root's height, and joints 1…J−1 relative to the root's ground point, turned
    to face +z. Meng et al. 2025, *Rethinking Diffusion for Text-Driven Human Motion Generation*.

    Args:
        skeleton: with ``face_joints``.
        compatible: as the published data has it: the hips enter the smoothed heading with the opposite sign; the first
            frame faces +z by its own heading, not by the smoothed one, which makes the first turn a jump; and where
            the heading passes the back (±180°) that turn has the wrong sign, so that ``decode`` is off by it. False
            repairs all three.
        smooth: standard deviation in frames of the heading's Gaussian smoothing.

    Raises:
        ValueError: the skeleton lacks what is needed.
    """

    skeleton: Skeleton
    compatible: bool = True
    smooth: float = 20.0

    def __post_init__(self) -> None:
        self.skeleton.require("face_joints")

    @property
    def dim(self) -> int:
        """Numbers a frame."""
        return 4 + 3 * (len(self.skeleton) - 1)

    @property
    def groups(self) -> dict[str, slice]:
        """The parts of a row that share one scale, by name."""
        return {
            "turn": slice(0, 1),
            "velocity": slice(1, 3),
            "height": slice(3, 4),
            "positions": slice(4, 4 + 3 * (len(self.skeleton) - 1)),
        }

    def encode(self, positions: Tensor) -> Tensor:
        """Positions (…, T, J, 3), y up, T ≥ 2, as features (…, T − 1, D) of the same dtype.

        The motion is put on the floor, at the origin and facing +z first, so yaw and place do not matter.

        Raises:
            ValueError: the shape does not fit the skeleton, or there are fewer than 2 frames.
        """
        motion = self.canonicalize(positions.double())
        forward = gaussian_smooth(heading(motion, self.skeleton, flipped_hips=self.compatible), self.smooth)
        return self._encode(motion, facing_rotations(forward)).to(positions.dtype)

    def canonicalize(self, positions: Tensor) -> Tensor:
        """The motion (…, T, J, 3) that ``decode(encode(positions))`` gives, with its last frame."""
        self._check_positions(positions)
        if self.compatible:
            return canonicalize(positions, self.skeleton)
        forward = gaussian_smooth(heading(positions, self.skeleton), self.smooth)
        return canonicalize(positions, self.skeleton, forward[..., 0, :])

    def decode(self, features: Tensor) -> Tensor:
        """Positions (…, T, J, 3) of features (…, T, D), from the origin and facing +z; sums in float64.

        Raises:
            ValueError: the last axis is not D.
        """
        self._check_features(features)
        x = features.double()
        back, place = self._trajectory(x)
        joints = x[..., self.groups["positions"]].unflatten(-1, (-1, 3))
        joints = quaternion_rotate(back[..., None, :], joints)
        joints = joints + (place * place.new_tensor([1.0, 0.0, 1.0]))[..., None, :]
        return torch.cat([place[..., None, :], joints], -2).to(features.dtype)

    def mirror(self, features: Tensor) -> Tensor:
        """The features (…, D) of the motion seen in a mirror: left and right exchanged, x and turns negated."""
        self._check_features(features)
        return torch.cat(self._mirrored(features), -1)

    def yaw(self, features: Tensor) -> Tensor:
        """Heading angle (…, T) in rad relative to the first frame; to the left is positive."""
        self._check_features(features)
        return -2 * _accumulated(features[..., 0].double()).to(features.dtype)

    def _encode(self, motion: Tensor, root: Tensor) -> Tensor:
        turn = quaternion_multiply(root[..., 1:, :], quaternion_conjugate(root[..., :-1, :]))
        if not self.compatible:
            turn = torch.where(turn[..., :1] < 0, -turn, turn)
        step = quaternion_rotate(root[..., 1:, :], torch.diff(motion[..., 0, :], dim=-2))
        ground = motion[..., :1, :] * motion.new_tensor([1.0, 0.0, 1.0])
        body = quaternion_rotate(root[..., None, :], motion - ground)
        return torch.cat(
            [
                turn[..., 2:3].clamp(-1, 1).arcsin(),
                step[..., [0, 2]],
                motion[..., :-1, 0, 1:2],
                body[..., :-1, 1:, :].flatten(-2),
            ],
            -1,
        )

    def _trajectory(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations (…, T, 4) from the body's frame to the world's, and root positions (…, T, 3)."""
        half = _accumulated(x[..., 0])
        zero = torch.zeros_like(half)
        back = torch.stack([half.cos(), zero, -half.sin(), zero], -1)
        step = torch.stack([x[..., 1], zero, x[..., 2]], -1)
        step = torch.cat([torch.zeros_like(step[..., :1, :]), step[..., :-1, :]], -2)
        place = quaternion_rotate(back, step).cumsum(-2)
        return back, torch.stack([place[..., 0], x[..., 3], place[..., 2]], -1)

    def _mirrored(self, features: Tensor) -> list[Tensor]:
        sign = features.new_tensor([-1.0, 1.0, 1.0])
        joints = features[..., self.groups["positions"]].unflatten(-1, (-1, 3))
        swap = [j - 1 for j in self.skeleton.mirrored[1:]]
        return [
            -features[..., :1],
            features[..., 1:3] * sign[:2],
            features[..., 3:4],
            (joints[..., swap, :] * sign).flatten(-2),
        ]

    def _check_positions(self, positions: Tensor) -> None:
        if positions.ndim < 3 or positions.shape[-2:] != (len(self.skeleton), 3):
            raise ValueError(
                f"positions must be (…, T, {len(self.skeleton)}, 3) for this skeleton, not {tuple(positions.shape)}"
            )
        if positions.shape[-3] < 2:
            raise ValueError(f"a motion needs at least 2 frames to have velocities, not {positions.shape[-3]}")

    def _check_features(self, features: Tensor) -> None:
        if features.shape[-1] != self.dim:
            raise ValueError(
                f"features must have {self.dim} numbers a frame for {len(self.skeleton)} joints, "
                f"not {features.shape[-1]}"
            )


@dataclasses.dataclass(frozen=True)
class HumanML3D(Essential):
    """The 263 numbers a frame of HumanML3D (251 for KIT): 12J − 1, redundant (Guo et al. 2022).

    After the essential part follow 6-D rotations of joints 1…J−1 along their chains, velocities of all joints in the
    body's frame, and whether left ankle, left toe, right ankle and right toe are planted.

    Args:
        skeleton, compatible, smooth: as ``Essential``; the skeleton also needs ``chains`` and ``feet``.
    """

    def __post_init__(self) -> None:
        self.skeleton.require("face_joints", "chains", "feet")

    @property
    def dim(self) -> int:
        return 12 * len(self.skeleton) - 1

    @property
    def groups(self) -> dict[str, slice]:
        joints = len(self.skeleton)
        at = 4 + 3 * (joints - 1)
        return super().groups | {
            "rotations": slice(at, at + 6 * (joints - 1)),
            "velocities": slice(at + 6 * (joints - 1), at + 6 * (joints - 1) + 3 * joints),
            "contacts": slice(self.dim - 4, self.dim),
        }

    def essential(self) -> Essential:
        """The representation of the first columns."""
        return Essential(self.skeleton, self.compatible, self.smooth)

    def recover_from_rotations(self, features: Tensor, skeleton: Skeleton | None = None) -> Tensor:
        """Positions (…, T, J, 3) from the rotations in features (…, T, D) instead of the positions in them.

        Args:
            skeleton: gives the bone lengths; the representation's own when omitted.
        """
        self._check_features(features)
        x = features.double()
        back, place = self._trajectory(x)
        sixd = x[..., self.groups["rotations"]].unflatten(-1, (-1, 6))
        local = matrix_to_quaternion(sixd_to_matrix(sixd))
        # the root of the chains is the rotation towards +z, the inverse of the way back
        turned = torch.cat([quaternion_conjugate(back)[..., None, :], local], -2)
        return chain_fk(turned, place, skeleton or self.skeleton).to(features.dtype)

    def _encode(self, motion: Tensor, root: Tensor) -> Tensor:
        swing = chain_ik(motion, self.skeleton, root)
        step = torch.diff(motion, dim=-3)
        feet = step[..., list(self.skeleton.feet), :]  # type: ignore[arg-type]
        return torch.cat(
            [
                super()._encode(motion, root),
                matrix_to_sixd(quaternion_to_matrix(normalize(swing)))[..., :-1, 1:, :].flatten(-2),
                quaternion_rotate(root[..., :-1, None, :], step).flatten(-2),
                ((feet * feet).sum(-1) < self.skeleton.contact_threshold).to(motion.dtype),
            ],
            -1,
        )

    def _mirrored(self, features: Tensor) -> list[Tensor]:
        sign = features.new_tensor([-1.0, 1.0, 1.0])
        swap = list(self.skeleton.mirrored)
        below = [j - 1 for j in swap[1:]]
        sixd = features[..., self.groups["rotations"]].unflatten(-1, (-1, 6))[..., below, :]
        velocities = features[..., self.groups["velocities"]].unflatten(-1, (-1, 3))[..., swap, :]
        return [
            *super()._mirrored(features),
            (sixd * features.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])).flatten(-2),
            (velocities * sign).flatten(-2),
            features[..., self.groups["contacts"]][..., [2, 3, 0, 1]],
        ]


def _accumulated(turns: Tensor) -> Tensor:
    """Half angles (…, T) of every frame: the sum of the turns before it."""
    return torch.cat([torch.zeros_like(turns[..., :1]), turns[..., :-1]], -1).cumsum(-1)
