"""Cauchy sums, the kernel of diagonal-plus-low-rank systems, evaluated in slices of the frequency axis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SLICE = 64  # frequencies at a time: bounds the largest temporary to (heads, states, 64)


def cauchy(v: Tensor, g: Tensor, lam: Tensor) -> Tensor:
    """S[r, h, m] = Σ_n v[r, h, n] / (g[m] − λ[h, n]), differentiable once in v and λ.

    Args:
        v: (R, H, N) complex numerators.
        g: (M,) complex points, a constant.
        lam: (H, N) complex poles.

    Returns:
        (R, H, M) complex.
    """
    return _Cauchy.apply(v, g, lam)


class _Cauchy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, g: Tensor, lam: Tensor) -> Tensor:
        ctx.save_for_backward(v, g, lam)
        by_head = v.transpose(0, 1)
        slices = [by_head @ (1 / (part - lam[..., None])) for part in g.split(SLICE)]
        return torch.cat(slices, dim=-1).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor]:
        v, g, lam = ctx.saved_tensors
        grad = grad.transpose(0, 1)  # (H, R, M)
        grad_v = torch.zeros_like(v.transpose(0, 1))
        moment = torch.zeros_like(grad_v)
        for part, grad_part in zip(g.split(SLICE), grad.split(SLICE, dim=-1), strict=True):
            quotient = (1 / (part - lam[..., None])).conj().transpose(1, 2)  # (H, m, N)
            grad_v = grad_v + grad_part @ quotient
            moment = moment + grad_part @ (quotient * quotient)
        grad_lam = (moment * v.transpose(0, 1).conj()).sum(1)
        return grad_v.transpose(0, 1), None, grad_lam
