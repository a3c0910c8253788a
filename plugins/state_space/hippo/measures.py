"""The HiPPO systems x' = A x + B u (Gu et al. 2020; Gu et al. 2022, "How to train your HiPPO")."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MEASURES = ("legs", "legt", "fout")


def hippo(measure: str, n: int) -> tuple[Tensor, Tensor]:
    """State matrix and input vector of a HiPPO system, time-invariant form.

    Args:
        measure: ``legs`` (exponentially warped Legendre, infinite memory), ``legt`` (Legendre on a window of length 2)
            or ``fout`` (Fourier on a window of length 2, n even).
        n: state size, at least 1.

    Returns:
        A of shape (n, n) and B of shape (n,), float64.

    Raises:
        ValueError: unknown measure, n < 1, or an odd n for ``fout``.
    """
    _check(measure, n)
    if measure == "fout":
        a = torch.zeros(n, n, dtype=torch.float64)
        frequency = math.pi * torch.arange(n // 2, dtype=torch.float64)
        even = torch.arange(0, n, 2)
        a[even, even + 1] = -frequency
        a[even + 1, even] = frequency
        b = _fourier_input(n)
        return a - torch.outer(b, b), b
    index = torch.arange(n, dtype=torch.float64)
    root = torch.sqrt(2 * index + 1)
    product = torch.outer(root, root)
    if measure == "legs":
        return -(torch.tril(product, -1) + torch.diag(index + 1)), root
    sign = (-1.0) ** (index[:, None] - index[None, :])
    lower = index[:, None] >= index[None, :]
    return -0.5 * product * torch.where(lower, torch.ones_like(sign), sign), 0.5 * root


def rank_correction(measure: str, n: int) -> Tensor:
    """The rows P, shape (r, n), with A + Σ PPᵀ = c·I + (a skew matrix); r = 1 (legs, fout) or 2 (legt)."""
    _check(measure, n)
    if measure == "fout":
        return _fourier_input(n)[None]
    index = torch.arange(n, dtype=torch.float64)
    if measure == "legs":
        return torch.sqrt(index + 0.5)[None]
    root = torch.sqrt(index + 0.5)
    even = (torch.arange(n) % 2 == 0).to(torch.float64)
    return torch.stack([root * even, root * (1 - even)])


def _fourier_input(n: int) -> Tensor:
    b = torch.zeros(n, dtype=torch.float64)
    b[0::2] = math.sqrt(2)
    b[0] = 1.0
    return b


def _check(measure: str, n: int) -> None:
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}, not {measure!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    if measure == "fout" and n % 2:
        raise ValueError(f"the fout measure pairs cosines with sines: n must be even, not {n}")
