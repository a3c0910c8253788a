"""Momentum samplers against divergence artifacts: heavy ball, Nesterov and GHVB.

Wizadwongsa et al. 2023, "Diffusion Sampling with Momentum for Mitigating Divergence Artifacts" (arXiv:2307.11118).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from .adams_bashforth import PLMS
from .base import Evaluator, NoiseSource, Past, Solver, combine
from .multistep import Multistep, MultistepStep
from .phi import phi


@dataclass(frozen=True)
class HeavyBall(Solver):
    """Momentum on the direction of a multistep method; one evaluation a step.

    With the base step ``y' = a y + W p``, p its weighted mean direction: ``v = (1 - beta) v_prev + beta p``, and
    ``y' = a y + W v``; Nesterov's variant uses ``(1 - beta) v + beta p``.  The first v_prev is the first eps (or D).

    Args:
        base: the method, e.g. ``PLMS(4)`` (the paper's) or ``DPMSolverPP2M()``; its start must not be "rk".
        beta: in (0, 1]; 1 is the base method.
        nesterov: see above.

    Order 1 for beta < 1 (whatever the base), the base's for beta = 1.  On the real axis heavy ball widens the
    stability interval of PLMS by ``(2 - beta) / beta``.
    """

    base: Multistep = PLMS(4)  # noqa: RUF009  (a frozen dataclass)
    beta: float = 0.8
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta = {self.beta:g} must lie in (0, 1]")
        if self.base.start == "rk":
            raise ValueError('heavy ball needs a base method with start "ramp" or "exact"')

    @property
    def order(self) -> int:
        return self.base.order if self.beta == 1 else 1

    @property
    def start(self) -> str:  # type: ignore[override]
        return self.base.start

    @property
    def min_steps(self) -> int:
        return self.base.min_steps

    @property
    def history_length(self) -> int:
        return self.base.history_length

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[tuple[MultistepStep, float]]:
        return [(step, math.fsum(step.weights)) for step in self.base.plan(levels, past)]

    def begin(self, y: Tensor, past: Sequence[Past]) -> dict[str, Any]:
        return {"values": self.base.begin(y, past), "v": None}

    def step(
        self,
        evaluate: Evaluator,
        y: Tensor,
        plan: tuple[MultistepStep, float],
        memory: dict[str, Any],
        noise: NoiseSource | None,
    ) -> Tensor:
        step, total = plan
        values = memory["values"]
        self.base.observe(evaluate, y, step.sigma, values)
        direction = combine(values[0], step.weights[0] / total, values[1:], [w / total for w in step.weights[1:]])
        v = values[0] if memory["v"] is None else memory["v"]
        v = memory["v"] = v.lerp(direction, self.beta)
        if self.nesterov:
            v = v.lerp(direction, self.beta)
        return combine(y, step.scale, [v], [total])


def ghvb_table(order: int, beta: float) -> tuple[float, ...]:
    """Constant-step weights of GHVB divided by beta, newest momentum first; beta = 1 is Adams-Bashforth.

    ``y' = y + delta sum_k table[k] v_{n-k}``.
    """
    b = beta
    tables = {
        1: (b,),
        2: ((2 + b) / 2, -(2 - b) / 2),
        3: ((18 + 5 * b) / 12, -(24 - 8 * b) / 12, (6 - b) / 12),
        4: ((46 + 9 * b) / 24, -(78 - 19 * b) / 24, (42 - 5 * b) / 24, -(10 - b) / 24),
        5: (
            (1650 + 251 * b) / 720,
            -(3420 - 646 * b) / 720,
            (2880 - 264 * b) / 720,
            -(1380 - 106 * b) / 720,
            (270 - 19 * b) / 720,
        ),
    }
    if order not in tables:
        raise ValueError(f"order = {order} is not in 1 ... 5")
    return tuple(c / b for c in tables[order])


@dataclass(frozen=True)
class GHVB(Solver):
    """Generalised heavy ball: momentum ``v = (1 - beta) v_prev + beta eps``, then a high-order step in the v's.

    Args:
        order: 1 to 5.  The paper's "GHVB 3.8" is order 4 with beta = 0.8.
        beta: in (0, 1]; smaller is more damped.  beta = 1 is Adams-Bashforth.
        weights: how the v's are combined.  ``"log"`` and ``"sigma"`` match the first ``order`` moments of the step for
            the very averages of eps that the v's hold, in log sigma or in sigma, so the order holds on any grid and
            from the first step on; beta = 1 is then ``Exponential(order, "noise")`` or ``RhoAB(order - 1)``.
            ``"table"`` are the published constants for equal steps in sigma, and beta = 1 is ``PLMS(order)``: on
            Karras and log-SNR grids every order from 2 up then converges at order 2.
        start: ``"ramp"`` raises the order over the first steps, ``"exact"`` takes the caller's history (the table
            assumes an old momentum: give it some 10 / beta points).

    One evaluation a step.  Real-axis stability |z| with equal steps in sigma, orders 1 to 4: ``2 (2-beta)/beta``,
    ``2-beta``, ``6 (2-beta)/(12-beta)``, ``3 (2-beta)/(11-beta)``.
    A step into sigma = 0 with ``"log"`` weights is the first-order one in the momentum.
    """

    order: int = 4
    beta: float = 0.8
    weights: str = "log"
    start: str = field(default="ramp", kw_only=True)  # type: ignore[misc]

    def __post_init__(self) -> None:
        if self.order not in range(1, 6):
            raise ValueError(f"order = {self.order} is not in 1 ... 5")
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta = {self.beta:g} must lie in (0, 1]")
        if self.weights not in ("log", "sigma", "table"):
            raise ValueError(f"weights = {self.weights!r} is not 'log', 'sigma' or 'table'")
        if self.start not in ("ramp", "exact"):
            raise ValueError(f"start = {self.start!r} is neither 'ramp' nor 'exact'")

    @property
    def min_steps(self) -> int:
        return self.order if self.start == "ramp" else 1

    @property
    def history_length(self) -> int:
        return self.order - 1

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[tuple[float, tuple[float, ...]]]:
        known = np.asarray(past + levels)
        steps = []
        for i in range(len(levels) - 1):
            newest = len(past) + i
            count = min(self.order, newest + 1)
            delta = levels[i + 1] - levels[i]
            if self.weights == "table":
                weights = [delta * w for w in ghvb_table(count, self.beta)]
            elif count == 1 or (self.weights == "log" and levels[i + 1] == 0):
                weights = [delta]
            elif self.weights == "sigma":
                moments = [delta / (k + 1) for k in range(count)]
                weights = self._matched((known[: newest + 1] - levels[i]) / delta, moments)
            else:
                h = math.log(levels[i] / levels[i + 1])
                moments = [-levels[i + 1] * h * math.factorial(k) * phi(k + 1, h) for k in range(count)]
                weights = self._matched(np.log(levels[i] / known[: newest + 1]) / h, moments)
            steps.append((levels[i], tuple(weights)))
        return steps

    def _matched(self, nodes: np.ndarray, moments: list[float]) -> list[float]:
        """Weights c with ``sum_k c_k v_{n-k}[u^p] = moments[p]``, each v a weighted mean of the values at ``nodes``."""
        n, count = len(nodes), len(moments)
        means = np.empty((count, count))
        powers = nodes[None] ** np.arange(count)[:, None]
        for k in range(count):
            age = np.arange(n - k - 1, -1, -1.0)
            share = self.beta * (1 - self.beta) ** age
            share[0] = (1 - self.beta) ** age[0]
            means[:, k] = powers[:, : n - k] @ share
        return np.linalg.solve(means, moments).tolist()

    def begin(self, y: Tensor, past: Sequence[Past]) -> list[Tensor]:
        momenta: list[Tensor] = []
        for point in past:
            momenta.insert(0, point.eps if not momenta else momenta[0].lerp(point.eps, self.beta))
        return momenta[: self.order]

    def step(
        self, evaluate: Evaluator, y: Tensor, plan: tuple[float, tuple[float, ...]], memory: list[Tensor],
        noise: NoiseSource | None,
    ) -> Tensor:
        sigma, weights = plan
        eps = (y - evaluate(y)).mul_(1.0 / sigma)
        memory.insert(0, memory[0].lerp(eps, self.beta) if memory else eps)
        del memory[self.order :]
        return combine(y, 1.0, memory, weights)
