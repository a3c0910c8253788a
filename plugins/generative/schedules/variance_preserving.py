"""Variance-preserving schedules: ``alpha^2 + sigma^2 = 1``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .base import NoiseSchedule, as_tensor


@dataclass(frozen=True)
class VPLinear(NoiseSchedule):
    """``beta(t) = beta_min + (beta_max - beta_min) t`` on [0, 1]; ``log alpha = -B(t) / 2``, ``B = int beta``.

    Song et al. 2021 (arXiv:2011.13456), VP-SDE.  ``t_min`` is 1e-3 for at most about 15 steps and 1e-4 for more
    in the DPM-Solver and DEIS references.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta_min < self.beta_max:
            raise ValueError(f"need 0 <= beta_min < beta_max, got {self.beta_min} and {self.beta_max}")

    def integrated_beta(self, t: Tensor | float) -> Tensor:
        """``B(t)``, the integral of beta over [0, t]."""
        t = as_tensor(t)
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.exp(-0.5 * self.integrated_beta(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(-torch.expm1(-self.integrated_beta(t)))

    def sigma_tilde(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(torch.expm1(self.integrated_beta(t)))

    def inverse_sigma_tilde(self, sigma_tilde: Tensor | float) -> Tensor:
        total = torch.log1p(as_tensor(sigma_tilde).square())
        return 2 * total / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * total))


@dataclass(frozen=True)
class VPCosine(NoiseSchedule):
    """``alpha(t) = cos(angle(t)) / cos(angle(0))``, ``angle(t) = pi/2 (t + offset) / (1 + offset)``.

    Nichol & Dhariwal 2021 (arXiv:2102.09672).  ``alpha(1) = 0`` exactly, where ``sigma_tilde`` is infinite, so
    sampling starts at ``t_max = 0.9946`` as in the DPM-Solver reference.
    """

    offset: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.9946

    def _angle(self, t: Tensor | float) -> Tensor:
        return (as_tensor(t) + self.offset) * (math.pi / 2 / (1 + self.offset))

    @property
    def _first(self) -> float:
        return math.pi / 2 * self.offset / (1 + self.offset)

    def alpha(self, t: Tensor | float) -> Tensor:
        # The sine of the complement is exactly 0 at t = 1, where the cosine would leave 6e-17.
        return torch.sin((1 - as_tensor(t)) * (math.pi / 2 / (1 + self.offset))) / math.cos(self._first)

    def sigma(self, t: Tensor | float) -> Tensor:
        # cos(a0)^2 - cos(a)^2 = sin(a - a0) sin(a + a0): no cancellation near the data end.
        t = as_tensor(t)
        product = torch.sin(t * (math.pi / 2 / (1 + self.offset))) * torch.sin(self._angle(t) + self._first)
        return torch.sqrt(product) / math.cos(self._first)

    def sigma_tilde(self, t: Tensor | float) -> Tensor:
        return self.sigma(t) / self.alpha(t)

    def inverse_sigma_tilde(self, sigma_tilde: Tensor | float) -> Tensor:
        s = as_tensor(sigma_tilde)
        root = torch.hypot(s, torch.full_like(s, math.sin(self._first)))
        angle = torch.atan2(root, torch.full_like(s, math.cos(self._first)))
        return angle * (2 * (1 + self.offset) / math.pi) - self.offset


@dataclass(frozen=True)
class VPDiscrete(NoiseSchedule):
    """The schedule of a discrete-time model: ``log alpha`` piecewise linear through ``t_i = (i + 1) / N``.

    Args:
        betas: the N noise rates of DDPM; ``log alpha_i = 0.5 sum_{j<=i} log(1 - beta_j)``.
            ``VPDiscrete.linear()`` and ``VPDiscrete.scaled_linear()`` give the usual ones.

    The network of such a model takes ``index(t) = N t - 1`` (0 ... N-1), as DPM-Solver's discrete wrapper does.
    Outside [t_min, t_max] the outermost segments are continued.
    """

    betas: Sequence[float]
    t_min: float = field(init=False)
    t_max: float = field(init=False, default=1.0)
    _log_alpha: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        betas = torch.as_tensor(self.betas, dtype=torch.float64)
        bad = ~((betas > 0) & (betas < 1))
        if betas.ndim != 1 or len(betas) < 2 or bool(bad.any()):
            raise ValueError("betas must be a list of at least two numbers strictly between 0 and 1")
        object.__setattr__(self, "betas", tuple(betas.tolist()))
        object.__setattr__(self, "t_min", 1.0 / len(betas))
        object.__setattr__(self, "_log_alpha", 0.5 * torch.cumsum(torch.log1p(-betas), 0))

    @classmethod
    def linear(cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> VPDiscrete:
        """DDPM's linear betas (Ho et al. 2020)."""
        return cls(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64).tolist())

    @classmethod
    def scaled_linear(cls, steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> VPDiscrete:
        """Latent diffusion's betas: squares of equally spaced roots (Rombach et al. 2022)."""
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64)
        return cls(roots.square().tolist())

    @property
    def steps(self) -> int:
        """Number N of discrete times."""
        return len(self.betas)

    def index(self, t: Tensor | float) -> Tensor:
        """The (fractional) index in 0 ... N-1 the network was trained with."""
        return as_tensor(t) * self.steps - 1

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """``log alpha``, piecewise linear in t."""
        t = as_tensor(t)
        table = self._log_alpha.to(device=t.device, dtype=t.dtype)
        position = self.index(t)
        left = position.detach().floor().clamp(0, self.steps - 2).long()
        return torch.lerp(table[left], table[left + 1], position - left)

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.exp(self.log_alpha(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(-torch.expm1(2 * self.log_alpha(t)))

    def sigma_tilde(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(torch.expm1(-2 * self.log_alpha(t)))

    def inverse_sigma_tilde(self, sigma_tilde: Tensor | float) -> Tensor:
        wanted = -0.5 * torch.log1p(as_tensor(sigma_tilde).square())
        table = self._log_alpha.to(device=wanted.device, dtype=wanted.dtype)
        right = torch.searchsorted(-table, -wanted.detach().contiguous()).clamp(1, self.steps - 1)
        low, high = table[right - 1], table[right]
        return (right + (wanted - low) / (high - low)) / self.steps
