"""The learnt basis shared by the kernels of all layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from plugins.equivariant.bases.polynomial import PolynomialFeatures
from plugins.equivariant.layers.activation import GELU, gelu_linear


class KernelMLP(nn.Module):
    """attributes → monomials → Linear → GELU → Linear → GELU (Bekkers et al., ICLR 2024).

    Args:
        dim: number of attributes.
        hidden: width of the first linear map.
        basis_dim: number of basis functions.
        max_order: of the monomials.
    """

    def __init__(self, dim: int, hidden: int, basis_dim: int, max_order: int = 3) -> None:
        super().__init__()
        self.features = PolynomialFeatures(dim, max_order)
        self.first = nn.Linear(self.features.out_features, hidden)
        self.second = nn.Linear(hidden, basis_dim)
        self.activation = GELU()
        # the distribution of a default linear map of the tensor powers, folded
        bound = 1 / math.sqrt(self.features.tensor_length)
        with torch.no_grad():
            powers = self.first.weight.new_empty(hidden, self.features.tensor_length).uniform_(-bound, bound)
            self.first.weight.copy_(self.features.fold(powers))
            self.first.bias.uniform_(-bound, bound)

    def forward(self, attributes: Tensor) -> Tensor:
        """(..., dim) → (..., basis_dim)."""
        return self.activation(self.hidden(attributes))

    def hidden(self, attributes: Tensor) -> Tensor:
        """The basis functions (..., basis_dim) before their last GELU."""
        features = self.features.leading(attributes).flatten(1)
        # laid out so that the products of its gradients, thin matrices all, are fast ones
        first = torch.addmm(self.first.bias, features.T, self.first.weight.T.contiguous())
        (out,) = gelu_linear(first, [self.second.weight], self.second.bias)
        return out.view(*attributes.shape[:-1], out.shape[1])

    def kernels(self, attributes: Tensor, weights: list[Tensor]) -> list[Tensor]:
        """Linear maps (..., C) of the basis functions, one for each weight (C, basis_dim), in one pass over them."""
        return gelu_linear(self.hidden(attributes), weights)
