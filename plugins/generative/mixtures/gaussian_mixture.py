"""Isotropic Gaussian mixtures: data whose denoiser is known in closed form at every noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """``p0 = sum_k w_k N(mean_k, std^2 I)``; calling it is the exact denoiser ``E[x0 | y]``, ``y = x0 + sigma eps``.

    Args:
        means: (K, dim) component means.
        std: standard deviation of every component, >= 0 (0 is the empirical distribution of the means).
        weights: (K,) positive weights, normalised here; equal ones by default.

    With ``v = std^2 + sigma^2``, responsibilities ``r = softmax(log w + (y . mean - |mean|^2/2) / v)`` and
    ``m = sum_k r_k mean_k``: ``D = m + std^2/v (y - m)``, ``score = (m - y)/v`` and
    ``dD/dy = std^2/v I + sigma^2/v^2 Cov_r(mean)``.
    """

    means: Tensor
    std: float
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.means.ndim != 2 or len(self.means) == 0:
            raise ValueError(f"means must have shape (K, dim) with K >= 1, got {tuple(self.means.shape)}")
        if self.std < 0:
            raise ValueError(f"std = {self.std:g} must not be negative")
        weights = torch.ones(len(self.means), dtype=self.means.dtype) if self.weights is None else self.weights
        if weights.shape != self.means.shape[:1] or bool((weights <= 0).any()):
            raise ValueError(f"weights must be {len(self.means)} positive numbers")
        weights = (weights / weights.sum()).to(self.means)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "_log_weights", weights.log())
        object.__setattr__(self, "_half_norms", 0.5 * self.means.square().sum(1))
        object.__setattr__(self, "_means_t", self.means.T.contiguous())

    @property
    def dim(self) -> int:
        """Dimension of the data."""
        return self.means.shape[1]

    def to(self, *args, **kwargs) -> GaussianMixture:
        """The same mixture with its means and weights moved or cast by ``Tensor.to``."""
        return GaussianMixture(self.means.to(*args, **kwargs), self.std, self.weights.to(*args, **kwargs))

    def responsibilities(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        """(B, K) posterior probabilities of the components given noisy y of shape (B, dim)."""
        v = self.std**2 + sigma**2
        return torch.softmax((y @ self._means_t - self._half_norms) / v + self._log_weights, dim=-1)

    def __call__(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        """Denoiser E[x0 | y]: (B, dim) -> (B, dim); sigma > 0 (or >= 0 if std > 0)."""
        keep = self.std**2 / (self.std**2 + sigma**2)
        mean = self.responsibilities(y, sigma) @ self.means
        return torch.lerp(mean, y, torch.as_tensor(keep, dtype=y.dtype, device=y.device))

    def score(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        """Gradient of the log-density of y, (B, dim)."""
        return (self.responsibilities(y, sigma) @ self.means - y) / (self.std**2 + sigma**2)

    def log_prob(self, y: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """(B,) log-density of noisy y; needs ``std^2 + sigma^2 > 0``."""
        v = torch.as_tensor(self.std**2 + sigma**2, dtype=y.dtype, device=y.device)
        logits = (y @ self._means_t - self._half_norms) / v + self._log_weights
        constant = -0.5 * y.square().sum(1) / v - 0.5 * self.dim * torch.log(2 * torch.pi * v)
        return torch.logsumexp(logits, dim=-1) + constant

    def jacobian_diagonal(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        """(B, dim) diagonal of dD/dy."""
        v = self.std**2 + sigma**2
        r = self.responsibilities(y, sigma)
        variance = (r @ self.means.square() - (r @ self.means).square()).clamp_min(0)
        return self.std**2 / v + (sigma**2 / v**2) * variance

    def jvp(self, y: Tensor, sigma: Tensor | float, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """``(D, dD/dy tangent)``, each (B, dim)."""
        v = self.std**2 + sigma**2
        r = self.responsibilities(y, sigma)
        mean = r @ self.means
        covariance = (r * (tangent @ self._means_t)) @ self.means - mean * (mean * tangent).sum(1, keepdim=True)
        return mean + self.std**2 / v * (y - mean), self.std**2 / v * tangent + (sigma**2 / v**2) * covariance

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, dim) draws from p0."""
        device = self.means.device
        index = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        z = torch.randn(count, self.dim, dtype=self.means.dtype, device=device, generator=generator)
        return self.means[index] + self.std * z

    def nearest(self, y: Tensor) -> Tensor:
        """(B,) index of the component whose mean is nearest to y."""
        return (self._half_norms - y @ self._means_t).argmin(1)


def digits_mixture(s0: float = 0.3, dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """One component around each of scikit-learn's 1797 8x8 digits, scaled to [-1, 1]: ``x / 8 - 1``, dim 64."""
    from sklearn.datasets import load_digits

    return GaussianMixture(torch.as_tensor(load_digits().data / 8 - 1, dtype=dtype), s0)


def toy_mixture(dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """Five unequal modes in the plane, for convergence orders."""
    means = torch.tensor([[1.0, 0.4], [-0.8, 0.9], [-0.3, -1.1], [0.9, -0.7], [0.1, 0.2]], dtype=dtype)
    return GaussianMixture(means, 0.35, torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1], dtype=dtype))
