"""Zero-order hold and bilinear rules for diagonal systems, right at Λ = 0 and in float32."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def zoh(lam: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Zero-order hold: exact for inputs that are constant over a step.

    Args:
        lam: continuous eigenvalues, complex, broadcastable with ``step``.
        step: Δ > 0, real.

    Returns:
        (Λ̄, γ) with Λ̄ = exp(ΔΛ) and B̄ = γ·B, γ = (Λ̄ − 1)/Λ, which is Δ at Λ = 0.
    """
    z = lam * step
    small = z.abs() < 1e-3
    # exp(z) − 1 without cancellation: expm1 and sines of half angles (torch has no complex expm1)
    half_sine = torch.sin(z.imag / 2)
    growth = torch.exp(z.real)
    difference = torch.complex(
        torch.expm1(z.real) * torch.cos(z.imag) - 2 * half_sine * half_sine, growth * torch.sin(z.imag)
    )
    # where() evaluates both sides: keep the divisor away from zero so that gradients stay finite
    quotient = difference / torch.where(small, torch.ones_like(z), z)
    series = 1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5)))
    return torch.exp(z), step * torch.where(small, series, quotient)


def bilinear(lam: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear (trapezoidal) rule, order 2 for midpoint-sampled inputs; arguments and result as ``zoh``."""
    half = lam * step / 2
    inverse = 1 / (1 - half)
    return inverse * (1 + half), step * inverse


DISCRETIZATIONS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {"zoh": zoh, "bilinear": bilinear}


def discretize(kind: str, lam: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """``zoh`` or ``bilinear`` by name.

    Raises:
        ValueError: unknown name.
    """
    if kind not in DISCRETIZATIONS:
        raise ValueError(f"discretization must be one of {', '.join(DISCRETIZATIONS)}, not {kind!r}")
    return DISCRETIZATIONS[kind](lam, step)


def log_steps(shape: tuple[int, ...], dt_min: float, dt_max: float) -> Tensor:
    """log Δ drawn uniformly between log dt_min and log dt_max, from torch's global generator.

    Raises:
        ValueError: unless 0 < dt_min <= dt_max.
    """
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"0 < dt_min <= dt_max is needed, not dt_min={dt_min}, dt_max={dt_max}")
    return math.log(dt_min) + torch.rand(shape) * (math.log(dt_max) - math.log(dt_min))
