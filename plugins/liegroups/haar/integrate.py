"""Monte Carlo integrals against the Haar measure, with their standard error."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from plugins.liegroups.haar.samplers import Sampler


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error."""

    value: float
    error: float


def integrate(
    f: Callable[[Tensor], Tensor], sampler: Sampler, n: int, generator: torch.Generator | None = None
) -> Estimate:  # fmt: skip
    """``int f dmu`` over the region of ``sampler``: ``f`` maps elements [N, m, m] to values [N].

    The error is the standard error of the mean of the weighted values; it is meaningless for stratified samples and
    quadrature rules. Raises ValueError for n < 2.
    """
    if n < 2:
        raise ValueError(f"n={n}: a mean with its standard error needs at least two samples")
    samples = sampler(n, generator)
    values = f(samples.g) * samples.log_weight.exp()
    return Estimate(float(values.mean()), float(values.std() / n**0.5))
