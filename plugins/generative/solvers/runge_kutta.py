"""Explicit Runge-Kutta methods in sigma (rho-RK of DEIS), and EDM's Heun sampler with churn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from .base import Evaluator, NoiseSource, Solver, combine, noise_prediction
from .multistep import runge_kutta_step
from .tableaux import EULER, HEUN2, TABLEAUX, Tableau


class RungeKuttaStep(NamedTuple):
    sigma: float
    delta: float
    tableau: Tableau


@dataclass(frozen=True)
class RungeKutta(Solver):
    """Explicit Runge-Kutta on ``dy/dsigma = eps`` (rho-RK of DEIS, arXiv:2204.13902).

    Args:
        method: "euler", "heun2", "kutta3", "ralston3", "heun3", "van_der_houwen3", "ssprk3" or "rk4";
            the digit is the order, and the number of evaluations a step.

    A step into sigma = 0, where eps is undefined at the last stage, is the first-order ``y = D``.
    Real-axis stability: 2, 2, 2.51 (all third-order ones), 2.79.
    """

    method: str = "heun2"

    def __post_init__(self) -> None:
        if self.method not in TABLEAUX:
            raise ValueError(f"method = {self.method!r} is not one of {', '.join(TABLEAUX)}")

    @property
    def order(self) -> int:
        return TABLEAUX[self.method][0]

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return len(TABLEAUX[self.method][1]) - 1

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[Any]:
        return [RungeKuttaStep(a, b - a, self._tableau(b)) for a, b in zip(levels, levels[1:], strict=False)]

    def _tableau(self, target: float) -> Tableau:
        return TABLEAUX[self.method][1] if target > 0 else EULER

    def stages(self, levels: tuple[float, ...]) -> list[tuple[float, ...]]:
        return [
            tuple(a + sum(row) * (b - a) for row in self._tableau(b)[:-1])
            for a, b in zip(levels, levels[1:], strict=False)
        ]

    def step(
        self, evaluate: Evaluator, y: Tensor, plan: RungeKuttaStep, memory: Any, noise: NoiseSource | None
    ) -> Tensor:
        first = noise_prediction(y, evaluate(y), plan.sigma)
        return runge_kutta_step(evaluate, y, first, plan.sigma, plan.delta, plan.tableau)


class ChurnStep(NamedTuple):
    sigma: float
    raised: float
    added: float
    target: float


@dataclass(frozen=True)
class Heun(Solver):
    """EDM's sampler: optional churn, then the trapezoidal rule in sigma (Karras et al. 2022, algorithms 1 and 2).

    Order 2 and two evaluations a step without churn; a step into sigma = 0 is Euler's (``y = D``).

    Args:
        churn: S_churn, total amount of noise put back over the whole grid, >= 0; each step raises sigma by the factor
            ``1 + min(churn / N, sqrt(2) - 1)``.
        churn_min, churn_max: only steps that start within these levels churn.
        noise_scale: S_noise, standard deviation of the added noise relative to the exact one.

    Published settings for ImageNet-64: churn 40, range 0.05 to 50, noise_scale 1.003 with 256 steps.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    noise_scale: float = 1.0
    evaluations = 2

    def __post_init__(self) -> None:
        if self.churn < 0:
            raise ValueError(f"churn = {self.churn:g} must not be negative")

    @property
    def order(self) -> int:
        return 2

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.churn > 0

    def _raised(self, levels: tuple[float, ...], i: int) -> float:
        inside = self.churn_min <= levels[i] <= self.churn_max
        gamma = min(self.churn / (len(levels) - 1), math.sqrt(2) - 1) if inside else 0.0
        return levels[i] * (1 + gamma)

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[ChurnStep]:
        steps = []
        for i in range(len(levels) - 1):
            raised = self._raised(levels, i)
            added = self.noise_scale * math.sqrt(raised**2 - levels[i] ** 2)
            steps.append(ChurnStep(levels[i], raised, added, levels[i + 1]))
        return steps

    def stages(self, levels: tuple[float, ...]) -> list[tuple[float, ...]]:
        return [
            (self._raised(levels, i), levels[i + 1])[: 2 if levels[i + 1] > 0 else 1] for i in range(len(levels) - 1)
        ]

    def step(
        self, evaluate: Evaluator, y: Tensor, plan: ChurnStep, memory: Any, noise: NoiseSource | None
    ) -> Tensor:
        if plan.added > 0:
            y = combine(y, 1.0, [noise(plan.sigma, plan.raised)], [plan.added])
        first = noise_prediction(y, evaluate(y), plan.raised)
        tableau = HEUN2 if plan.target > 0 else EULER
        return runge_kutta_step(evaluate, y, first, plan.raised, plan.target - plan.raised, tableau)
