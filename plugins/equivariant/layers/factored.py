"""Messages by kernels that are products of small matrices, without ever storing the kernels.

A kernel in zonal harmonics is k[e] = a[e] b[e]: angular functions (O, A) times radial ones (A, C), with A far below O
and C. Here a few pairs' kernels at a time are multiplied out, used and forgotten, on the way forward, in the gradients
and in the gradients of those; large kernels would cost more in memory traffic than in arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plugins.equivariant.layers import gather
from plugins.equivariant.layers.gather import GatherScaleSumBackward, gather_scale_sum, multiply


class FactoredKernel(NamedTuple):
    """Kernels (K, O, C) as products of `angular` (K, O, A) and `radial` (K, A, C)."""

    angular: Tensor
    radial: Tensor

    def dense(self) -> Tensor:
        """(K, O, C)."""
        return self.angular @ self.radial


def factored_messages(kernel: FactoredKernel, x: Tensor, sender: Tensor, receiver: Tensor) -> Tensor:
    """y[r] = sum over edges e with receiver r of kernel[e] * x[sender[e]].

    Args:
        kernel: K kernels, each read as `h` rows of O C / h numbers.
        x: (N, O C / h) features.
        sender, receiver: (m h K,) rows of x and of the result; rows i, i + h K, .. share a row of the kernel.

    Differentiable any number of times in the kernel's factors and x.
    """
    return _FactoredMessages.apply(kernel.angular, kernel.radial, x, sender, receiver)


class _FactoredMessages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, x: Tensor, sender: Tensor, receiver: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, x, sender, receiver)
        out = torch.zeros_like(x)
        scratch = _Scratch(a, b, x, 2)
        for pairs, edges in _chunks(a, b, sender, x.shape[1]):
            kernel, sent = scratch.rows(pairs)
            torch.bmm(a[pairs], b[pairs], out=scratch.kernels(kernel))
            for at in edges:
                out.index_add_(0, receiver[at], torch.index_select(x, 0, sender[at], out=sent).mul_(kernel))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b, x, sender, receiver = ctx.saved_tensors
        out = _FactoredMessagesBackward.apply(a, b, x, grad.contiguous(), sender, receiver, ctx.needs_input_grad[0])
        return *out, None, None


class _FactoredMessagesBackward(torch.autograd.Function):
    """(a, b, x, g) → gradients of a, b and x. With k = a b and q = sum x[s] * g[r] over the edges that share a kernel,
    they are q b^T, a^T q, and the transposed messages of g."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, x: Tensor, g: Tensor, sender: Tensor, receiver: Tensor, want_a: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        ctx.save_for_backward(a, b, x, g, sender, receiver)
        on_a, on_b, on_x = torch.empty_like(a) if want_a else None, torch.empty_like(b), torch.zeros_like(x)
        scratch = _Scratch(a, b, x, 4)
        for pairs, edges in _chunks(a, b, sender, x.shape[1]):
            kernel, q, pulled, sent = scratch.rows(pairs)
            torch.bmm(a[pairs], b[pairs], out=scratch.kernels(kernel))
            for k, at in enumerate(edges):
                s, r = sender[at], receiver[at]
                torch.index_select(g, 0, r, out=pulled)
                multiply(torch.index_select(x, 0, s, out=sent), pulled, q, add=k > 0)
                on_x.index_add_(0, s, pulled.mul_(kernel))
            q = scratch.kernels(q)
            torch.bmm(a[pairs].transpose(1, 2), q, out=on_b[pairs])
            if on_a is not None:
                torch.bmm(q, b[pairs].transpose(1, 2), out=on_a[pairs])
        return on_a, on_b, on_x

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, v: Tensor, w: Tensor) -> tuple[Tensor | None, ...]:
        a, b, x, g, sender, receiver = ctx.saved_tensors
        u = torch.zeros_like(a) if u is None else u.contiguous()
        v, w = v.contiguous(), w.contiguous()
        if torch.is_grad_enabled():
            return *_second_derivative(a, b, x, g, sender, receiver, u, v, w), None, None, None
        # of <t, q(x, g)> + <k, q(w, g)>, with t = u b + a v the kernels' tangent
        on_a, on_b, on_x, on_g = torch.empty_like(a), torch.empty_like(b), torch.zeros_like(x), torch.zeros_like(g)
        scratch = _Scratch(a, b, x, 7)
        for pairs, edges in _chunks(a, b, sender, x.shape[1]):
            kernel, tangent, q, q_w, pulled, sent, sent_w = scratch.rows(pairs)
            torch.bmm(a[pairs], b[pairs], out=scratch.kernels(kernel))
            t = scratch.kernels(tangent)
            torch.bmm(u[pairs], b[pairs], out=t).baddbmm_(a[pairs], v[pairs])
            for k, at in enumerate(edges):
                s, r = sender[at], receiver[at]
                torch.index_select(g, 0, r, out=pulled)
                torch.index_select(x, 0, s, out=sent)
                torch.index_select(w, 0, s, out=sent_w)
                multiply(sent, pulled, q, add=k > 0)
                multiply(sent_w, pulled, q_w, add=k > 0)
                on_x.index_add_(0, s, pulled.mul_(tangent))
                on_g.index_add_(0, r, sent.mul_(tangent).addcmul_(sent_w, kernel))
            q, q_w = scratch.kernels(q), scratch.kernels(q_w)
            torch.bmm(q, v[pairs].transpose(1, 2), out=on_a[pairs]).baddbmm_(q_w, b[pairs].transpose(1, 2))
            torch.bmm(u[pairs].transpose(1, 2), q, out=on_b[pairs]).baddbmm_(a[pairs].transpose(1, 2), q_w)
        return on_a, on_b, on_x, on_g, None, None, None


