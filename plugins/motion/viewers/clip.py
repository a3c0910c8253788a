"""What every viewer shows: one motion with its words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Clip:
    """One motion to look at.

    Args:
        positions: (T, J, 3) in metres, y up; T ≥ 1.
        parents: J parent indices, −1 for the root.
        prompt: shown under the motion.
        title: shown above it, such as the method's name.
        group: clips of one group share a row.
        fps: frames a second.
        left, right: joints of the two body sides, drawn in colours of their own.
        generated: (T,) bool, False on frames that were given and not generated; None if all were.

    Raises:
        ValueError: shapes do not fit, a position is not finite, or fps is not positive.
    """

    positions: Tensor
    parents: Sequence[int]
    prompt: str = ""
    title: str = ""
    group: str = ""
    fps: float = 20.0
    left: Sequence[int] = ()
    right: Sequence[int] = ()
    generated: Tensor | None = None

    def __post_init__(self) -> None:
        positions = torch.as_tensor(self.positions).detach().cpu().double()
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "parents", tuple(int(p) for p in self.parents))
        if positions.ndim != 3 or positions.shape[1:] != (len(self.parents), 3) or not len(positions):
            raise ValueError(
                f"positions must be (T, {len(self.parents)}, 3) with T >= 1 for {len(self.parents)} parents, "
                f"not {tuple(positions.shape)}"
            )
        if not torch.isfinite(positions).all():
            raise ValueError(f"the motion {self.title or self.prompt!r} holds positions that are not finite")
        if not self.fps > 0:
            raise ValueError(f"fps must be positive, not {self.fps}")
        if self.generated is not None:
            generated = torch.as_tensor(self.generated).detach().cpu().bool()
            if generated.shape != (len(positions),):
                raise ValueError(f"generated must have one entry a frame ({len(positions)}), not {generated.shape}")
            object.__setattr__(self, "generated", generated)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def bones(self) -> list[tuple[int, int, int]]:
        """(parent, child, side) with side 1 for left, 2 for right, 0 for the middle, by the child."""
        left, right = set(self.left), set(self.right)
        return [(p, j, 1 if j in left else 2 if j in right else 0) for j, p in enumerate(self.parents) if p >= 0]


def sides(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Joints of the left and right side of the body by their names (``left_knee``, ``Hand_L``, ``r_hip``)."""
    left, right = [], []
    for j, name in enumerate(name.lower() for name in names):
        parts = name.replace(".", "_").split("_")
        if "left" in name or "l" in parts:
            left.append(j)
        elif "right" in name or "r" in parts:
            right.append(j)
    return left, right
