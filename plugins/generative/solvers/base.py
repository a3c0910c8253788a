"""The one sampling loop, and what a solver must say to run in it.

Every solver integrates the probability-flow ODE (or its SDE) of ``y = x / alpha`` over decreasing noise levels
``sigma = sigma_tilde``::

    dy / dsigma = eps = (y - D(y, sigma)) / sigma

with ``D(y, sigma) = E[x0 | y]`` the denoiser.  In these variables a solver is written once and serves every noise
schedule (see ``plugins.generative.parameterizations`` for the adapter).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..grids import check_grid

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``denoiser(y, sigma) -> D``: y of shape (B, ...), sigma a 0-d float64 tensor, D of y's shape."""

NoiseSource = Callable[[float, float], Tensor]
"""``noise(sigma, sigma_next) -> z``: unit normal of y's shape for the step between these levels."""


@dataclass(frozen=True)
class Past:
    """A point of the trajectory before the first grid level: its noise level, state and denoiser's answer."""

    sigma: float
    y: Tensor
    denoised: Tensor

    @property
    def eps(self) -> Tensor:
        """The noise prediction ``(y - D) / sigma``."""
        return (self.y - self.denoised) / self.sigma


@dataclass(frozen=True)
class StepInfo:
    """What a callback sees after each step.

    Attributes:
        step: 0-based index of the step.
        sigma, sigma_next: the levels it went between.
        y: state at ``sigma_next``.
        denoised: the last denoiser answer used in the step.
        nfe: denoiser evaluations so far.
    """

    step: int
    sigma: float
    sigma_next: float
    y: Tensor
    denoised: Tensor
    nfe: int


