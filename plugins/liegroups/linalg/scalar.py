"""Scalar functions with removable singularities, exact in value and gradient at the singular point.

Every function takes the *square* of the natural argument (or an argument whose series is regular), so that no square
root is differentiated at zero; both branches of each ``torch.where`` see a harmless argument.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SERIES_TERMS = 12
_SERIES_RADIUS = 1.0


def stumpff(order: int, q: Tensor) -> Tensor:
    """Stumpff function ``c_k(q) = sum_j (-q)^j / (2j + k)!`` for ``order`` k in 0..3 and real ``q`` of any sign.

    For q = t^2 > 0: c0 = cos t, c1 = sin t / t, c2 = (1 - cos t) / t^2, c3 = (t - sin t) / t^3; for q < 0 the
    hyperbolic counterparts. Relative error is a few units in the last place for every q, and the gradient is finite
    at q = 0. Raises ValueError for another order.
    """
    if order not in (0, 1, 2, 3):
        raise ValueError(f"order={order}: the Stumpff functions offered are c0, c1, c2 and c3")
    small = q.abs() < _SERIES_RADIUS
    series_arg = torch.where(small, q, torch.zeros_like(q))
    series = torch.zeros_like(q)
    for j in range(_SERIES_TERMS - 1, -1, -1):
        series = series * (-series_arg) + 1.0 / math.factorial(2 * j + order)
    away = torch.where(small, torch.ones_like(q), q)
    t = away.abs().sqrt()
    positive = away > 0
    # sinh and cosh overflow where the trigonometric branch is the one selected: give them a small argument there
    hyperbolic_arg = torch.where(positive, torch.ones_like(t), t)
    cosine = torch.where(positive, torch.cos(t), torch.cosh(hyperbolic_arg))
    sine = torch.where(positive, torch.sin(t), torch.sinh(hyperbolic_arg)) / t
    closed = {0: cosine, 1: sine, 2: (1 - cosine) / away, 3: (1 - sine) / away}[order]
    return torch.where(small, series, closed)


def log_sinhc(x: Tensor) -> Tensor:
    """``log(sinh(x) / x)`` for real x, without overflow for large |x|; even, zero with zero gradient at x = 0."""
    large = x.abs() > 1.0
    inner = torch.where(large, torch.zeros_like(x), x)
    near = torch.log(stumpff(1, -inner * inner))
    outer = torch.where(large, x, torch.ones_like(x)).abs()
    far = outer + torch.log1p(-torch.exp(-2 * outer)) - torch.log(2 * outer)
    return torch.where(large, far, near)


def atanhc_of_square(q: Tensor) -> Tensor:
    """``atanh(sqrt q) / sqrt q`` for 0 <= q < 1, with the series ``1 + q/3 + q^2/5 + ...`` near zero."""
    small = q < 0.05
    series_arg = torch.where(small, q, torch.zeros_like(q))
    series = torch.zeros_like(q)
    for j in range(12, -1, -1):
        series = series * series_arg + 1.0 / (2 * j + 1)
    root = torch.where(small, torch.full_like(q, 0.25), q).sqrt()
    return torch.where(small, series, torch.atanh(root) / root)


def half_angle_ratio(sine_squared: Tensor, cosine: Tensor) -> Tensor:
    """``2 atan2(s, c) / s`` with ``s = sqrt(sine_squared)`` and c >= 0 on the unit circle; regular at s = 0."""
    small = sine_squared < 1e-4
    x = torch.where(small, sine_squared, torch.zeros_like(sine_squared))
    c = torch.where(small, cosine, torch.ones_like(cosine))
    ratio = x / (c * c)
    series = 2 / c * (1 - ratio * (1 / 3 - ratio * (1 / 5 - ratio * (1 / 7 - ratio / 9))))
    s = torch.where(small, torch.ones_like(sine_squared), sine_squared).sqrt()
    closed = 2 * torch.atan2(s, torch.where(small, torch.zeros_like(cosine), cosine)) / s
    return torch.where(small, series, closed)
