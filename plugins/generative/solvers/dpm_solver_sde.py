"""DPM-Solver++(2M) for the reverse SDE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from .base import Evaluator, NoiseSource, combine
from .multistep import Multistep, MultistepStep
from .phi import phi


class StochasticStep(NamedTuple):
    step: MultistepStep
    added: float
    target: float


@dataclass(frozen=True)
class DPMSolverPP2MSDE(Multistep):
    """Second-order multistep solver of the diffusion SDE, one evaluation a step (Lu et al. 2022; k-diffusion).

    With ``h = lambda' - lambda``: ``y' = (sigma'/sigma) e^{-eta h} y + (1 - e^{-(1+eta) h}) [D + (D - D_prev)/(2 r)]
    + sigma' sqrt(1 - e^{-2 eta h}) z``.  Deterministic part of order 2; as a sampler of the SDE weak order 1 to 2.

    Args:
        eta: noise level; 0 is :class:`DPMSolverPP2M`, 1 the reverse SDE with the marginals' own noise.
        kind: ``"midpoint"`` or ``"heun"``, as in :class:`DPMSolverPP2M`.
        noise_scale: factor on the added noise.

    Pass ``noise=BrownianTree(...)`` for paths that do not change with the grid or the batch.
    """

    eta: float = 1.0
    kind: str = "midpoint"
    noise_scale: float = 1.0
    prediction = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta < 0:
            raise ValueError(f"eta = {self.eta:g} must not be negative")
        if self.kind not in ("midpoint", "heun"):
            raise ValueError(f"kind = {self.kind!r} is neither 'midpoint' nor 'heun'")
        if self.start == "rk":
            raise ValueError('start = "rk" would take deterministic first steps; use "ramp" or "exact"')

    @property
    def order(self) -> int:
        return 2

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.eta > 0

    def weights(self, nodes: tuple[float, ...], target: float) -> tuple[float, Sequence[float]]:
        if target == 0:
            return 0.0, (1.0,)
        h = math.log(nodes[0] / target)
        z = (1 + self.eta) * h
        decay, gain = math.exp(-z), -math.expm1(-z)
        if len(nodes) == 1:
            return decay, (gain,)
        ratio = math.log(nodes[1] / nodes[0]) / h
        slope = (z * phi(2, -z) if self.kind == "heun" else 0.5 * gain) / ratio
        return decay, (gain + slope, -slope)

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[StochasticStep]:
        steps = []
        for step, target in zip(super().plan(levels, past), levels[1:], strict=True):
            share = (target / step.sigma) ** (2 * self.eta)
            steps.append(StochasticStep(step, self.noise_scale * target * math.sqrt(1 - share), target))
        return steps

    def step(
        self,
        evaluate: Evaluator,
        y: Tensor,
        plan: StochasticStep,
        memory: list[Tensor],
        noise: NoiseSource | None,
    ) -> Tensor:
        self.observe(evaluate, y, plan.step.sigma, memory)
        result = combine(y, plan.step.scale, memory, plan.step.weights)
        if plan.added > 0:
            result.add_(noise(plan.step.sigma, plan.target), alpha=plan.added)
        return result
