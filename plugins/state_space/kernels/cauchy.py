"""Cauchy sums, the kernel of diagonal-plus-low-rank systems, evaluated in slices of the frequency axis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SLICE = 64  # frequencies at a time: bounds the largest temporary to (heads, states, 64)


def cauchy(v: Tensor, alpha: Tensor, beta: Tensor, mu: Tensor) -> Tensor:
    """S[r, h, m] = Σ_n v[r, h, n] / (α[m] − β[m] μ[h, n]), differentiable once in v and μ.

    The two coefficients keep the bilinear rule's sum finite where the usual 1/(g − μ) has g = ∞.

    Args:
        v: (R, H, N) complex numerators.
        alpha, beta: (M,) complex constants.
        mu: (H, N) complex.

    Returns:
        (R, H, M) complex.
    """
    return _Cauchy.apply(v, alpha, beta, mu)


class _Cauchy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, alpha: Tensor, beta: Tensor, mu: Tensor) -> Tensor:
        ctx.save_for_backward(v, alpha, beta, mu)
        by_head = v.transpose(0, 1)
        slices = [by_head @ (1 / (a - b * mu[..., None])) for a, b in _sliced(alpha, beta)]
        return torch.cat(slices, dim=-1).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, Tensor]:
        v, alpha, beta, mu = ctx.saved_tensors
        grad = grad.transpose(0, 1)  # (H, R, M)
        grad_v = torch.zeros_like(v.transpose(0, 1))
        moment = torch.zeros_like(grad_v)
        for (a, b), part in zip(_sliced(alpha, beta), grad.split(SLICE, dim=-1), strict=True):
            quotient = (1 / (a - b * mu[..., None])).conj().transpose(1, 2)  # (H, m, N)
            grad_v = grad_v + part @ quotient
            moment = moment + (part * b.conj()) @ (quotient * quotient)
        grad_mu = (moment * v.transpose(0, 1).conj()).sum(1)
        return grad_v.transpose(0, 1), None, None, grad_mu


def _sliced(alpha: Tensor, beta: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(alpha.split(SLICE), beta.split(SLICE), strict=True))
