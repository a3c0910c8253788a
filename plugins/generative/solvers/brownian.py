"""Noise for SDE samplers that is one fixed Brownian path, however finely it is sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = (1 << 63) - 1


class BrownianTree:
    """A Brownian path for each sample; ``tree(sigma, sigma_next)`` is its normalised increment between the levels.

    The value at a level is found by bisection: each midpoint is drawn from its Brownian bridge with a generator
    seeded by (sample's seed, midpoint), so it never depends on which other levels were asked for, in what order, on
    the device, or on the rest of the batch.  Refining a grid therefore refines one and the same path.

    The path's clock is ``sigma^-(2 eta)``, the time in which the noise of the reverse SDE with that eta is Brownian:
    with it two half steps add exactly the noise of one whole step.

    Args:
        shape: (B, ...) of the state.
        sigma_max, sigma_min: range of levels that may be asked for; sigma_min > 0.
        seed: one for all samples (each then gets its own from it), or one for each sample.
        eta: noise level of the SDE, > 0; see above.
        depth: bisections; levels are told apart down to ``log(sigma_max/sigma_min) / 2^depth`` in log sigma.
        dtype, device: of the answers.
    """

    def __init__(
        self,
        shape: Sequence[int],
        sigma_max: float,
        sigma_min: float,
        seed: int | Sequence[int] = 0,
        eta: float = 1.0,
        depth: int = 24,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not sigma_max > sigma_min > 0:
            raise ValueError(f"need sigma_max > sigma_min > 0, got {sigma_max:g} and {sigma_min:g}")
        if not eta > 0:
            raise ValueError(f"eta = {eta:g} must be positive: a deterministic sampler takes no noise")
        self.shape, self.dtype, self.device = tuple(shape), dtype, device
        self.seeds = [seed + 0x9E3779B9 * b for b in range(shape[0])] if isinstance(seed, int) else list(seed)
        if len(self.seeds) != shape[0]:
            raise ValueError(f"{len(self.seeds)} seeds for a batch of {shape[0]}")
        self.top, self.bottom = math.log(sigma_max), math.log(sigma_min)
        self.eta, self.depth = eta, depth
        self._known: dict[int, Tensor] = {0: torch.zeros(self.shape, dtype=torch.float64)}
        last = 1 << depth
        self._known[last] = math.sqrt(self._clock(last) - self._clock(0)) * self._normal(last)

    def _clock(self, index: int) -> float:
        return math.exp(-2 * self.eta * (self.top + (self.bottom - self.top) * index / (1 << self.depth)))

    def _normal(self, index: int) -> Tensor:
        z = torch.empty(self.shape, dtype=torch.float64)
        generator = torch.Generator()
        for b, seed in enumerate(self.seeds):
            # Multiplication by odd constants and a xor-shift spread neighbouring (seed, index) pairs apart.
            mixed = (seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03) & _MASK
            mixed = ((mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9) & _MASK
            generator.manual_seed(mixed ^ (mixed >> 29))
            torch.randn(self.shape[1:], dtype=torch.float64, generator=generator, out=z[b])
        return z

    def _index(self, sigma: float) -> int:
        position = (self.top - math.log(sigma)) / (self.top - self.bottom) if sigma > 0 else math.inf
        if not -1e-9 <= position <= 1 + 1e-9:
            raise ValueError(
                f"sigma = {sigma:g} lies outside the tree's range "
                f"[{math.exp(self.bottom):g}, {math.exp(self.top):g}]; build the tree over the whole grid"
            )
        return round(min(max(position, 0.0), 1.0) * (1 << self.depth))

    def value(self, sigma: float) -> Tensor:
        """The path at this level, (B, ...) in float64; 0 at sigma_max."""
        wanted = self._index(sigma)
        low, high = 0, 1 << self.depth
        while wanted not in self._known:
            middle = (low + high) // 2
            if middle not in self._known:
                a, m, b = self._clock(low), self._clock(middle), self._clock(high)
                mean = torch.lerp(self._known[low], self._known[high], (m - a) / (b - a))
                self._known[middle] = mean + math.sqrt((m - a) * (b - m) / (b - a)) * self._normal(middle)
            low, high = (middle, high) if wanted > middle else (low, middle)
        return self._known[wanted]

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        """Unit-variance increment from ``sigma`` down to ``sigma_next``, (B, ...)."""
        start, stop = self._index(sigma), self._index(sigma_next)
        if not stop > start:
            raise ValueError(
                f"levels {sigma:g} and {sigma_next:g} do not decrease, or are too close for depth = {self.depth}"
            )
        span = math.sqrt(self._clock(stop) - self._clock(start))
        increment = (self.value(sigma_next) - self.value(sigma)) / span
        return increment.to(device=self.device, dtype=self.dtype)
