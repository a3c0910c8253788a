"""Monomials of an attribute vector."""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn


class PolynomialFeatures(nn.Module):
    """All monomials of orders 1 .. `max_order` of `dim` attributes, without the constant, each once.

    The tensor powers of the attribute vector, as the published code stacks them, hold d + d^2 + .. + d^D entries
    (14 for d = 2, D = 3; 3 for d = 1) of which most repeat; a linear map of the powers is a linear map of the
    monomials whose columns are sums. `fold` does the sums.

    Args:
        dim: number of attributes d.
        max_order: highest order D, at least 1.
    """

    def __init__(self, dim: int, max_order: int = 3) -> None:
        super().__init__()
        if dim < 1 or max_order < 1:
            raise ValueError(f"dim and max_order must be at least 1, not {dim} and {max_order}")
        self.dim, self.max_order = dim, max_order
        self.monomials = [m for k in range(1, max_order + 1) for m in combinations_with_replacement(range(dim), k)]
        self.tensor_length = sum(dim**k for k in range(1, max_order + 1))

    @property
    def out_features(self) -> int:
        return len(self.monomials)

    def forward(self, attributes: Tensor) -> Tensor:
        """(..., d) → (..., number of monomials), ordered by order and then lexicographically."""
        return self.leading(attributes).movedim(0, -1)

    def leading(self, attributes: Tensor) -> Tensor:
        """The same with the monomials in front, (number of monomials, ...)."""
        known: dict[tuple[int, ...], Tensor] = {(i,): a for i, a in enumerate(attributes.unbind(-1))}
        for monomial in self.monomials:
            if monomial not in known:
                known[monomial] = known[monomial[:-1]] * known[monomial[-1:]]
        return torch.stack([known[m] for m in self.monomials])

    def fold(self, weight: Tensor) -> Tensor:
        """Turn the weight (out, tensor_length) of a linear map of tensor powers into one (out, out_features)."""
        if weight.shape[-1] != self.tensor_length:
            raise ValueError(f"weight must have {self.tensor_length} columns, not {weight.shape[-1]}")
        position = {m: k for k, m in enumerate(self.monomials)}
        columns = []
        for order in range(1, self.max_order + 1):
            grid = torch.cartesian_prod(*[torch.arange(self.dim)] * order).reshape(-1, order)
            columns += [position[tuple(sorted(row.tolist()))] for row in grid]
        index = torch.tensor(columns, device=weight.device)
        return weight.new_zeros(weight.shape[0], len(position)).index_add(1, index, weight)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, max_order={self.max_order}, out_features={self.out_features}"
