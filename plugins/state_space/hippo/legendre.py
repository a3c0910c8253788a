"""What is known of the LegS system in closed form: the ground truth of every kernel."""

from __future__ import annotations

import torch
from torch import Tensor


def legs_impulse_response(t: Tensor, n: int) -> Tensor:
    """e^{At}B of LegS: √(2i+1)·e^{−t}·P_i(2e^{−t}−1), with P_i the Legendre polynomials.

    Args:
        t: times, t ≥ 0, any shape, float64.
        n: state size.

    Returns:
        Tensor of shape (*t.shape, n).
    """
    decay = torch.exp(-t)
    x = 2 * decay - 1
    polynomials = [torch.ones_like(x), x]
    for i in range(1, n - 1):
        polynomials.append(((2 * i + 1) * x * polynomials[i] - i * polynomials[i - 1]) / (i + 1))
    index = torch.arange(n, dtype=t.dtype, device=t.device)
    return torch.stack(polynomials[:n], dim=-1) * decay[..., None] * torch.sqrt(2 * index + 1)


def legs_resolvent(omega: Tensor, n: int) -> Tensor:
    """X(iω) = (iω − A)^{-1}B of LegS: √(2i+1)·Π_{k<i}(s−k) / Π_{k≤i}(s+1+k), s = iω.

    The Laplace transform of the shifted Legendre polynomial; ‖X(0)‖ is the supremum over ω, and it equals 1.

    Args:
        omega: angular frequencies, shape (m,), float64.
        n: state size.

    Returns:
        complex128 tensor of shape (m, n).
    """
    s = 1j * omega.to(torch.complex128)[:, None]
    k = torch.arange(n, dtype=torch.float64, device=omega.device)
    ratios = torch.cat([torch.ones_like(s), (s - k[:-1]) / (s + 1 + k[:-1])], dim=1)
    return torch.cumprod(ratios, dim=1) / (s + 1 + k) * torch.sqrt(2 * k + 1)
