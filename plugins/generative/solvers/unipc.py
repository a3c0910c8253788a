"""UniPC: a unified predictor-corrector (Zhao et al. 2023, arXiv:2302.04867)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from .base import Evaluator, NoiseSource, Past, Solver, combine
from .multistep import STARTS
from .phi import phi


class UniPCStep(NamedTuple):
    """Predictor of this step and the corrector of the state it starts from (None on the first)."""

    scale: float
    weights: tuple[float, ...]
    correct_scale: float | None
    correct_weights: tuple[float, ...]


class UniPCMemory:
    """Newest-first denoised states, and the corrected state the last step started from."""

    def __init__(self, values: list[Tensor]) -> None:
        self.values = values
        self.y: Tensor | None = None


@dataclass(frozen=True)
class UniPC(Solver):
    """UniPC-p on the denoised state; time variable lambda, one evaluation a step.

    The predictor (UniP-p) has order p.  The corrector (UniC-p) redoes the step with the new denoised state, which the
    next step needs anyway, and raises the order to p + 1; the denoiser is not called again at the corrected state.
    The last step is not corrected.

    Args:
        p: predictor order, 1 or more (1 to 3 in the paper).
        basis: ``"bh2"`` normalises by ``e^-h - 1``, ``"bh1"`` by ``-h``.
        corrector: apply UniC.
        lower_order_final: order at most the number of steps left, as the reference does.
        start: ``"ramp"`` raises the order from 1 over the first steps; ``"exact"`` takes the caller's history.
    """

    p: int = 2
    basis: str = "bh2"
    corrector: bool = True
    lower_order_final: bool = False
    start: str = field(default="ramp", kw_only=True)  # type: ignore[misc]

    def __post_init__(self) -> None:
        if self.p < 1:
            raise ValueError(f"p = {self.p} must be at least 1")
        if self.basis not in ("bh1", "bh2"):
            raise ValueError(f"basis = {self.basis!r} is neither 'bh1' nor 'bh2'")
        if self.start not in STARTS or self.start == "rk":
            raise ValueError(f"start = {self.start!r} is neither 'ramp' nor 'exact'")

    @property
    def order(self) -> int:
        return self.p + 1 if self.corrector else self.p

    @property
    def min_steps(self) -> int:
        return self.p if self.start == "ramp" else 1

    @property
    def history_length(self) -> int:
        return self.p - 1

    def weights(
        self, nodes: Sequence[float], target: float, with_target: bool
    ) -> tuple[float, tuple[float, ...]]:
        """``(scale, weights)`` of the step from ``nodes[0]``; ``with_target`` adds the target's own denoised state,
        whose weight then comes first."""
        if target == 0:
            return 0.0, (1.0,)
        h = math.log(nodes[0] / target)
        ratios = [math.log(nodes[0] / node) / h for node in nodes[1:]]
        order = len(nodes)
        if with_target:
            ratios.append(1.0)
        rhos = self._rhos(ratios, order, h, fixed_half=(order == 1 if with_target else order == 2))
        scale_b = -h if self.basis == "bh1" else math.expm1(-h)
        on_nodes = [-scale_b * rho / r for rho, r in zip(rhos, ratios, strict=True)]
        newest = -math.expm1(-h) - math.fsum(on_nodes)
        if with_target:
            return math.exp(-h), (on_nodes[-1], newest, *on_nodes[:-1])
        return math.exp(-h), (newest, *on_nodes)

    def _rhos(self, ratios: list[float], order: int, h: float, fixed_half: bool) -> list[float]:
        count = len(ratios)
        if count == 0:
            return []
        if fixed_half:
            return [0.5]
        hh = -h
        scale_b = hh if self.basis == "bh1" else math.expm1(hh)
        right = [math.factorial(k) * hh * phi(k + 1, hh) / scale_b for k in range(1, count + 1)]
        matrix = np.vander(np.asarray(ratios), count, increasing=True).T
        return np.linalg.solve(matrix, np.asarray(right)).tolist()

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[UniPCStep]:
        known = past + levels
        steps: list[UniPCStep] = []
        previous_nodes: tuple[float, ...] | None = None
        total = len(levels) - 1
        for i in range(total):
            newest = len(past) + i
            count = min(newest + 1, self.p, total - i if self.lower_order_final else self.p)
            nodes = tuple(known[newest - j] for j in range(count))
            correct: tuple[float | None, tuple[float, ...]] = (None, ())
            if self.corrector and previous_nodes is not None:
                correct = self.weights(previous_nodes, levels[i], with_target=True)
            steps.append(UniPCStep(*self.weights(nodes, levels[i + 1], with_target=False), *correct))
            previous_nodes = nodes
        return steps

    def begin(self, y: Tensor, past: Sequence[Past]) -> UniPCMemory:
        return UniPCMemory([point.denoised for point in past][::-1][: self.p])

    def step(
        self, evaluate: Evaluator, y: Tensor, plan: UniPCStep, memory: UniPCMemory, noise: NoiseSource | None
    ) -> Any:
        values = memory.values
        values.insert(0, evaluate(y))
        if plan.correct_scale is not None:
            y = combine(memory.y, plan.correct_scale, values, plan.correct_weights)
        del values[self.p :]
        memory.y = y
        return combine(y, plan.scale, values, plan.weights)