class Evaluator:
    """Calls the denoiser at a step's stage levels, counts evaluations and guards against non-finite answers.

    A solver's ``step`` receives one and calls ``evaluate(y, stage)``.  On the CPU each answer is checked at once; on
    an accelerator the checks stay there as flags, read together after the last step, so no step waits for the host.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.step = 0
        self.nfe = 0
        self.levels: Sequence[Tensor] = ()
        self.denoised: Tensor | None = None
        self._flags: list[tuple[Tensor, int, Tensor]] = []

    def __call__(self, y: Tensor, stage: int = 0) -> Tensor:
        sigma = self.levels[stage]
        denoised = self.denoiser(y, sigma)
        if denoised.shape != y.shape:
            raise ValueError(
                f"the denoiser answered shape {tuple(denoised.shape)} to a state of shape {tuple(y.shape)} "
                f"at step {self.step}; it must return E[x0 | y] in the state's shape"
            )
        if denoised.dtype != y.dtype:
            denoised = denoised.to(y.dtype)
        self.nfe += 1
        self.denoised = denoised
        if denoised.device.type == "cpu":
            # A sum is the cheapest test: it is finite unless an entry is not, or, rarely, it overflows.
            total = denoised.detach().sum(dtype=None if denoised.dtype == torch.float64 else torch.float32)
            if not math.isfinite(total.item()) and not bool(torch.isfinite(denoised).all()):
                self._refuse(self.step, sigma.item())
        else:
            self._flags.append((torch.isfinite(denoised).all(), self.step, sigma))
        return denoised

    def finish(self) -> None:
        """Read the flags kept on the accelerator (one transfer) and raise for the first bad one."""
        if self._flags:
            finite = torch.stack([flag for flag, _, _ in self._flags]).tolist()
            for good, (_, step, sigma) in zip(finite, self._flags, strict=True):
                if not good:
                    self._refuse(step, sigma.item())

    @staticmethod
    def _refuse(step: int, sigma: float) -> None:
        raise ValueError(
            f"the denoiser returned NaN or infinity at step {step}, sigma = {sigma:g}; "
            "check its input scaling at this noise level, or start from a smaller sigma"
        )


class Solver(ABC):
    """A fixed-step sampler.

    A subclass is a frozen dataclass of its options and says three things: ``plan`` (the float64 coefficients of every
    step of a grid, computed once and cached), ``stages`` (the levels at which a step evaluates the denoiser) and
    ``step`` (the arithmetic).  The loop is here.

    Attributes:
        order: global order of convergence for a smooth denoiser.
        evaluations: denoiser evaluations for each step.
        stochastic: whether steps inject noise.
    """

    stochastic: ClassVar[bool] = False
    evaluations: ClassVar[int] = 1
    start: ClassVar[str] = "ramp"

    @property
    @abstractmethod
    def order(self) -> int:
        """Global order of convergence."""

    @property
    def min_steps(self) -> int:
        """Fewest steps the solver can take on a grid."""
        return 1

    @property
    def history_length(self) -> int:
        """Number of earlier points it needs to run at full order from the first step on."""
        return 0

    @abstractmethod
    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[Any]:
        """One entry of coefficients for each step.

        Args:
            levels: the grid, N + 1 decreasing levels.
            past: levels of the exact history, decreasing, all above ``levels[0]``; empty without one.
        """

    def stages(self, levels: tuple[float, ...]) -> list[tuple[float, ...]]:
        """For each step the noise levels of its evaluations; by default the level it starts from."""
        return [(level,) for level in levels[:-1]]

    def begin(self, y: Tensor, past: Sequence[Past]) -> Any:
        """The memory carried from step to step (None when there is none)."""
        return None

    @abstractmethod
    def step(self, evaluate: Evaluator, y: Tensor, plan: Any, memory: Any, noise: NoiseSource | None) -> Tensor:
        """The state at the next level.  May update ``memory`` in place, never ``y``."""

    def steps_for(self, nfe: int) -> int:
        """The most steps that ``nfe`` evaluations allow on a grid that does not end in 0 (0 if none)."""
        return nfe // self.evaluations

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
        """Carry ``y`` from ``sigmas[0]`` to ``sigmas[-1]``.

        Args:
            denoiser: ``(y, sigma) -> E[x0 | y]``.
            y: (B, ...) state at ``sigmas[0]``, usually ``sigmas[0] * randn``; any floating dtype and device.
                Not modified.
            sigmas: (N + 1,) strictly decreasing noise levels; the last may be 0.
            noise: source of unit normals for stochastic solvers, by default fresh ones from ``generator`` or
                torch's global state.  Deterministic solvers use neither.
            callback: called after every step.
            history: points before ``sigmas[0]``, oldest first, for a multistep solver with ``start="exact"``.

        Gradients flow through; wrap the call in ``torch.no_grad()`` where none are needed.

        Raises:
            ValueError: a bad grid, fewer steps than the order needs, a history that is missing or out of place, or a
                denoiser answer that is not finite (the message names step and sigma).
        """
        levels = check_grid(sigmas)
        past = tuple(history or ())
        self.check(levels, past)
        plan = _cached_plan(self, levels, tuple(point.sigma for point in past))
        stage_levels = _device_levels(self, levels, y.device)
        if self.stochastic and noise is None:
            noise = _fresh_noise(y, generator)
        evaluate = Evaluator(denoiser)
        memory = self.begin(y, past)
        for i, coefficients in enumerate(plan):
            evaluate.step, evaluate.levels = i, stage_levels[i]
            y = self.step(evaluate, y, coefficients, memory, noise)
            if callback is not None:
                callback(StepInfo(i, levels[i], levels[i + 1], y, evaluate.denoised, evaluate.nfe))
        evaluate.finish()
        return y

    def check(self, levels: tuple[float, ...], past: Sequence[Past]) -> None:
        """Refuse what cannot run before anything is evaluated."""
        steps = len(levels) - 1
        if steps < self.min_steps:
            raise ValueError(
                f"{type(self).__name__} of order {self.order} needs at least {self.min_steps} steps, the grid has "
                f"{steps}; lower the order or add steps"
            )
        if self.start == "exact":
            if len(past) < self.history_length:
                raise ValueError(
                    f'start="exact" needs a history of {self.history_length} earlier points, got {len(past)}; '
                    'pass history=[Past(sigma, y, denoised), ...] or use start="ramp"'
                )
        elif past:
            raise ValueError(f'history was given but start = "{self.start}"; set start="exact" to use it')
        previous = math.inf
        for point in (*past, None):
            sigma = levels[0] if point is None else point.sigma
            if not sigma < previous:
                raise ValueError(
                    f"history level {previous:g} is not above the next level {sigma:g}; order it from high to low"
                )
            previous = sigma

    def nfe(self, sigmas: Tensor | Sequence[float]) -> int:
        """Denoiser evaluations that ``sample`` spends on this grid."""
        return sum(len(stage) for stage in self.stages(check_grid(sigmas)))


@lru_cache(maxsize=64)
def _cached_plan(solver: Solver, levels: tuple[float, ...], past: tuple[float, ...]) -> list[Any]:
    return solver.plan(levels, past)


@lru_cache(maxsize=64)
def _device_levels(solver: Solver, levels: tuple[float, ...], device: torch.device) -> list[tuple[Tensor, ...]]:
    """The stage levels as 0-d tensors on the state's device, sent there in one transfer."""
    stages = solver.stages(levels)
    dtype = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    flat = torch.tensor([level for stage in stages for level in stage], dtype=dtype).to(device).unbind()
    result, position = [], 0
    for stage in stages:
        result.append(flat[position : position + len(stage)])
        position += len(stage)
    return result


def _fresh_noise(y: Tensor, generator: torch.Generator | None) -> NoiseSource:
    def noise(sigma: float, sigma_next: float) -> Tensor:
        return torch.randn(y.shape, dtype=y.dtype, device=y.device, generator=generator)

    return noise


def combine(y: Tensor, scale: float, terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """``scale y + sum_k weights[k] terms[k]``, one allocation."""
    result = y * scale if scale != 1.0 else y.clone()
    for term, weight in zip(terms, weights, strict=False):
        result.add_(term, alpha=weight)
    return result


def noise_prediction(y: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """``eps = (y - D) / sigma``."""
    return (y - denoised).mul_(1.0 / sigma)
