"""The plain form of S4D that others are timed against: every power of every state of every channel in one tensor."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class StraightforwardS4D(nn.Module):
    """S4D-Lin as usually written down: exp(ΔΛ l) materialised as (H, N/2, L), an FFT convolution, GELU and a GLU.

    Args:
        d_model: channels H.
        d_state: N, half of which are kept.
    """

    def __init__(self, d_model: int, d_state: int = 64) -> None:
        super().__init__()
        half = d_state // 2
        self.log_dt = nn.Parameter(math.log(1e-3) + torch.rand(d_model) * math.log(100))
        self.log_decay = nn.Parameter(torch.full((d_model, half), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(half, dtype=torch.float32).repeat(d_model, 1))
        self.C = nn.Parameter(torch.randn(d_model, half, 2))
        self.D = nn.Parameter(torch.randn(d_model))
        self.output = nn.Conv1d(d_model, 2 * d_model, 1)

    def forward(self, u: Tensor) -> Tensor:
        """(B, H, L) to (B, H, L)."""
        length = u.shape[-1]
        lam = torch.complex(-torch.exp(self.log_decay), self.frequency)
        z = lam * torch.exp(self.log_dt)[:, None]
        c = torch.view_as_complex(self.C) * (torch.exp(z) - 1) / lam
        powers = torch.exp(z[..., None] * torch.arange(length, device=u.device))
        kernel = 2 * torch.einsum("hn,hnl->hl", c, powers).real
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length), n=2 * length)
        y = y[..., :length] + u * self.D[:, None]
        return functional.glu(self.output(functional.gelu(y)), dim=1)