def _second_derivative(
    a: Tensor, b: Tensor, x: Tensor, g: Tensor, sender: Tensor, receiver: Tensor, u: Tensor, v: Tensor, w: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same with the kernels in full, itself differentiable."""
    width, shape = x.shape[1], (len(a), a.shape[1], b.shape[2])
    kernel = (a @ b).view(-1, width)
    tangent = (u @ b + a @ v).view(-1, width)
    q, on_x = GatherScaleSumBackward.apply(tangent, x, g, sender, receiver)
    q_w, _ = GatherScaleSumBackward.apply(kernel, w, g, sender, receiver)
    q, q_w = q.view(shape), q_w.view(shape)
    on_g = gather_scale_sum(tangent, x, sender, receiver, len(g)) + gather_scale_sum(
        kernel, w, sender, receiver, len(g)
    )
    return (
        q @ v.mT + q_w @ b.mT,
        u.mT @ q + a.mT @ q_w,
        on_x,
        on_g,
    )


class _Scratch:
    """Memory for the numbers of one chunk, used again by the next: fresh pages are slow to get."""

    def __init__(self, a: Tensor, b: Tensor, x: Tensor, count: int) -> None:
        self.shape, self.width = (a.shape[1], b.shape[2]), x.shape[1]
        self.each = a.shape[1] * b.shape[2] // self.width
        self.buffers = x.new_empty(count, _step(a, b) * self.each, self.width).unbind()

    def rows(self, pairs: slice) -> list[Tensor]:
        """Every buffer as rows (h P, width), for a chunk of P pairs."""
        return [buffer[: (pairs.stop - pairs.start) * self.each] for buffer in self.buffers]

    def kernels(self, rows: Tensor) -> Tensor:
        """The same memory as kernels (P, O, C)."""
        return rows.view(-1, *self.shape)


def _step(a: Tensor, b: Tensor) -> int:
    """Pairs whose kernels make a cacheful on a CPU; all of them elsewhere."""
    if a.device.type != "cpu":
        return max(1, len(a))
    return min(max(1, len(a)), max(1, gather.CHUNK * torch.get_num_threads() // max(1, a.shape[1] * b.shape[2])))


def _chunks(a: Tensor, b: Tensor, sender: Tensor, width: int) -> Iterator[tuple[slice, list[slice]]]:
    """Pairs, a step at a time, each with the edges that use them."""
    count, step, rows = len(a), _step(a, b), a.shape[1] * b.shape[2] // width
    for start in range(0, count, step):
        stop = min(start + step, count)
        shared = range(0, len(sender), count * rows)
        yield slice(start, stop), [slice(k + start * rows, k + stop * rows) for k in shared]
