"""Finite groups C_N and D_N of the plane: the regular group convolution as an exact special case of the layers.

They have dimension zero, so kernels see an element through its one-hot index and "integration" is a finite sum.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from plugins.liegroups.groups.base import LieGroup
from plugins.liegroups.linalg import rotation_2x2


class _FinitePlanarGroup(LieGroup):
    dim = 0
    rep_dim = 2
    space_dim = 2

    @cached_property
    def elements(self) -> Tensor:
        """All elements, float64 [order, 2, 2], the identity first."""
        raise NotImplementedError

    @property
    def order(self) -> int:
        """Number of elements."""
        return len(self.elements)

    @property
    def basis(self) -> Tensor:
        return torch.zeros(0, 2, 2, dtype=torch.float64)

    def inverse(self, g: Tensor) -> Tensor:
        return g.mT

    def index(self, g: Tensor) -> Tensor:
        """Position [...] of each ``g`` in ``elements`` (that of the nearest element)."""
        return torch.einsum("...ij,kij->...k", g, self.elements.to(g)).argmax(-1)

    def project(self, m: Tensor) -> Tensor:
        return self.elements.to(m)[self.index(m)]

    def coordinates(self, g: Tensor) -> Tensor:
        return g.new_zeros(*g.shape[:-2], 0)

    def from_coordinates(self, v: Tensor) -> Tensor:
        return torch.eye(2, dtype=v.dtype, device=v.device).expand(*v.shape[:-1], 2, 2)

    @property
    def feature_dim(self) -> int:
        return self.order

    def features(self, g: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.index(g), self.order).to(g.dtype)

    def haar_log_density(self, v: Tensor) -> Tensor:
        """The normalised counting measure: every element has mass 1 / order."""
        return torch.full(v.shape[:-1], -math.log(self.order), dtype=v.dtype, device=v.device)

    def log_abs_det(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g[..., 0, 0])

    def log_modular(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g[..., 0, 0])


class Cyclic(_FinitePlanarGroup):
    """C_N: rotations by multiples of 2 pi / N."""

    def __init__(self, n: int):
        if n < 1:
            raise ValueError(f"n={n}: C_N needs N >= 1")
        self.n = n
        self.name = f"c{n}"

    @cached_property
    def elements(self) -> Tensor:
        return rotation_2x2(2 * math.pi * torch.arange(self.n, dtype=torch.float64) / self.n)


class Dihedral(_FinitePlanarGroup):
    """D_N: the rotations of C_N and the same composed with the reflection of the second axis."""

    def __init__(self, n: int):
        if n < 1:
            raise ValueError(f"n={n}: D_N needs N >= 1")
        self.n = n
        self.name = f"d{n}"

    @cached_property
    def elements(self) -> Tensor:
        rotations = Cyclic(self.n).elements
        return torch.cat([rotations, rotations @ torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))])
