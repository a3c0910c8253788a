"""Gather at the sender, scale by the kernel, sum at the receiver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 17
"""Numbers handled at a time by each thread of a CPU, so that gathered rows stay in its cache."""


def gather_scale_sum(kernel: Tensor, x: Tensor, sender: Tensor, receiver: Tensor, size: int) -> Tensor:
    """y[r] = sum over edges e with receiver r of kernel[e] * x[sender[e]], without storing the messages.

    Args:
        kernel: (K, D); where there are m K edges, edges e, e + K, .. share a row.
        x: (N, D) features.
        sender, receiver: (m K,) rows of x and of the result.
        size: rows of the result.

    Differentiable any number of times in kernel and x.
    """
    return _GatherScaleSum.apply(kernel, x, sender, receiver, size)


class _GatherScaleSum(torch.autograd.Function):
    """With its derivative closed under differentiation: both come from sum_e kernel[e] . x[s_e] . g[r_e]."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, x: Tensor, sender: Tensor, receiver: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(kernel, x, sender, receiver)
        out = x.new_zeros(size, x.shape[1])
        for rows, edges in _chunks(kernel, sender):
            for at in edges:
                out.index_add_(0, receiver[at], x.index_select(0, sender[at]).mul_(kernel[rows]))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        kernel, x, sender, receiver = ctx.saved_tensors
        on_kernel, on_x = GatherScaleSumBackward.apply(kernel, x, grad.contiguous(), sender, receiver)
        return on_kernel, on_x, None, None, None


class GatherScaleSumBackward(torch.autograd.Function):
    """(kernel, x, g) → the gradients of kernel, x[sender[e]] * g[receiver[e]] summed over the edges that share a row,
    and of x, the transposed messages of g."""

    @staticmethod
    def forward(
        ctx: Any, kernel: Tensor, x: Tensor, g: Tensor, sender: Tensor, receiver: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(kernel, x, g, sender, receiver)
        on_kernel, on_x = torch.empty_like(kernel), torch.zeros_like(x)
        for rows, edges in _chunks(kernel, sender):
            for k, at in enumerate(edges):
                pulled, sent = g.index_select(0, receiver[at]), x.index_select(0, sender[at])
                multiply(sent, pulled, on_kernel[rows], add=k > 0)
                on_x.index_add_(0, sender[at], pulled.mul_(kernel[rows]))
        return on_kernel, on_x

    @staticmethod
    def backward(ctx: Any, u: Tensor, v: Tensor) -> tuple[Tensor | None, ...]:
        kernel, x, g, sender, receiver = ctx.saved_tensors
        u, v = u.contiguous(), v.contiguous()
        if torch.is_grad_enabled():
            on_kernel, on_x = GatherScaleSumBackward.apply(u, v, g, sender, receiver)
            on_g = _GatherScaleSum.apply(u, x, sender, receiver, len(g))
            return on_kernel, on_x, on_g + _GatherScaleSum.apply(kernel, v, sender, receiver, len(g)), None, None
        on_kernel, on_x, on_g = torch.empty_like(kernel), torch.zeros_like(x), torch.zeros_like(g)
        for rows, edges in _chunks(kernel, sender):
            for k, at in enumerate(edges):
                s, r = sender[at], receiver[at]
                pulled, sent = g.index_select(0, r), v.index_select(0, s)
                multiply(sent, pulled, on_kernel[rows], add=k > 0)
                on_x.index_add_(0, s, pulled.mul_(u[rows]))
                on_g.index_add_(0, r, sent.mul_(kernel[rows]).addcmul_(x.index_select(0, s), u[rows]))
        return on_kernel, on_x, on_g, None, None


def multiply(a: Tensor, b: Tensor, out: Tensor, add: bool) -> None:
    """a * b into `out`, or onto what is there."""
    out.addcmul_(a, b) if add else torch.mul(a, b, out=out)


def _chunks(kernel: Tensor, sender: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Rows of the kernel, a cacheful at a time on a CPU, each with the edges that use them."""
    count = len(kernel)
    step = max(1, count)
    if kernel.device.type == "cpu":
        step = max(1, CHUNK * torch.get_num_threads() // kernel.shape[1])
    for start in range(0, count, step):
        stop = min(start + step, count)
        yield slice(start, stop), [slice(k + start, k + stop) for k in range(0, len(sender), count)]
