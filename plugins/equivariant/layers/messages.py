"""Depthwise messages: gather at the sender, scale by the kernel, sum at the receiver."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def gather_scale_sum(kernel: Tensor, x: Tensor, sender: Tensor, receiver: Tensor, size: int) -> Tensor:
    """y[r] = sum over edges e with receiver r of kernel[e] * x[sender[e]].

    Args:
        kernel: (K, ...) with the shape of one node's features behind it; where there are m K edges, edges e, e + K, ..
            share a kernel.
        x: (N, ...) features.
        sender, receiver: (m K,) indices into x and into the result.
        size: rows of the result.
    """
    gathered = x.index_select(0, sender)
    if len(gathered) != len(kernel):
        messages = (gathered.view(-1, *kernel.shape) * kernel).flatten(0, 1)
    else:
        messages = gathered * kernel
    return messages.new_zeros(size, *messages.shape[1:]).index_add(0, receiver, messages)


@dataclass
class Messages:
    """Who sends to whom, with one kernel for the two directions of a pair where the grid allows it.

    A kernel obeys k(-r, -n) = k(r, n): what edge s → r applies at orientation n, its reverse applies at -n. With
    features stored twice, as they are and with n and -n exchanged, both directions use the same kernel values.

    Args:
        rel: (K, n) displacements whose kernels are wanted.
        sender, receiver: indices into nodes, or into nodes and their exchanged copies when `mirrored`.
        nodes: number of nodes N.
        mirrored: kernels are shared by the directions of a pair.
    """

    rel: Tensor
    sender: Tensor
    receiver: Tensor
    nodes: int
    mirrored: bool

    @classmethod
    def build(cls, rel: Tensor, edge_index: Tensor, nodes: int, mirrored: bool) -> Messages:
        """From the displacements (E, n) of all edges; `mirrored` promises that edges 2p and 2p + 1 are reverses."""
        sender, receiver = edge_index
        if not mirrored:
            return cls(rel, sender, receiver, nodes, False)
        return cls(
            rel[0::2],
            torch.cat([sender[0::2], sender[1::2] + nodes]),
            torch.cat([receiver[0::2], receiver[1::2] + nodes]),
            nodes,
            True,
        )

    def __call__(self, kernel: Tensor, x: Tensor) -> Tensor:
        """Kernel (K, O, C) and features (N, O, C) → (N, O, C)."""
        if not self.mirrored:
            return gather_scale_sum(kernel, x, self.sender, self.receiver, self.nodes)
        both = torch.cat([x, exchange_antipodes(x)])
        y = gather_scale_sum(kernel, both, self.sender, self.receiver, 2 * self.nodes)
        return y[: self.nodes] + exchange_antipodes(y[self.nodes :])

    def directions(self) -> list[tuple[Tensor, Tensor, float]]:
        """(sender, receiver, sign) of the K edges along `rel` and, when mirrored, of the K along its negative."""
        if not self.mirrored:
            return [(self.sender, self.receiver, 1.0)]
        count = len(self.rel)
        return [
            (self.sender[:count], self.receiver[:count], 1.0),
            (self.sender[count:] - self.nodes, self.receiver[count:] - self.nodes, -1.0),
        ]


def exchange_antipodes(x: Tensor) -> Tensor:
    """Values at -n in place of those at n, (N, O, C) with the second half of the O opposite to the first."""
    count = x.shape[1]
    if count == 1:
        return x
    return x.view(x.shape[0], 2, count // 2, x.shape[2]).flip(1).view(x.shape)
