"""DPM-Solver-v3: the exponential integrator around empirical model statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from .ems import EMS


class LinearUpdate(NamedTuple):
    """y_end = decay * y_start + sum_j weights[j] * f_j + constant, each (*shape,) or a scalar."""

    decay: Tensor
    weights: tuple[Tensor, ...]
    constant: Tensor


def _integrate(tau: Tensor, values: Tensor) -> Tensor:
    """Cumulative trapezoid (m, *shape) of values (m, *shape) over tau (m,), 0 at the first node."""
    widths = tau.diff().reshape(-1, *[1] * (values.ndim - 1))
    steps = 0.5 * widths * (values[1:] + values[:-1])
    return torch.cat([torch.zeros_like(values[:1]), steps.cumsum(0)])


def v3_update(ems: EMS, start: float, others: Sequence[float], end: float, derivatives: NDArray) -> LinearUpdate:
    """The step from lambda `start` to `end` that integrates dy/dlambda = -l y - f around the statistics.

    With L, S the integrals of l, s from `start`, and g(tau) = e^{-S(tau)} f(tau) - int_start^tau e^{-S} b (flat where
    f' = s f + b), the step is exact for g polynomial:

        y_end = e^{-L} [y_start - sum_k g^(k) int e^{L+S} (tau - start)^k / k! - int e^{L+S} int e^{-S} b].

    All integrals are trapezoids on the statistics' own nodes, taken relative to `start` so that nothing under- or
    overflows over long ranges. Source: Zheng et al. 2023, eqs. 10-13.

    Args:
        start, end: Lambdas of the step.
        others: Lambdas of the further nodes that estimate derivatives; may lie before `start` or beyond it.
        derivatives: (order, 1 + len(others)) rows of `derivative_weights`, columns `start` first.

    Returns:
        Weights for f at `start` and at each of `others`, in that order.
    """
    tau, l_values, s_values, b_values = ems.between(start, end)
    growth_l, growth_s = _integrate(tau, l_values), _integrate(tau, s_values)
    kernel = torch.exp(growth_l + growth_s)
    decay = torch.exp(-growth_l[-1])
    offset = (tau - start).reshape(-1, *[1] * (l_values.ndim - 1))
    drift = _integrate(tau, torch.exp(-growth_s) * b_values)
    constant = -decay * _integrate(tau, kernel * drift)[-1]

    monomial, moments = torch.ones_like(offset), []
    for k in range(len(derivatives)):
        moments.append(_integrate(tau, kernel * monomial)[-1])
        monomial = monomial * offset / (k + 1)

    weights = []
    for j, node in enumerate((start, *others)):
        coefficient = -decay * sum(float(row[j]) * moment for row, moment in zip(derivatives, moments, strict=True))
        if j == 0:
            weights.append(coefficient)
            continue
        # g_j = e^{-S_j} f_j - int_start^j e^{-S} b, with S relative to `start`
        forward = node > start
        tau_j, _, s_j, b_j = ems.between(min(start, node), max(start, node))
        growth = _integrate(tau_j, s_j)
        if not forward:
            growth = growth - growth[-1]
        shift = _integrate(tau_j, torch.exp(-growth) * b_j)[-1]
        constant = constant + coefficient * (-shift if forward else shift)
        weights.append(coefficient * torch.exp(-(growth[-1] if forward else growth[0])))
    return LinearUpdate(decay, tuple(weights), constant)
