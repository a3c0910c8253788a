"""Fréchet distance between Gaussian fits of two sets of features (Heusel et al. 2017, eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_fit(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D), in float64, of features (N, D).

    Raises:
        ValueError: fewer than two samples, or a value that is not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must be (N, D) with N >= 2, not {tuple(features.shape)}")
    x = features.detach().double().cpu()
    if not torch.isfinite(x).all():
        raise ValueError("features hold values that are not finite: the motion they come from has diverged")
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def gaussian_frechet(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """|m1 − m2|² + tr(C1 + C2 − 2 (C1^½ C2 C1^½)^½).

    The trace of the root is taken from eigenvalues of symmetric matrices, clipped at zero: a singular covariance needs
    no ridge, and nothing imaginary arises.
    """
    values, vectors = torch.linalg.eigh(cov1)
    half = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(half @ cov2 @ half).clamp_min(0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return max(float(distance), 0.0)


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Fréchet distance of features x (N, D) and y (M, D); see `gaussian_fit` for what is refused."""
    if x.ndim == y.ndim == 2 and x.shape[1] != y.shape[1]:
        raise ValueError(f"features must have the same width, not {x.shape[1]} and {y.shape[1]}")
    return gaussian_frechet(*gaussian_fit(x), *gaussian_fit(y))
