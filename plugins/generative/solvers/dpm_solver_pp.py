"""DPM-Solver++ multistep, orders 2 and 3: exponential integrators of the denoised state in ``lambda = -log sigma``.

Lu et al. 2022, arXiv:2211.01095.  Time variable lambda, step ``h = lambda' - lambda``; with
``a = sigma'/sigma = exp(-h)`` the exact linear part is ``y' = a y + (1 - a) D`` for a constant D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .multistep import Multistep
from .phi import phi


@dataclass(frozen=True)
class DPMSolverPP2M(Multistep):
    """Order 2, one evaluation a step.

    Args:
        kind: ``"midpoint"`` adds half of the first difference, ``"heun"`` its exact weight ``phi_2``; both order 2.
        lower_order_final: take the last step at first order (steadier below about 15 steps).
    """

    kind: str = "midpoint"
    lower_order_final: bool = False
    prediction = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in ("midpoint", "heun"):
            raise ValueError(f"kind = {self.kind!r} is neither 'midpoint' nor 'heun'")

    @property
    def order(self) -> int:
        return 2

    def available(self, i: int, steps: int) -> int:
        return min(self.points, steps - i) if self.lower_order_final else self.points

    def weights(self, nodes: tuple[float, ...], target: float) -> tuple[float, Sequence[float]]:
        if target == 0:
            return 0.0, (1.0,)
        h = math.log(nodes[0] / target)
        decay, gain = math.exp(-h), -math.expm1(-h)
        if len(nodes) == 1:
            return decay, (gain,)
        ratio = math.log(nodes[1] / nodes[0]) / h
        # Integral of e^{-(h - u)} (u / h) du = h phi_2(-h), against its value at the midpoint.
        slope = (h * phi(2, -h) if self.kind == "heun" else 0.5 * gain) / ratio
        return decay, (gain + slope, -slope)


@dataclass(frozen=True)
class DPMSolverPP3M(Multistep):
    """Three-step DPM-Solver++, one evaluation a step.

    Args:
        variant: ``"exact"`` integrates the quadratic interpolant exactly (order 3).  ``"reference"`` halves its
            second-difference term, as the authors' code, diffusers and k-diffusion do: order 2, damped, and often
            the better of the two below about 25 steps.
        lower_order_final: order at most the steps left.
    """

    variant: str = "reference"
    lower_order_final: bool = False
    prediction = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in ("reference", "exact"):
            raise ValueError(f"variant = {self.variant!r} is neither 'reference' nor 'exact'")

    @property
    def order(self) -> int:
        return 3 if self.variant == "exact" else 2

    @property
    def points(self) -> int:
        return 3

    def available(self, i: int, steps: int) -> int:
        return min(self.points, steps - i) if self.lower_order_final else self.points

    def weights(self, nodes: tuple[float, ...], target: float) -> tuple[float, Sequence[float]]:
        if target == 0:
            return 0.0, (1.0,)
        if len(nodes) < 3:
            return DPMSolverPP2M().weights(nodes, target)
        h = math.log(nodes[0] / target)
        r0 = math.log(nodes[1] / nodes[0]) / h
        r1 = math.log(nodes[2] / nodes[1]) / h
        decay, gain = math.exp(-h), -math.expm1(-h)
        second = 2.0 if self.variant == "exact" else 1.0
        first = h * phi(2, -h)
        curve = second * h * phi(3, -h)
        # D1 = d0 + r0/(r0+r1) (d0 - d1) and D2 = (d0 - d1)/(r0+r1), d0 and d1 the scaled first differences.
        on_d0 = first * (1 + r0 / (r0 + r1)) + curve / (r0 + r1)
        on_d1 = -first * r0 / (r0 + r1) - curve / (r0 + r1)
        return decay, (gain + on_d0 / r0, -on_d0 / r0 + on_d1 / r1, -on_d1 / r1)
