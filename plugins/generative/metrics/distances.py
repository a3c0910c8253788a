"""Distances between two samples of a distribution: sliced Wasserstein and Fréchet."""

from __future__ import annotations

import torch
from torch import Tensor


def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = 512, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance (Bonneel et al. 2015), the root of the mean squared distance over directions.

    Each one-dimensional distance is exact, for any two sample sizes. Directions are uniform on the sphere and the
    same for the same `seed`, `projections` and dimension.

    Args:
        x: (n, ...) samples; everything but the first axis is flattened.
        y: (m, ...) samples of the same shape.
        projections: Number of directions.
        seed: Of the directions.
    """
    x, y = _flat("x", x), _flat("y", y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y differ in dimension: {x.shape[1]} and {y.shape[1]}")
    if projections < 1:
        raise ValueError(f"projections must be at least 1; got {projections}")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(x.shape[1], projections, generator=generator, dtype=torch.float64).to(x.device)
    directions /= directions.norm(dim=0)
    x, y = (x @ directions).sort(dim=0).values, (y @ directions).sort(dim=0).values
    n, m = len(x), len(y)
    # both quantile functions are constant between the levels i / n and j / m; integers keep the levels exact
    levels = torch.cat([m * torch.arange(n + 1), n * torch.arange(m + 1)]).unique().to(x.device)
    weights = levels.diff().to(torch.float64) / (n * m)
    gaps = x[levels[:-1] // m] - y[levels[:-1] // n]
    return (weights[:, None] * gaps.square()).sum(dim=0).mean().sqrt().item()


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Squared 2-Wasserstein distance between the Gaussians fitted to two samples (Dowson & Landau 1982).

    |mx - my|^2 + tr(Sx + Sy - 2 (Sx^1/2 Sy Sx^1/2)^1/2), in float64, with roots from symmetric eigenvalues: singular
    covariances are no special case.

    Args:
        x: (n, d) features, n at least 2.
        y: (m, d) features, m at least 2.
    """
    x, y = _flat("x", x), _flat("y", y)
    if min(len(x), len(y)) < 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y need at least two samples of one dimension; got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    gap = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    sx, sy = torch.cov(x.T).reshape(x.shape[1], -1), torch.cov(y.T).reshape(x.shape[1], -1)
    values, vectors = torch.linalg.eigh(sx)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ sy @ root).clamp(min=0).sqrt().sum()
    return (gap + sx.trace() + sy.trace() - 2 * cross).clamp(min=0).item()


def _flat(name: str, samples: Tensor) -> Tensor:
    if samples.ndim < 2 or len(samples) == 0:
        raise ValueError(f"{name} must be a non-empty batch (n, ...); got shape {tuple(samples.shape)}")
    flat = samples.detach().reshape(len(samples), -1).double()
    if not flat.isfinite().all():
        raise ValueError(f"{name} holds {int((~flat.isfinite()).sum())} values that are not finite")
    return flat
