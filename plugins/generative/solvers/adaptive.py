"""Adaptive Dormand-Prince 5(4) with a PID step-size controller."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..grids import check_grid
from .base import Denoiser, Evaluator, NoiseSource, Past, Solver, StepInfo, combine

STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Fifth- minus fourth-order weights (Dormand & Prince 1980)."""


@dataclass(frozen=True)
class AdaptiveResult:
    """State at the end, and what it cost.

    Attributes:
        y: (B, ...) state.
        nfe: denoiser evaluations, rejected steps included.
        accepted, rejected: number of steps.
    """

    y: Tensor
    nfe: int
    accepted: int
    rejected: int


@dataclass(frozen=True)
class DormandPrince(Solver):
    """Dormand-Prince 5(4), steps chosen so that the error estimate meets a tolerance.

    Order 5, six evaluations a step (the seventh is the next step's first) and six for each rejected one.  Only the
    ends of the grid matter; if it ends in 0, the last positive level is reached first and ``y = D`` follows.

    Args:
        rtol, atol: an estimate e is accepted if the norm of ``e / (atol + rtol max(|y|, |y'|))`` is at most 1.
        variable: ``"log"`` integrates in log sigma (steps then vary little), ``"sigma"`` in sigma.
        control: what the norm is taken over.  ``"joint"``: root mean square over the batch, so the result of a
            sample depends, within the tolerance, on its batch.  ``"worst"``: the largest per-sample norm, so each
            sample meets the tolerance by itself, still with common steps.  ``"independent"``: each sample is
            integrated alone with its own steps, the same whatever the batch; evaluations add up.
        pid: exponents (beta1, beta2, beta3) of the controller, each divided by 5: the factor on the step is
            ``safety * e_n^-beta1 e_{n-1}^-beta2 e_{n-2}^-beta3``.  (1, 0, 0) is the elementary controller and
            (0.7, -0.4, 0) the usual PI one.
        safety, min_factor, max_factor: of the controller.
        first_step: first step in the variable; None takes 1/50 of the range.
        max_steps: give up after so many accepted and rejected steps.
    """

    rtol: float = 1e-3
    atol: float = 1e-3
    variable: str = "log"
    control: str = "joint"
    pid: tuple[float, float, float] = (0.7, -0.4, 0.0)
    safety: float = 0.9
    min_factor: float = 0.2
    max_factor: float = 5.0
    first_step: float | None = None
    max_steps: int = 10_000
    evaluations = 6

    def __post_init__(self) -> None:
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise ValueError(f"rtol = {self.rtol:g} and atol = {self.atol:g} must be >= 0 and not both 0")
        if self.variable not in ("log", "sigma"):
            raise ValueError(f"variable = {self.variable!r} is neither 'log' nor 'sigma'")
        if self.control not in ("joint", "worst", "independent"):
            raise ValueError(f"control = {self.control!r} is not 'joint', 'worst' or 'independent'")

    @property
    def order(self) -> int:
        return 5

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[Any]:
        raise TypeError("an adaptive solver has no plan: its steps depend on the solution")

    def step(self, evaluate: Evaluator, y: Tensor, plan: Any, memory: Any, noise: NoiseSource | None) -> Tensor:
        raise TypeError("an adaptive solver chooses its own steps: call sample or solve")

    def nfe(self, sigmas: Tensor | Sequence[float]) -> int:
        raise TypeError("the evaluations of an adaptive solver are known only afterwards: see solve(...).nfe")

    def steps_for(self, nfe: int) -> int:
        return 0

    def sample(
        self,
        denoiser: Denoiser,
        y: Tensor,
        sigmas: Tensor | Sequence[float],
        *,
        noise: NoiseSource | None = None,
        generator: torch.Generator | None = None,
        callback: Callable[[StepInfo], None] | None = None,
        history: Sequence[Past] | None = None,
    ) -> Tensor:
        """:meth:`Solver.sample`; the callback sees accepted steps.  :meth:`solve` also tells the cost."""
        if history:
            raise ValueError("a one-step method takes no history")
        return self.solve(denoiser, y, sigmas, callback).y

    def solve(
        self,
        denoiser: Denoiser,
        y: Tensor,
        sigmas: Tensor | Sequence[float],
        callback: Callable[[StepInfo], None] | None = None,
    ) -> AdaptiveResult:
        """Integrate from ``sigmas[0]`` to ``sigmas[-1]``.

        Raises:
            ValueError: a bad grid, one with no positive level after the first, a non-finite denoiser answer, or
                ``max_steps`` reached (the tolerance is too small for the dtype or the denoiser is not smooth).
        """
        levels = check_grid(sigmas)
        to_zero = levels[-1] == 0
        if to_zero and len(levels) < 3:
            raise ValueError(
                "sigma = 0 cannot be reached in log sigma, and at 0 the ODE is undefined: "
                "give a positive level before it, e.g. [80, 0.002, 0]"
            )
        last = levels[-2] if to_zero else levels[-1]
        if self.control == "independent":
            parts = [self._solve(denoiser, part, levels[0], last, to_zero, callback) for part in y.split(1)]
            if not parts:
                return AdaptiveResult(y, 0, 0, 0)
            return AdaptiveResult(
                torch.cat([part.y for part in parts]),
                sum(part.nfe for part in parts),
                sum(part.accepted for part in parts),
                sum(part.rejected for part in parts),
            )
        return self._solve(denoiser, y, levels[0], last, to_zero, callback)

    def _norm(self, error: Tensor, y: Tensor, proposal: Tensor) -> float:
        scaled = error / (self.atol + self.rtol * torch.maximum(y.abs(), proposal.abs()))
        if scaled.numel() == 0:
            return 0.0
        mean_square = scaled.square().flatten(1).mean(1)
        return (mean_square.max() if self.control == "worst" else mean_square.mean()).sqrt().item()

    def _solve(
        self, denoiser: Denoiser, y: Tensor, first: float, last: float, to_zero: bool, callback: Callable | None
    ) -> AdaptiveResult:
        log = self.variable == "log"
        evaluate = Evaluator(denoiser)

        def slope(state: Tensor, at: float) -> Tensor:
            sigma = math.exp(at) if log else at
            evaluate.levels = (torch.tensor(sigma, dtype=torch.float64, device=y.device),)
            difference = state - evaluate(state)
            return difference if log else difference.mul_(1.0 / sigma)

        at, end = (math.log(first), math.log(last)) if log else (first, last)
        step = -abs(self.first_step) if self.first_step else (end - at) / 50
        accepted = rejected = 0
        past_errors = [1.0, 1.0]
        k1 = slope(y, at)
        while at > end:
            if accepted + rejected >= self.max_steps:
                raise ValueError(
                    f"max_steps = {self.max_steps} reached at sigma = {math.exp(at) if log else at:g} "
                    f"({rejected} rejected); raise rtol/atol or max_steps"
                )
            final = at + step <= end + 1e-12 * abs(end - at)
            h = end - at if final else step
            slopes = [k1]
            evaluate.step = accepted
            for row, node in zip(STAGES[1:], NODES[1:], strict=True):
                proposal = combine(y, 1.0, slopes, [h * a for a in row])
                slopes.append(slope(proposal, end if final and node == 1.0 else at + node * h))
            error = combine(slopes[0], h * ERROR[0], slopes[1:], [h * e for e in ERROR[1:]])
            size = max(self._norm(error, y, proposal), 1e-10)
            b1, b2, b3 = (b / 5 for b in self.pid)
            factor = self.safety * size**-b1 * past_errors[0] ** -b2 * past_errors[1] ** -b3
            factor = min(max(factor, self.min_factor), self.max_factor)
            if size <= 1.0:
                before, at = at, end if final else at + h
                y, k1 = proposal, slopes[-1]
                past_errors = [size, past_errors[0]]
                step = h * factor
                if callback is not None:
                    levels = [math.exp(a) if log else a for a in (before, at)]
                    callback(StepInfo(accepted, *levels, y, evaluate.denoised, evaluate.nfe))
                accepted += 1
            else:
                rejected += 1
                step = h * min(factor, 0.9)
        if to_zero:
            evaluate.step, evaluate.levels = accepted, (torch.tensor(last, dtype=torch.float64, device=y.device),)
            y = evaluate(y)
            if callback is not None:
                callback(StepInfo(accepted, last, 0.0, y, evaluate.denoised, evaluate.nfe))
            accepted += 1
        evaluate.finish()
        return AdaptiveResult(y, evaluate.nfe, accepted, rejected)
