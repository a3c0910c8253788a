"""Adams predictor-corrector on v in the angle of the trigonometric interpolant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from .base import Evaluator, NoiseSource, Past, Solver, combine
from .lagrange import uniform_kernel_weights


class AngularStep(NamedTuple):
    """v = on_y y + on_denoised D at the step's start; then a correction of the state there, and the prediction."""

    on_y: float
    on_denoised: float
    correct_scale: float | None
    correct_weights: tuple[float, ...]
    scale: float
    weights: tuple[float, ...]


class AngularMemory:
    """Newest-first velocities, and the corrected state the last step started from."""

    def __init__(self, values: list[Tensor]) -> None:
        self.values = values
        self.y: Tensor | None = None


@dataclass(frozen=True)
class Angular(Solver):
    """Variable-step Adams-Bashforth-Moulton on the velocity v of the unit-variance state; one evaluation a step.

    With the angle ``theta = atan(sigma / s)``, s the data's scale, the state ``u = y / sqrt(s^2 + sigma^2)`` is
    ``cos(theta) x0/s + sin(theta) eps``, and the probability-flow ODE is exactly ``du/dtheta = v``,
    ``v = cos(theta) eps - sin(theta) D/s`` ("v-prediction", Salimans & Ho 2022, arXiv:2202.00512; TrigFlow, Lu & Song
    2024, arXiv:2410.11081).  v is smooth in theta over the whole range, where eps and D each vary fast at one end of
    it, so polynomials extrapolate it well; Gaussian data of scale s has v = 0, and any step is exact.

    The predictor extrapolates v through ``points`` values (order ``points``).  The corrector redoes the step with the
    value the next one needs anyway (Adams-Moulton, order ``points + 1``, no further evaluation; the last step is not
    corrected).  Time variable theta; a step to sigma = 0 (theta = 0) is an ordinary one, of full order.

    Args:
        points: history values of the predictor, 1 or more.
        data_std: s; 1 is the variance-preserving v.
        corrector: apply the Adams-Moulton corrector.
        start: "ramp" adds one point a step from one; "exact" takes the caller's history.
    """

    points: int = 3
    data_std: float = 1.0
    corrector: bool = True
    start: str = field(default="ramp", kw_only=True)  # type: ignore[misc]

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"points = {self.points} must be at least 1")
        if not self.data_std > 0:
            raise ValueError(f"data_std = {self.data_std:g} must be positive")
        if self.start not in ("ramp", "exact"):
            raise ValueError(f"start = {self.start!r} is neither 'ramp' nor 'exact'")

    @property
    def order(self) -> int:
        return self.points + 1 if self.corrector else self.points

    @property
    def min_steps(self) -> int:
        return self.points if self.start == "ramp" else 1

    @property
    def history_length(self) -> int:
        return self.points - 1

    def _velocity(self, sigma: float) -> tuple[float, float]:
        """``v = a y + b D``."""
        s, radius = self.data_std, math.hypot(self.data_std, sigma)
        return s / (sigma * radius), -radius / (s * sigma)

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[AngularStep]:
        known = past + levels
        angles = [math.atan2(level, self.data_std) for level in known]
        radii = [math.hypot(self.data_std, level) for level in known]
        steps: list[AngularStep] = []
        previous = 0
        for i in range(len(levels) - 1):
            n = len(past) + i
            correct: tuple[float | None, tuple[float, ...]] = (None, ())
            if self.corrector and i > 0:
                nodes = [angles[n - j] for j in range(previous + 1)]
                correct = radii[n] / radii[n - 1], self._weights(nodes, angles[n - 1], angles[n], radii[n])
            previous = min(self.points, n + 1)
            nodes = [angles[n - j] for j in range(previous)]
            predict = radii[n + 1] / radii[n], self._weights(nodes, angles[n], angles[n + 1], radii[n + 1])
            steps.append(AngularStep(*self._velocity(levels[i]), *correct, *predict))
        return steps

    @staticmethod
    def _weights(nodes: Sequence[float], start: float, end: float, radius: float) -> tuple[float, ...]:
        return tuple(radius * w for w in uniform_kernel_weights(nodes, end, start))

    def begin(self, y: Tensor, past: Sequence[Past]) -> AngularMemory:
        values = []
        for point in past:
            on_y, on_denoised = self._velocity(point.sigma)
            values.insert(0, combine(point.y, on_y, [point.denoised], [on_denoised]))
        return AngularMemory(values[: self.points])

    def step(
        self, evaluate: Evaluator, y: Tensor, plan: AngularStep, memory: AngularMemory, noise: NoiseSource | None
    ) -> Tensor:
        values = memory.values
        values.insert(0, combine(y, plan.on_y, [evaluate(y)], [plan.on_denoised]))
        if plan.correct_scale is not None:
            y = combine(memory.y, plan.correct_scale, values, plan.correct_weights)
        del values[self.points :]
        memory.y = y
        return combine(y, plan.scale, values, plan.weights)
