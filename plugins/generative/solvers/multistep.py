"""Linear multistep methods: one denoiser evaluation a step, older answers reused.

All of them take the step ``y' = a y + sum_k w_k h_k`` with ``h_k`` the newest-first history of either denoised
states ("data") or noise predictions ("noise").  A method is its weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from .base import Evaluator, NoiseSource, Past, Solver, combine, noise_prediction
from .tableaux import RK_STARTERS

STARTS = ("ramp", "rk", "exact")


class MultistepStep(NamedTuple):
    """Coefficients of one step: ``y' = scale y + sum_k weights[k] history[k]``, or a Runge-Kutta start."""

    sigma: float
    scale: float
    weights: tuple[float, ...]
    starter: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class Multistep(Solver):
    """Base of the linear multistep solvers.

    Args:
        start: how the first steps, which lack history, are taken. ``"ramp"``: with the orders the history allows (one
            evaluation a step; the first-order first step leaves a global error of order 2 whatever the method's);
            ``"rk"``: by a Runge-Kutta method of the full order (extra evaluations); ``"exact"``: the caller passes
            the history.

    A subclass sets ``prediction`` to ``"data"`` or ``"noise"``: what its history holds.
    """

    start: str = field(default="ramp", kw_only=True)  # type: ignore[misc]
    prediction = "noise"

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"start = {self.start!r} is not one of {', '.join(map(repr, STARTS))}")

    @property
    def points(self) -> int:
        """Number of history values a full step combines (its order, for most methods)."""
        return self.order

    @property
    def min_steps(self) -> int:
        return self.points if self.start == "ramp" else 1

    @property
    def history_length(self) -> int:
        return self.points - 1

    @abstractmethod
    def weights(self, nodes: tuple[float, ...], target: float) -> tuple[float, Sequence[float]]:
        """``(scale, weights)`` of the step from ``nodes[0]`` to ``target``.

        Args:
            nodes: levels of the history, newest (lowest sigma) first; at most ``points`` of them.
            target: next level; may be 0.
        """

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[MultistepStep]:
        known = past + levels
        steps = []
        for i in range(len(levels) - 1):
            newest = len(past) + i
            sigma, target = levels[i], levels[i + 1]
            starter = self._starter(i, len(levels) - 1, target)
            if starter is not None:
                steps.append(MultistepStep(sigma, 1.0, (target - sigma,), starter))
                continue
            count = min(newest + 1, self.available(i, len(levels) - 1))
            nodes = tuple(known[newest - j] for j in range(count))
            scale, weights = self.weights(nodes, target)
            steps.append(MultistepStep(sigma, scale, tuple(weights)))
        return steps

    def available(self, i: int, steps: int) -> int:
        """The most history values step ``i`` of ``steps`` may use."""
        return self.points

    def _starter(self, i: int, steps: int, target: float) -> tuple[tuple[float, ...], ...] | None:
        if self.start == "rk" and i < self.points - 1 and target > 0:
            return RK_STARTERS[min(self.order, max(RK_STARTERS))]
        return None

    def stages(self, levels: tuple[float, ...]) -> list[tuple[float, ...]]:
        result = []
        for i in range(len(levels) - 1):
            starter = self._starter(i, len(levels) - 1, levels[i + 1])
            nodes = (0.0,) if starter is None else tuple(sum(row) for row in starter[:-1])
            result.append(tuple(levels[i] + c * (levels[i + 1] - levels[i]) for c in nodes))
        return result

    def steps_for(self, nfe: int) -> int:
        if self.start != "rk" or self.points == 1:
            return nfe
        extra = len(RK_STARTERS[min(self.order, max(RK_STARTERS))]) - 2
        first = min(self.points - 1, nfe // (extra + 1))
        return nfe - first * extra

    def begin(self, y: Tensor, past: Sequence[Past]) -> list[Tensor]:
        values = [point.denoised if self.prediction == "data" else point.eps for point in past]
        return values[::-1][: self.points]

    def observe(self, evaluate: Evaluator, y: Tensor, sigma: float, memory: list[Tensor]) -> None:
        """Evaluate at the step's start and put the value in front of the history."""
        value = evaluate(y)
        if self.prediction == "noise":
            value = noise_prediction(y, value, sigma)
        memory.insert(0, value)
        del memory[self.points :]

    def step(
        self, evaluate: Evaluator, y: Tensor, plan: MultistepStep, memory: list[Tensor], noise: NoiseSource | None
    ) -> Tensor:
        self.observe(evaluate, y, plan.sigma, memory)
        if plan.starter is None:
            return combine(y, plan.scale, memory, plan.weights)
        first = memory[0] if self.prediction == "noise" else noise_prediction(y, memory[0], plan.sigma)
        return runge_kutta_step(evaluate, y, first, plan.sigma, plan.weights[0], plan.starter)


def runge_kutta_step(
    evaluate: Evaluator,
    y: Tensor,
    first: Tensor,
    sigma: float,
    delta: float,
    tableau: tuple[tuple[float, ...], ...],
) -> Tensor:
    """Explicit Runge-Kutta step of ``dy/dsigma = eps``, from ``sigma`` by ``delta``; ``first`` is eps at the start.

    ``tableau`` holds the rows of the stage matrix (the first empty) and then the weights.
    """
    slopes = [first]
    for stage, row in enumerate(tableau[1:-1], start=1):
        state = combine(y, 1.0, slopes, [delta * a for a in row])
        slopes.append(noise_prediction(state, evaluate(state, stage), sigma + sum(row) * delta))
    return combine(y, 1.0, slopes, [delta * b for b in tableau[-1]])
