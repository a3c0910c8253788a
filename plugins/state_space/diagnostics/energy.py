"""Energy of an impulse response."""

from __future__ import annotations

import torch
from torch import Tensor


def h2_norm(lam: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """H₂ norm √∫₀^∞ |C e^{Λt} B|² dt of a stable diagonal system with all its modes.

    The impulse response Σ w_n e^{λ_n t}, w = CB, integrates in closed form: −Σ w_m w̄_n / (λ_m + λ̄_n).

    Args:
        lam, B, C: complex, shape (..., N).

    Raises:
        ValueError: an eigenvalue with non-negative real part (the integral diverges).
    """
    if bool((lam.real >= 0).any()):
        raise ValueError(f"the H2 norm needs Re(lam) < 0; the largest real part is {lam.real.max().item():.3g}")
    weight = B * C
    gram = -1 / (lam[..., :, None] + lam[..., None, :].conj())
    energy = torch.einsum("...m,...mn,...n->...", weight, gram, weight.conj()).real
    return torch.sqrt(energy.clamp_min(0))
