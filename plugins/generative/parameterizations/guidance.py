"""Wrappers around denoisers: classifier-free guidance and thresholding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """``D = D_uncond + scale (D_cond - D_uncond)`` (Ho & Salimans 2022, arXiv:2207.12598).

    The combination is linear, so guiding the denoiser, eps, v or the score is the same thing.

    Args:
        conditional, unconditional: denoisers.
        scale: guidance weight; 1 is the conditional model, 0 the unconditional, above 1 extrapolates.
        interval: noise levels (low, high) inside which the model is guided; elsewhere it is conditional
            (Kynkäänniemi et al. 2024).
    """

    conditional: Denoiser
    unconditional: Denoiser
    scale: float
    interval: tuple[float, float] | None = None

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        conditional = self.conditional(y, sigma)
        if self.scale == 1.0:
            return conditional
        guided = torch.lerp(self.unconditional(y, sigma), conditional, self.scale)
        if self.interval is None:
            return guided
        low, high = self.interval
        return torch.where((sigma >= low) & (sigma <= high), guided, conditional)


def cfg(conditional: Denoiser, unconditional: Denoiser, scale: float) -> ClassifierFreeGuidance:
    """Classifier-free guidance by its usual short name."""
    return ClassifierFreeGuidance(conditional, unconditional, scale)


@dataclass(frozen=True)
class Threshold:
    """Keeps the denoiser's answer inside the data's range.

    Args:
        denoiser: the denoiser to wrap.
        bound: half-width of the data's range, > 0.
        quantile: None clips at ``bound`` (static).  A value in (0, 1] is dynamic thresholding (Saharia et al. 2022,
            arXiv:2205.11487): each sample is clipped at s = max(bound, that quantile of its absolute values) and
            scaled by ``bound / s``.
    """

    denoiser: Denoiser
    bound: float = 1.0
    quantile: float | None = None

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise ValueError(f"bound = {self.bound:g} must be positive")
        if self.quantile is not None and not 0 < self.quantile <= 1:
            raise ValueError(f"quantile = {self.quantile:g} must lie in (0, 1]")

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        denoised = self.denoiser(y, sigma)
        if self.quantile is None:
            return denoised.clamp(-self.bound, self.bound)
        size = _quantile(denoised.abs().flatten(1), self.quantile).clamp_min(self.bound)
        size = size.reshape(-1, *[1] * (denoised.ndim - 1))
        return torch.maximum(torch.minimum(denoised, size), -size) * (self.bound / size)


def _quantile(values: Tensor, q: float) -> Tensor:
    """Linearly interpolated quantile of each row; ``torch.quantile`` refuses half precision and large rows."""
    ordered = values.sort(dim=1).values
    position = q * (ordered.shape[1] - 1)
    low = int(position)
    high = min(low + 1, ordered.shape[1] - 1)
    return torch.lerp(ordered[:, low], ordered[:, high], position - low)
