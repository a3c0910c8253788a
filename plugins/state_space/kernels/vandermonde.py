"""Sums over modes, K_l = Re Σ_n w_n e^{z_n l}, without ever forming the (heads, states, length) tensor of powers.

With l = aT + b and T ≈ √L the powers factor, e^{zl} = e^{zaT} e^{zb}, and the sum is one batched matrix product of
two thin matrices of powers. Powers are built by doubling in complex128, so that a phase Im(z)·l of 1e6 radians is
still right after the cast to float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def powers(base: Tensor, count: int) -> Tensor:
    """base^0 … base^{count−1} along a new last dimension, by ⌈log₂ count⌉ doublings."""
    result = torch.empty(*base.shape, count, dtype=base.dtype, device=base.device)
    result[..., 0] = 1
    filled, square = 1, base
    while filled < count:
        width = min(filled, count - filled)
        torch.mul(result[..., :width], square[..., None], out=result[..., filled : filled + width])
        filled += width
        square = square * square
    return result


def vandermonde_kernel(w: Tensor, z: Tensor, length: int) -> Tensor:
    """K[r, h, l] = Re Σ_n w[r, h, n] exp(z[h, n] l), l = 0 … length−1.

    Differentiable once in w and z. Time O(R·H·N·length) in one matrix product, memory O(H·N·√length + R·H·length).

    Args:
        w: (R, H, N) or (H, N), complex64 or complex128; its precision is the result's.
        z: (H, N) complex, the exponents ΔΛ of one step, Re z ≤ 0; complex128 is best at any precision of w.
        length: at least 1.

    Returns:
        Real tensor (R, H, length) or (H, length).
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, not {length}")
    if w.ndim == 2:
        return _Vandermonde.apply(w[None], z, length)[0]
    return _Vandermonde.apply(w, z, length)


class _Vandermonde(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, z: Tensor, length: int) -> Tensor:
        inner = math.isqrt(length - 1) + 1
        outer = -(-length // inner)
        fine = z.to(torch.complex128)
        right = powers(torch.exp(fine), inner).to(w.dtype)  # (H, N, T)
        coarse = powers(torch.exp(fine * inner), outer).to(w.dtype).transpose(1, 2)  # (H, A, N)
        left = w[:, :, None, :] * coarse
        heads, states = z.shape
        # Re Σ (x + iy)(u + iv) = Σ x·u + y·(−v): one real product of interleaved parts
        rows = torch.view_as_real(left.permute(1, 0, 2, 3).contiguous()).reshape(heads, -1, 2 * states)
        columns = torch.view_as_real(right.transpose(1, 2).conj().resolve_conj().contiguous())
        columns = columns.reshape(heads, inner, 2 * states)
        kernel = (rows @ columns.transpose(1, 2)).view(heads, w.shape[0], outer * inner)
        ctx.save_for_backward(w, z, coarse, columns)
        ctx.length = length
        return kernel[..., :length].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        w, z, coarse, columns = ctx.saved_tensors
        rank, heads, states = w.shape
        inner, outer = columns.shape[1], coarse.shape[1]
        grad = torch.nn.functional.pad(grad.transpose(0, 1), (0, outer * inner - ctx.length))
        grad = grad.reshape(heads, rank * outer, inner)

        def against(matrix: Tensor) -> Tensor:
            # columns hold (u, −v): the product is conj(Σ_b g_b e^{zb}) for every row a
            product = (grad @ matrix).view(heads, rank, outer, states, 2)
            return torch.view_as_complex(product) * coarse.conj()[:, None]

        position = torch.arange(inner, dtype=columns.dtype, device=columns.device)
        plain = against(columns)
        weighted = against(columns * position[:, None])
        start = inner * torch.arange(outer, dtype=columns.dtype, device=columns.device)[:, None]
        grad_w = plain.sum(2).transpose(0, 1)
        moment = (weighted + start * plain).sum(2)
        grad_z = (moment * w.transpose(0, 1).conj()).sum(1)
        return grad_w, grad_z.to(z.dtype), None


def chunked_powers_state(u: Tensor, z: Tensor) -> Tensor:
    """x[b, h, n] = Σ_l exp(z[h, n] (L−1−l)) u[b, h, l]: the state that a whole sequence leaves behind.

    Args:
        u: (B, H, L) real.
        z: (H, N) complex exponents of one step.

    Returns:
        (B, H, N) complex, of u's precision.
    """
    batch, heads, length = u.shape
    dtype = torch.promote_types(u.dtype, torch.complex64)
    inner = math.isqrt(length - 1) + 1
    outer = -(-length // inner)
    fine = z.to(torch.complex128)
    steps = torch.arange(inner - 1, -1, -1, device=z.device)
    right = torch.exp(fine[..., None] * steps).to(dtype)
    coarse = torch.exp(fine[..., None] * (inner * torch.arange(outer - 1, -1, -1, device=z.device))).to(dtype)
    blocks = torch.nn.functional.pad(u, (outer * inner - length, 0)).view(batch, heads, outer, inner)
    local = torch.einsum("bhat,hnt->bhan", blocks.to(dtype), right)
    return torch.einsum("bhan,hna->bhn", local, coarse)
