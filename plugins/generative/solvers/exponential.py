"""Exponential integrators of any order: Lagrange extrapolation in ``lambda = -log sigma`` of D or of eps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .lagrange import exponential_kernel_weights
from .multistep import Multistep


@dataclass(frozen=True)
class Exponential(Multistep):
    """Exponential Adams-Bashforth in lambda; order as given, one evaluation a step.

    Args:
        order: 1 or more (1 is Euler/DDIM for either prediction; 2 to 4 are the useful ones).
        prediction: ``"data"`` extrapolates D with kernel e^lambda (DPM-Solver++ family);
            ``"noise"`` extrapolates eps with kernel e^-lambda (DPM-Solver, and DEIS in log rho).
        lower_order_final: order at most the number of steps left.

    data:  ``y' = (sigma'/sigma) y + sigma' int e^u D(u) du``;  noise: ``y' = y - int e^-u eps(u) du``, over lambda.
    A step into sigma = 0, at lambda = infinity, is the first-order ``y = D``.
    Zhang & Chen 2023 (arXiv:2204.13902), Lu et al. 2022 (arXiv:2206.00927, 2211.01095).
    """

    order: int = 2
    prediction: str = "data"  # type: ignore[misc]
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order < 1:
            raise ValueError(f"order = {self.order} must be at least 1")
        if self.prediction not in ("data", "noise"):
            raise ValueError(f"prediction = {self.prediction!r} is neither 'data' nor 'noise'")

    def available(self, i: int, steps: int) -> int:
        return min(self.points, steps - i) if self.lower_order_final else self.points

    def weights(self, nodes: tuple[float, ...], target: float) -> tuple[float, Sequence[float]]:
        if target == 0:
            return (0.0, (1.0,)) if self.prediction == "data" else (1.0, (-nodes[0],))
        lambdas = [-math.log(node) for node in nodes]
        if self.prediction == "data":
            return target / nodes[0], exponential_kernel_weights(lambdas, -math.log(target), -1.0)
        return 1.0, [-target * w for w in exponential_kernel_weights(lambdas, -math.log(target), 1.0)]
