"""Adapters that turn a network, whatever it predicts, into the denoiser every solver takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..schedules import NoiseSchedule, VPDiscrete
from .conversions import PREDICTIONS

Network = Callable[[Tensor, Tensor], Tensor]
"""``network(x, t) -> prediction`` with x of shape (B, ...) and t of shape (B,)."""


@dataclass(frozen=True)
class NetworkDenoiser:
    """``D(y, sigma) = E[x0 | y]`` from a network trained under any noise schedule.

    The network sees ``x = alpha y`` and the time ``t`` at which ``sigma_tilde(t) = sigma``.  No division by alpha or
    sigma occurs, so the answer is finite at both ends (at sigma = 0 it is y).

    Args:
        network: ``(x, t) -> prediction``; the extra inputs of a conditional network are bound by a closure.
        schedule: what the network was trained under.
        prediction: "epsilon", "x0", "v", "flow" or "score".
        time_input: what the network takes as time, as a function of schedule time; by default schedule time itself,
            and the index 0 ... N-1 for :class:`VPDiscrete`.
        dtype: dtype the network computes in, by default the state's.
    """

    network: Network
    schedule: NoiseSchedule
    prediction: str = "epsilon"
    time_input: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction {self.prediction!r} is not one of {', '.join(PREDICTIONS)}")

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        dtype = self.dtype or y.dtype
        t = self.schedule.inverse_sigma_tilde(sigma)
        alpha, noise = self.schedule.alpha(t), self.schedule.sigma(t)
        conditioning = self.time_input(t) if self.time_input is not None else t
        if self.time_input is None and isinstance(self.schedule, VPDiscrete):
            conditioning = self.schedule.index(t)
        output = self.network((y * alpha).to(dtype), conditioning.to(dtype).expand(y.shape[0])).to(y.dtype)
        if self.prediction == "x0":
            return output
        if self.prediction == "epsilon":
            return y - sigma * output
        if self.prediction == "score":
            return y + (sigma * noise) * output
        if self.prediction == "v":
            norm = alpha.square() + noise.square()
            return (alpha.square() / norm) * y - (noise / norm) * output
        return (alpha / (alpha + noise)) * y - (noise / (alpha + noise)) * output


@dataclass(frozen=True)
class EDMDenoiser:
    """EDM's preconditioning: ``D = c_skip y + c_out F(c_in y, c_noise)`` (Karras et al. 2022, table 1).

    ``c_skip = s^2/(s^2 + sigma^2)``, ``c_out = s sigma / sqrt(s^2 + sigma^2)``, ``c_in = 1/sqrt(s^2 + sigma^2)``,
    ``c_noise = log(sigma)/4``, with s = ``sigma_data``.

    Args:
        network: the raw network F, ``(c_in y, c_noise) -> F``, c_noise of shape (B,).
        sigma_data: standard deviation of the data, > 0.
        dtype: dtype the network computes in, by default the state's.

    At sigma = 0 the weight of F is 0 and c_noise is taken at the smallest positive float instead of minus infinity.
    """

    network: Network
    sigma_data: float = 0.5
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data = {self.sigma_data:g} must be positive")

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(c_skip, c_out, c_in, c_noise)``, elementwise in sigma; also the training target's ingredients."""
        variance = self.sigma_data**2 + sigma.square()
        c_noise = torch.log(sigma.clamp_min(torch.finfo(sigma.dtype).tiny)) / 4
        return self.sigma_data**2 / variance, sigma * self.sigma_data * variance.rsqrt(), variance.rsqrt(), c_noise

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        dtype = self.dtype or y.dtype
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma)
        output = self.network((c_in * y).to(dtype), c_noise.to(dtype).expand(y.shape[0]))
        return c_skip * y + c_out * output.to(y.dtype)
