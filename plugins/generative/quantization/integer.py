"""Integer formats: the uniform grid that floating point is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["INTFormat"]


@dataclass(frozen=True)
class INTFormat:
    """Signed integers of ``bits`` bits: the uniform grid -2^(bits-1) … 2^(bits-1) - 1, in units of a quantizer's scale.

    Args:
        bits: 2 to 16.
        narrow: leave out the most negative code, so that the grid is symmetric (usual for weights).
    """

    bits: int
    narrow: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"bits={self.bits}: it must lie between 2 and 16")

    @property
    def name(self) -> str:
        return f"INT{self.bits}"

    @property
    def max_value(self) -> float:
        return float(2 ** (self.bits - 1) - 1)

    @property
    def min_value(self) -> float:
        return -self.max_value if self.narrow else -self.max_value - 1

    def step(self, x: Tensor) -> Tensor:
        """Spacing of the grid: one."""
        return torch.ones_like(x)

    def quantize(self, x: Tensor) -> Tensor:
        """Nearest integers, ties to even, saturated; same shape and dtype; no gradient."""
        if not x.is_floating_point():
            raise ValueError(f"x has dtype {x.dtype}; give a floating-point tensor")
        return x.detach().round().clamp(self.min_value, self.max_value)

    def values(self) -> Tensor:
        """All representable values >= 0, ascending, float64."""
        return torch.arange(2 ** (self.bits - 1), dtype=torch.float64)
