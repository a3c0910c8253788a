"""Depthwise messages along the edges of graphs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plugins.equivariant.layers.factored import FactoredKernel, factored_messages
from plugins.equivariant.layers.gather import gather_scale_sum


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

    def __call__(self, kernel: Tensor | FactoredKernel, x: Tensor) -> Tensor:
        """Kernel (K, O, C) and features (N, O, C) → (N, O, C)."""
        width = x.shape[1] * x.shape[2] // self.halves
        rows = x.reshape(self.halves * self.nodes, width)
        if isinstance(kernel, FactoredKernel):
            return factored_messages(kernel, rows, self.sender, self.receiver).view(x.shape)
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
