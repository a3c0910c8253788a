"""Depthwise messages: gather at the sender, scale by the kernel, sum at the receiver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 17
"""Numbers handled at a time on a CPU, so that gathered rows stay in its cache."""


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
    """With its partner closed under differentiation: both are faces of sum_e kernel[e] . x[s_e] . g[r_e]."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, x: Tensor, sender: Tensor, receiver: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(kernel, x, sender, receiver)
        out = x.new_zeros(size, x.shape[1])
        rows = _rows(x)
        for start in range(0, len(sender), len(kernel) or 1):
            for k, chunk in enumerate(kernel.split(rows)):
                at = slice(start + k * rows, start + k * rows + len(chunk))
                out.index_add_(0, receiver[at], x.index_select(0, sender[at]).mul_(chunk))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        kernel, x, sender, receiver = ctx.saved_tensors
        grad = grad.contiguous()
        on_kernel = on_x = None
        if ctx.needs_input_grad[0]:
            on_kernel = _GatherProduct.apply(x, grad, sender, receiver, len(kernel))
        if ctx.needs_input_grad[1]:
            on_x = _GatherScaleSum.apply(kernel, grad, receiver, sender, len(x))
        return on_kernel, on_x, None, None, None


class _GatherProduct(torch.autograd.Function):
    """(K, D): sum over the edges e that share a row of x[sender[e]] * g[receiver[e]]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, sender: Tensor, receiver: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(x, g, sender, receiver)
        out = x.new_empty(count, x.shape[1])
        rows = _rows(x)
        for k, chunk in enumerate(out.split(rows)):
            for start in range(0, len(sender), count or 1):
                at = slice(start + k * rows, start + k * rows + len(chunk))
                left, right = x.index_select(0, sender[at]), g.index_select(0, receiver[at])
                torch.mul(left, right, out=chunk) if start == 0 else chunk.addcmul_(left, right)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, g, sender, receiver = ctx.saved_tensors
        grad = grad.contiguous()
        on_x = on_g = None
        if ctx.needs_input_grad[0]:
            on_x = _GatherScaleSum.apply(grad, g, receiver, sender, len(x))
        if ctx.needs_input_grad[1]:
            on_g = _GatherScaleSum.apply(grad, x, sender, receiver, len(g))
        return on_x, on_g, None, None, None


def _rows(x: Tensor) -> int:
    return max(1, CHUNK // x.shape[1]) if x.device.type == "cpu" else 1 << 30


@dataclass
class Messages:
    """Who sends to whom, with one kernel for the two directions of a pair where the grid allows it.

    A kernel obeys k(-r, -n) = k(r, n): what edge s → r applies at orientation n, its reverse applies at -n. On a grid
    whose second half is opposite to its first, a node's features are two rows, one for each half; an edge joins equal
    halves, and its reverse, with the same kernel row, joins the other halves the other way.

    Args:
        rel: (K, n) displacements whose kernels are wanted.
        sender, receiver: rows of features, `halves` to a node.
        nodes: number of nodes N.
        halves: 2 when a kernel is shared by the directions of a pair over antipodal orientations, else 1.
        mirrored: kernels are shared by the directions of a pair.
    """

    rel: Tensor
    sender: Tensor
    receiver: Tensor
    nodes: int
    halves: int
    mirrored: bool

    @classmethod
    def build(cls, rel: Tensor, edge_index: Tensor, nodes: int, mirrored: bool, orientations: bool) -> Messages:
        """From the displacements (E, n) of all edges.

        Args:
            mirrored: promises that edges 2p and 2p + 1 are reverses, and that orientations, if any, are antipodal.
            orientations: whether there are any.
        """
        sender, receiver = edge_index
        if not mirrored:
            return cls(rel, sender, receiver, nodes, 1, False)
        sender, receiver = sender[0::2], receiver[0::2]
        if not orientations:
            return cls(rel[0::2], torch.cat([sender, receiver]), torch.cat([receiver, sender]), nodes, 1, True)
        half = torch.arange(2, device=sender.device)
        there, here = (2 * sender[:, None] + half).flatten(), (2 * receiver[:, None] + half).flatten()
        other_there, other_here = there + 1 - 2 * half.repeat(len(sender)), here + 1 - 2 * half.repeat(len(sender))
        return cls(rel[0::2], torch.cat([there, other_here]), torch.cat([here, other_there]), nodes, 2, True)

    def __call__(self, kernel: Tensor, x: Tensor) -> Tensor:
        """Kernel (K, O, C) and features (N, O, C) → (N, O, C)."""
        width = x.shape[1] * x.shape[2] // self.halves
        rows = x.reshape(self.halves * self.nodes, width)
        kernel = kernel.reshape(self.halves * len(self.rel), width)
        return gather_scale_sum(kernel, rows, self.sender, self.receiver, len(rows)).view(x.shape)

    def directions(self) -> list[tuple[Tensor, Tensor, float]]:
        """(sender, receiver, sign) of the K edges along `rel` and, when mirrored, of the K along its negative."""
        if self.halves == 2:
            raise ValueError("edges of a grid's halves have no direction of their own")
        if not self.mirrored:
            return [(self.sender, self.receiver, 1.0)]
        count = len(self.rel)
        return [
            (self.sender[:count], self.receiver[:count], 1.0),
            (self.sender[count:], self.receiver[count:], -1.0),
        ]
