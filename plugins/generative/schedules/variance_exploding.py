"""Variance-exploding schedules: ``alpha = 1``, so ``sigma_tilde = sigma``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import NoiseSchedule, as_tensor


@dataclass(frozen=True)
class VE(NoiseSchedule):
    """``sigma(t) = sigma_min (sigma_max / sigma_min)^t`` on [0, 1]; Song et al. 2021, VE-SDE."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"need 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(as_tensor(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.sigma_min * torch.exp(as_tensor(t) * math.log(self.sigma_max / self.sigma_min))

    def sigma_tilde(self, t: Tensor | float) -> Tensor:
        return self.sigma(t)

    def inverse_sigma_tilde(self, sigma_tilde: Tensor | float) -> Tensor:
        return torch.log(as_tensor(sigma_tilde) / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM(NoiseSchedule):
    """Time is the noise level: ``sigma(t) = t`` (Karras et al. 2022, arXiv:2206.00364)."""

    t_min: float = 0.002
    t_max: float = 80.0

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(as_tensor(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return as_tensor(t)

    def sigma_tilde(self, t: Tensor | float) -> Tensor:
        return as_tensor(t)

    def inverse_sigma_tilde(self, sigma_tilde: Tensor | float) -> Tensor:
        return as_tensor(sigma_tilde)
