"""BDIA: bi-directional integration approximation, a sampler whose steps can be undone exactly."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..grids import check_grid
from ..schedules import NoiseSchedule
from .base import Denoiser, Evaluator, NoiseSource, Past, Solver, combine, noise_prediction
from .registry import register, register_order

INCREMENTS = ("ddim", "heun", "heun_reuse")


class BDIAWarning(UserWarning):
    """The chosen gamma does not suit the grid or the dtype."""


class BDIAStep(NamedTuple):
    """Level, distance to the next level, distance to the previous one (0 at the first step), gamma of the step."""

    sigma: float
    forward: float
    backward: float
    gamma: float


@dataclass(frozen=True)
class BDIA(Solver):
    """Exactly invertible sampling. Zhang et al. 2023, "Exact diffusion inversion via BDIA", arXiv:2307.10829.

    Time variable sigma. With D(i -> j) the increment of a one-step method from level i to level j, the step averages
    the forward increment with the reversed last one,

        y_{n+1} = y_n + D(n -> n+1) + gamma (y_{n-1} - y_n - D(n -> n-1)),

    which is linear in y_{n-1} and so has an inverse that needs two neighbouring states. The first step is the plain
    one-step method; gamma = 0 is that method throughout.

    Order (DDIM increments): 2 at gamma = 1 (the leapfrog), 1 below, with (1 - gamma) / (1 + gamma) times Euler's error.
    Stability: the leapfrog's parasitic mode grows wherever the flow contracts, so large gamma needs many steps: a
    `BDIAWarning` is given where, on Gaussian data, the error exceeds 2 % and half of that of gamma = 0 (all of it for
    Heun increments). Going back, rounding grows by 1 / gamma a step: `invert` and `sample_pair` warn where that
    destroys the result. Authors: gamma 0.5 at 10 steps, 1 at 40.

    Args:
        gamma: Weight of the reversed increment, in [0, 1].
        increment: "ddim", one evaluation a step. "heun": Heun's increment both ways, three evaluations a step (two at
            the first), invertible. "heun_reuse": Heun forwards, and backwards the trapezoid over the last step with
            the slope already known there; two evaluations a step, but that slope depends on y_{n-1}, so there is no
            inverse.
        schedule: None mixes states in y = x / alpha. A schedule mixes them in x, as the authors do for
            variance-preserving models: gamma then acts as gamma * alpha_{n-1} / alpha_{n+1}.
        data_std: Standard deviation of the data, for the stability check alone.
    """

    gamma: float = 1.0
    increment: str = "ddim"
    schedule: NoiseSchedule | None = None
    data_std: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma = {self.gamma:g} must lie in [0, 1]")
        if self.increment not in INCREMENTS:
            raise ValueError(f"increment = {self.increment!r} is not one of {', '.join(map(repr, INCREMENTS))}")
        if not self.data_std > 0:
            raise ValueError(f"data_std = {self.data_std:g} must be positive")

    @property
    def order(self) -> int:
        if self.increment == "ddim":
            return 2 if self.gamma == 1.0 and self.schedule is None else 1
        return 2

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return {"ddim": 1, "heun": 3, "heun_reuse": 2}[self.increment]

    def steps_for(self, nfe: int) -> int:
        # the first step has no reversed increment to evaluate
        return (nfe + 1) // 3 if self.increment == "heun" and self.gamma > 0 else nfe // min(self.evaluations, 2)

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[BDIAStep]:
        plan = self._steps(levels)
        if self.gamma > 0:
            own, plain = self._gaussian_error(levels), replace(self, gamma=0.0)._gaussian_error(levels)
            # Heun's increments are of second order without gamma too, which leaves nothing to gain but symmetry
            if own > max(0.02, (0.5 if self.increment == "ddim" else 1.0) * plain):
                warnings.warn(
                    f"BDIA with gamma = {self.gamma:g} is unstable on this grid of {len(plan)} steps from sigma = "
                    f"{levels[0]:g} to {levels[-1]:g}: on Gaussian data of standard deviation {self.data_std:g} its "
                    f"error reaches {own:.2g} where that of gamma = 0 reaches {plain:.2g}. Use more steps, a grid "
                    "narrower at the noisy end, or a smaller gamma.",
                    BDIAWarning,
                    stacklevel=4,
                )
        return plan

    @torch.no_grad()
    def _gaussian_error(self, levels: tuple[float, ...]) -> float:
        """Largest relative error of the scale on Gaussian data, whose trajectories are known.

        Along the trajectory rather than at its end, where a growing oscillation may happen to cross zero.
        """
        variance = self.data_std**2
        stages = [torch.tensor(stage, dtype=torch.float64).unbind() for stage in self.stages(levels)]
        evaluate = Evaluator(lambda y, sigma: y * (variance / (variance + sigma**2)))
        y, memory, worst = torch.tensor([math.hypot(levels[0], self.data_std)], dtype=torch.float64), self.begin(), 0.0
        for i, step in enumerate(self._steps(levels)):
            evaluate.step, evaluate.levels = i, stages[i]
            y = self.step(evaluate, y, step, memory, None)
            exact = math.hypot(levels[i + 1], self.data_std)
            worst = max(worst, abs(y.item() - exact) / exact)
        return worst

    def _steps(self, levels: tuple[float, ...]) -> list[BDIAStep]:
        alphas = [1.0 if self.schedule is None else float(self.schedule.alpha_at(level)) for level in levels]
        plan = [BDIAStep(levels[0], levels[1] - levels[0], 0.0, 0.0)]
        for i in range(1, len(levels) - 1):
            gamma = self.gamma * alphas[i - 1] / alphas[i + 1]
            plan.append(BDIAStep(levels[i], levels[i + 1] - levels[i], levels[i - 1] - levels[i], gamma))
        return plan

    def stages(self, levels: tuple[float, ...]) -> list[tuple[float, ...]]:
        result = []
        for i in range(len(levels) - 1):
            nodes = [levels[i]]
            if self.increment != "ddim" and levels[i + 1] > 0:
                nodes.append(levels[i + 1])
            if self.increment == "heun" and i > 0 and self.gamma > 0:
                nodes.append(levels[i - 1])
            result.append(tuple(nodes))
        return result

    def begin(self, y: Tensor | None = None, past: Sequence[Past] = ()) -> dict[str, Tensor | None]:
        return {"last": None, "slope": None}

    def step(self, evaluate: Evaluator, y: Tensor, plan: BDIAStep, memory: dict, noise: NoiseSource | None) -> Tensor:
        slope = noise_prediction(y, evaluate(y), plan.sigma)
        forward, backward = self._increments(evaluate, y, slope, plan, memory["slope"])
        moved = y + forward
        if backward is not None:
            moved.add_(memory["last"] - y - backward, alpha=plan.gamma)
        memory["last"], memory["slope"] = y, slope
        return moved

    def _increments(
        self, evaluate: Evaluator, y: Tensor, slope: Tensor, plan: BDIAStep, last_slope: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """To the next level and back to the last one (None where gamma is 0)."""
        back = plan.gamma > 0
        if self.increment == "ddim":
            return slope * plan.forward, slope * plan.backward if back else None
        target = plan.sigma + plan.forward
        if target > 0:
            ahead = combine(y, 1.0, [slope], [plan.forward])
            forward = (slope + noise_prediction(ahead, evaluate(ahead, 1), target)) * (0.5 * plan.forward)
        else:
            forward = slope * plan.forward
        if not back:
            return forward, None
        if self.increment == "heun":
            behind = combine(y, 1.0, [slope], [plan.backward])
            last_slope = noise_prediction(
                behind, evaluate(behind, 2 if target > 0 else 1), plan.sigma + plan.backward
            )
        return forward, (slope + last_slope) * (0.5 * plan.backward)

    @torch.no_grad()
    def sample_pair(self, denoiser: Denoiser, y: Tensor, sigmas: Tensor | Sequence[float]) -> tuple[Tensor, Tensor]:
        """The last two states (y_{N-1}, y_N) of `sample`: what `invert` needs to be exact."""
        levels = check_grid(sigmas)
        self._check_rounding(levels, y.dtype)
        states = [y]
        final = self.sample(denoiser, y, sigmas, callback=lambda info: states.append(info.y))
        return states[-2], final

    def invert(
        self, denoiser: Denoiser, final: Tensor | tuple[Tensor, Tensor], sigmas: Tensor | Sequence[float]
    ) -> Tensor:
        """The state at `sigmas[0]` from which `sample` reaches `final`; see `invert_pair`."""
        return self.invert_pair(denoiser, final, sigmas)[0]

    @torch.no_grad()
    def invert_pair(
        self, denoiser: Denoiser, final: Tensor | tuple[Tensor, Tensor], sigmas: Tensor | Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """The first two states (y_0, y_1) of the trajectory that ends in `final`.

        Args:
            denoiser: As for `sample`.
            final: The pair of `sample_pair`, undone to rounding; or a single state at the last level (an image of the
                user's own), whose neighbour is then made by one DDIM inversion step. `sample_from_pair` brings the
                result back to either.
            sigmas: The grid of `sample`, noise first.

        Raises:
            ValueError: gamma = 0 or increment "heun_reuse", which have no inverse; a single state on a grid that ends
                in 0, where the noise prediction is undefined.
        """
        levels = check_grid(sigmas)
        self._require_inverse(levels)
        self._check_rounding(levels, final.dtype if isinstance(final, Tensor) else final[1].dtype)
        if isinstance(final, Tensor):
            if levels[-1] == 0:
                raise ValueError(
                    "a single state at sigma = 0 cannot be inverted: the noise prediction is undefined there; end the "
                    "grid at a small positive sigma, or pass the pair of sample_pair"
                )
            later, y = final, ddim_invert(denoiser, final, levels[-2:])
        else:
            y, later = final
        evaluate, steps, stages = self._prepare(denoiser, levels, y.device)
        for i in range(len(steps) - 1, 0, -1):
            evaluate.step, evaluate.levels = i, stages[i]
            slope = noise_prediction(y, evaluate(y), steps[i].sigma)
            forward, backward = self._increments(evaluate, y, slope, steps[i], None)
            y, later = y + backward + (later - y - forward) / steps[i].gamma, y
        evaluate.finish()
        return y, later

    @torch.no_grad()
    def sample_from_pair(
        self, denoiser: Denoiser, pair: tuple[Tensor, Tensor], sigmas: Tensor | Sequence[float]
    ) -> Tensor:
        """The state at the last level from the first two, those of `invert_pair`; undoes it to rounding."""
        levels = check_grid(sigmas)
        self._require_inverse(levels)
        earlier, y = pair
        evaluate, steps, stages = self._prepare(denoiser, levels, y.device)
        for i in range(1, len(steps)):
            evaluate.step, evaluate.levels = i, stages[i]
            slope = noise_prediction(y, evaluate(y), steps[i].sigma)
            forward, backward = self._increments(evaluate, y, slope, steps[i], None)
            y, earlier = y + forward + steps[i].gamma * (earlier - y - backward), y
        evaluate.finish()
        return y

    def _prepare(
        self, denoiser: Denoiser, levels: tuple[float, ...], device: torch.device
    ) -> tuple[Evaluator, list[BDIAStep], list[tuple[Tensor, ...]]]:
        stages = [torch.tensor(stage, dtype=torch.float64).to(device).unbind() for stage in self.stages(levels)]
        return Evaluator(denoiser), self._steps(levels), stages

    def _require_inverse(self, levels: tuple[float, ...]) -> None:
        if self.gamma == 0 and len(levels) > 2:
            raise ValueError("gamma = 0 has no exact inverse; use gamma > 0, or ddim_invert for the approximate one")
        if self.increment == "heun_reuse":
            raise ValueError('increment = "heun_reuse" has no inverse; use "ddim" or "heun"')

    def _check_rounding(self, levels: tuple[float, ...], dtype: torch.dtype) -> None:
        amplification = math.prod(1.0 / step.gamma for step in self._steps(levels)[1:] if step.gamma > 0)
        error = amplification * torch.finfo(dtype).eps
        # an estimate that runs one to three orders high: the late, small levels make the rounding that grows
        if error > 0.1:
            warnings.warn(
                f"inverting {len(levels) - 1} steps of BDIA with gamma = {self.gamma:g} amplifies the rounding of "
                f"{dtype} by about {amplification:.1e}, to a relative error of {error:.1e}: the round trip is lost. "
                "Use a gamma nearer to 1, fewer steps or float64.",
                BDIAWarning,
                stacklevel=4,  # past the no_grad wrapper, to the caller
            )


@torch.no_grad()
def ddim_invert(denoiser: Denoiser, y: Tensor, sigmas: Tensor | Sequence[float]) -> Tensor:
    """Naive DDIM inversion: Euler's method from `sigmas[-1]` back up to `sigmas[0]`; off by O(1 / N).

    Args:
        y: (B, ...) state at `sigmas[-1]`, which must be positive.
        sigmas: (N + 1,) the sampler's grid, noise first.
    """
    levels = check_grid(sigmas)
    if levels[-1] == 0:
        raise ValueError("DDIM inversion needs a last sigma > 0: the noise prediction is undefined at 0")
    for low, high in zip(levels[::-1], levels[-2::-1], strict=False):
        slope = noise_prediction(y, denoiser(y, torch.tensor(low, dtype=torch.float64, device=y.device)), low)
        y = y + (high - low) * slope
    return y


BDIA_SOLVERS: dict[str, tuple[BDIA, int]] = {
    "bdia": (BDIA(), 2),
    "bdia_half": (BDIA(0.5), 1),
    "bdia_heun": (BDIA(1.0, "heun"), 2),
    "bdia_heun_reuse": (BDIA(0.5, "heun_reuse"), 2),
}
"""Ready-made configurations by name, each with its order."""

for _name, (_solver, _order) in BDIA_SOLVERS.items():
    register(_name)(lambda problem, solver=_solver: solver)
    register_order(_name, _order)(lambda problem, solver=_solver: solver)
