"""Sums of edge values at their nodes."""

from __future__ import annotations

from torch import Tensor


def scatter_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum rows of `values` (E, ...) that share an `index` (E,) into (size, ...); rows nobody names are zero.

    Differentiable any number of times: the derivative of a sum at nodes is a gather, and the reverse.
    """
    return values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)
