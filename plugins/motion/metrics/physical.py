"""Does a motion do what its label says, checked without learning: which way it turns, which hand is up, how fast it is.

Labels are read by their words, e.g. ``walk-turn-left``, ``raise-up-right-hand``, ``run``; a label that claims nothing
checkable is left out. Positions are (B, T, J, 3) in metres, y up; a body that faces +z has its left at +x.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from plugins.motion.kinematics import sideways

TURN_LEFT, TURN_RIGHT, HAND_LEFT, HAND_RIGHT, RUN, WALK = range(6)
KINDS = ("turn left", "turn right", "left hand up", "right hand up", "run", "walk")


def claim(label: str) -> int | None:
    """What a label claims: an index into `KINDS`, or None if nothing that is checked here."""
    words = set(re.split(r"[^a-z]+", label.lower()))
    side = {"left": 0, "right": 1}
    sides = [side[w] for w in ("left", "right") if w in words]
    one_side = sides[0] if len(sides) == 1 and "both" not in words else None
    if words & {"turn", "turns", "turning"}:
        return None if one_side is None else (TURN_LEFT, TURN_RIGHT)[one_side]
    if words & {"raise", "raises", "wave", "waves"}:
        return None if one_side is None else (HAND_LEFT, HAND_RIGHT)[one_side]
    if words & {"run", "runs", "running"}:
        return RUN
    if words & {"walk", "walks", "walking"}:
        return WALK
    return None


def heading(positions: Tensor, face_joints: Sequence[int]) -> Tensor:
    """Angle (..., T) in radians about y that the body faces, 0 for +z and π/2 for +x.

    Args:
        positions: (..., T, J, 3).
        face_joints: right hip, left hip, right shoulder, left shoulder.
    """
    to_right = sideways(positions, face_joints)
    # forward = up × right for a body whose right is at -x when it faces +z
    return torch.atan2(to_right[..., 2], -to_right[..., 0])


def net_yaw(positions: Tensor, mask: Tensor, face_joints: Sequence[int]) -> Tensor:
    """How far (...,) the body has turned from its first to its last frame, in radians; a left turn is positive."""
    angle = heading(positions, face_joints)
    step = torch.remainder(angle[..., 1:] - angle[..., :-1] + math.pi, 2 * math.pi) - math.pi
    inside = mask[..., 1:] & mask[..., :-1]
    return torch.where(inside, step, torch.zeros_like(step)).sum(-1)


def wrist_lead(positions: Tensor, mask: Tensor, hands: Sequence[int]) -> Tensor:
    """How much higher (...,) in metres the left wrist's highest point is than the right wrist's.

    Args:
        hands: left wrist, right wrist.
    """
    height = positions[..., list(hands), 1]
    top = torch.where(mask.unsqueeze(-1), height, height.new_full((), -torch.inf)).amax(-2)
    return top[..., 0] - top[..., 1]


def root_speed(positions: Tensor, mask: Tensor, fps: float) -> Tensor:
    """Mean horizontal speed (...,) of the root in m/s, along its path."""
    root = positions[..., 0, ::2]
    step = torch.linalg.vector_norm(root[..., 1:, :] - root[..., :-1, :], dim=-1)
    inside = mask[..., 1:] & mask[..., :-1]
    return torch.where(inside, step, torch.zeros_like(step)).sum(-1) * fps / inside.sum(-1).clamp_min(1)


@dataclasses.dataclass(frozen=True)
class PhysicalChecks:
    """Label checks for one skeleton and one set of labels.

    Args:
        labels: names of the contents, in the order of their numbers.
        face_joints: right hip, left hip, right shoulder, left shoulder.
        hands: left wrist, right wrist.
        fps: frames a second.
        run_speed: m/s above which a motion counts as running; `calibrated` takes it from real clips.
    """

    labels: tuple[str, ...]
    face_joints: tuple[int, int, int, int]
    hands: tuple[int, int]
    fps: float
    run_speed: float = 1.7

    def claims(self, content: Tensor) -> Tensor:
        """Claim (B,) of each sample's content (B,), −1 where there is none to check."""
        table = [claim(label) for label in self.labels]
        return torch.tensor([-1 if c is None else c for c in table], device=content.device)[content]

    def calibrated(self, positions: Tensor, mask: Tensor, content: Tensor) -> PhysicalChecks:
        """The same checks with the speed between walking and running that separates these real clips best.

        Only clips that run or merely walk (not turn) are looked at; without both kinds nothing changes.
        """
        speed, claims = root_speed(positions, mask, self.fps), self.claims(content)
        run, walk = speed[claims == RUN].double().cpu(), speed[claims == WALK].double().cpu()
        if len(run) == 0 or len(walk) == 0:
            return self
        cuts = torch.cat([run, walk]).sort().values
        cuts = (cuts[1:] + cuts[:-1]) / 2
        score = (run[:, None] > cuts).double().mean(0) + (walk[:, None] <= cuts).double().mean(0)
        best = cuts[score == score.max()]
        return dataclasses.replace(self, run_speed=float(best[len(best) // 2]))

    def __call__(self, positions: Tensor, mask: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each motion keeps its label's claim.

        Args:
            positions: (B, T, J, 3); mask: (B, T); content: (B,) numbers of the labels asked for.

        Returns:
            ``passed`` (B,) bool and ``checked`` (B,) bool; where nothing is claimed both are False.
        """
        claims = self.claims(content)
        yaw = net_yaw(positions, mask, self.face_joints)
        lead = wrist_lead(positions, mask, self.hands)
        speed = root_speed(positions, mask, self.fps)
        tests = torch.stack([yaw > 0, yaw < 0, lead > 0, lead < 0, speed > self.run_speed, speed <= self.run_speed])
        passed = tests.gather(0, claims.clamp_min(0).unsqueeze(0)).squeeze(0) & (claims >= 0)
        return passed, claims >= 0

    def sides(self, content: Tensor) -> Tensor:
        """Which samples (B,) claim a side: those in which left and right can be confused."""
        claims = self.claims(content)
        return (claims >= TURN_LEFT) & (claims <= HAND_RIGHT)
