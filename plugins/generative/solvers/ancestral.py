"""Stochastic first-order sampling: DDIM with eta, and DDPM's ancestral sampler."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from .base import Evaluator, NoiseSource, Solver, combine


class AncestralStep(NamedTuple):
    scale: float
    on_denoised: float
    added: float
    sigma: float
    target: float


@dataclass(frozen=True)
class DDIM(Solver):
    """``y' = y + (sigma_down - sigma) eps + sigma_up z`` (Song et al. 2021, arXiv:2010.02502); one evaluation a step.

    ``sigma_up = min(sigma', eta sqrt(sigma'^2 (sigma^2 - sigma'^2) / sigma^2))``,
    ``sigma_down = sqrt(sigma'^2 - sigma_up^2)``.  Weak order 1; with eta = 0 it is :class:`Euler`.

    Args:
        eta: 0 is deterministic, 1 the DDPM posterior ("fixed_small" variance), more is noisier still.
        noise_scale: factor on the added noise.
    """

    eta: float = 0.0
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.eta < 0:
            raise ValueError(f"eta = {self.eta:g} must not be negative")

    @property
    def order(self) -> int:
        return 1

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.eta > 0

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[AncestralStep]:
        steps = []
        for sigma, target in zip(levels, levels[1:], strict=False):
            up = min(target, self.eta * target * math.sqrt((sigma - target) * (sigma + target)) / sigma)
            ratio = math.sqrt((target - up) * (target + up)) / sigma
            steps.append(AncestralStep(ratio, 1.0 - ratio, self.noise_scale * up, sigma, target))
        return steps

    def step(
        self, evaluate: Evaluator, y: Tensor, plan: AncestralStep, memory: Any, noise: NoiseSource | None
    ) -> Tensor:
        result = combine(y, plan.scale, [evaluate(y)], [plan.on_denoised])
        if plan.added > 0:
            result.add_(noise(plan.sigma, plan.target), alpha=plan.added)
        return result


@dataclass(frozen=True)
class Ancestral(DDIM):
    """DDPM's ancestral sampler: :class:`DDIM` with eta = 1 (Ho et al. 2020; k-diffusion's "euler_ancestral")."""

    eta: float = 1.0
