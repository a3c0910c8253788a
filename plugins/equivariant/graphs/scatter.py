"""Sums of edge values at their nodes."""

from __future__ import annotations

from torch import Tensor


def scatter_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum rows of `values` (E, ...) that share an `index` (E,) into (size, ...); rows nobody names are zero.

    Differentiable any number of times: the derivative of a sum at nodes is a gather, and the reverse.
    """
    return values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)


def centre(pos: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
    """(N, n) positions less the mean of their graph: the projection onto the subspace without centre of mass."""
    count = scatter_sum(pos.new_ones(len(pos), 1), batch, num_graphs).clamp_min(1)
    return pos - (scatter_sum(pos, batch, num_graphs) / count)[batch]
