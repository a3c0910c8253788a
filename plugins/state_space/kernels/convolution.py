"""Causal and two-sided convolution by real FFTs, with the gradient written as convolutions too."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@functools.cache
def fast_length(minimum: int) -> int:
    """The smallest even number ≥ minimum without prime factors above 5."""
    n = max(2, minimum + minimum % 2)
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2


def fft_convolve(u: Tensor, kernel: Tensor, backward_kernel: Tensor | None = None) -> Tensor:
    """y_k = Σ_j K_j u_{k−j} (+ Σ_j K'_j u_{k+j}) for each channel.

    Args:
        u: (B, H, L) real.
        kernel: (H, L) real, K_0 … K_{L−1}.
        backward_kernel: (H, L), K' of the part that looks ahead; its K'_0 also meets u_k itself.

    Returns:
        (B, H, L).
    """
    length = u.shape[-1]
    size = fast_length(2 * length)
    if backward_kernel is not None:
        # on the circle, looking ahead by j is looking back by size − j
        gap = kernel.new_zeros(*kernel.shape[:-1], size - 2 * length + 1)
        first = kernel[..., :1] + backward_kernel[..., :1]
        kernel = torch.cat([first, kernel[..., 1:], gap, backward_kernel[..., 1:].flip(-1)], dim=-1)
    return _Convolution.apply(u, kernel, size)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, kernel: Tensor, size: int) -> Tensor:
        u_hat, kernel_hat = torch.fft.rfft(u, n=size), torch.fft.rfft(kernel, n=size)
        ctx.save_for_backward(u_hat, kernel_hat)
        ctx.size, ctx.taps = size, kernel.shape[-1]
        return torch.fft.irfft(u_hat * kernel_hat, n=size)[..., : u.shape[-1]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        u_hat, kernel_hat = ctx.saved_tensors
        grad_hat = torch.fft.rfft(grad, n=ctx.size)
        grad_u = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_u = torch.fft.irfft(grad_hat * kernel_hat.conj(), n=ctx.size)[..., : grad.shape[-1]]
        if ctx.needs_input_grad[1]:
            product = (grad_hat * u_hat.conj()).sum(0)
            grad_kernel = torch.fft.irfft(product, n=ctx.size)[..., : ctx.taps]
        return grad_u, grad_kernel, None
