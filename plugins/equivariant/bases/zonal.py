"""Kernels expanded in zonal harmonics: learnt functions of the length, known functions of the angle."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plugins.equivariant.bases.mlp import KernelMLP
from plugins.equivariant.geometry.invariants import quarter_turn
from plugins.equivariant.layers.activation import gelu_linear
from plugins.equivariant.layers.factored import FactoredKernel


def angular_functions(n: int, degree: int) -> int:
    """How many `zonal_polynomials` there are up to a degree, which must be at least 1."""
    if degree < 1:
        raise ValueError(f"degree must be at least 1, not {degree}: harmonics of degree 0 see no orientation")
    return degree + 1 if n == 3 else 2 * degree + 1


def zonal_polynomials(rel: Tensor, points: Tensor, degree: int, soft: float = 0.25) -> Tensor:
    """Polynomials of a displacement that depend on its length and its angle to an orientation alone.

    With u = r / sqrt(|r|^2 + soft^2), which has the direction of r and a length below one:
        n = 3: sqrt(2l + 1) |u|^l P_l(cos), l = 0 .. degree, Legendre polynomials, the zonal spherical harmonics;
        n = 2: 1, sqrt(2) |u|^l cos(l a), sqrt(2) |u|^l sin(l a), l = 1 .. degree, with a the angle from n to r.
    They are polynomials of u, and so smooth everywhere, at r = 0 and along n too; at |u| = 1 they are orthonormal over
    directions. (r, n) and (-r, -n) look the same.

    Args:
        rel: (K, n) displacements r.
        points: (O, n) unit orientations n.
        degree: highest l, at least 1.
        soft: length below which directions fade; 0 for r that are unit vectors.

    Returns:
        (K, O, degree + 1) for n = 3, (K, O, 2 degree + 1) for n = 2.
    """
    angular_functions(rel.shape[-1], degree)
    square = rel.square().sum(-1, keepdim=True)
    if soft:
        scale = (square + soft**2).rsqrt()
        rel, square = rel * scale, square * scale.square()
    along = rel @ points.T
    if rel.shape[-1] == 2:
        across = rel @ quarter_turn(points).T
        found, cosine, sine = [torch.ones_like(along)], along, across
        for _ in range(degree):
            found += [math.sqrt(2) * cosine, math.sqrt(2) * sine]
            cosine, sine = cosine * along - sine * across, sine * along + cosine * across
        return torch.stack(found, -1)
    legendre = [torch.ones_like(along), along]
    for order in range(1, degree):
        # (l + 1) P_{l+1} = (2l + 1) x P_l - l P_{l-1}, made homogeneous of degree l + 1
        step = (2 * order + 1) * along * legendre[order] - order * square * legendre[order - 1]
        legendre.append(step / (order + 1))
    return torch.stack([math.sqrt(2 * order + 1) * p for order, p in enumerate(legendre)], -1)


class ZonalAttributes(NamedTuple):
    """What a zonal kernel sees of pairs: lengths (K, 1) and angular functions (K, O, A)."""

    length: Tensor
    angular: Tensor

    def windowed(self, window: Tensor) -> ZonalAttributes:
        """Attributes whose kernels are those of these times a window (K, 1, 1)."""
        return ZonalAttributes(self.length, self.angular * window)


class ZonalBasis(nn.Module):
    """k(r, n) = sum_l R_l(|r|) P_l(cos), with R_l linear in a learnt basis of functions of the length.

    A kernel on R^n x S^(n-1) that shares its weights depends on r and n through |r| and the angle between them, so
    the expansion leaves out nothing but angular detail beyond its degree, which a coarse grid of orientations
    cannot turn with the cloud anyhow. By the addition theorem, P_l(cos) is proportional to sum_m Y_lm(r) Y_lm(n): on
    scalar fields these are the filters of tensor-field networks (Thomas et al., arXiv:1802.08219, eq. 9). The network
    that learns the basis sees a pair once, where a KernelMLP sees it once for each orientation.

    Args:
        n: dimension, 2 or 3.
        hidden, basis_dim, max_order: of the KernelMLP of lengths.
        degree: highest harmonic.
    """

    def __init__(self, n: int, hidden: int, basis_dim: int, max_order: int = 3, degree: int = 2) -> None:
        super().__init__()
        self.angles = angular_functions(n, degree)
        self.radial = KernelMLP(1, hidden, basis_dim, max_order)

    @property
    def out_features(self) -> int:
        return self.angles * self.radial.second.out_features

    def forward(self, at: ZonalAttributes) -> Tensor:
        """(K, O, A B): products of angular and radial functions."""
        return (at.angular[..., None] * self.radial(at.length)[:, None, None]).flatten(-2)

    def kernels(self, at: ZonalAttributes, weights: list[Tensor]) -> list[FactoredKernel]:
        """Linear maps (K, O, C) of the products, one for each weight (C, A B), without making the products."""
        by_angle = [w.unflatten(1, (self.angles, -1)).transpose(0, 1).flatten(0, 1) for w in weights]
        radial = gelu_linear(self.radial.hidden(at.length), by_angle)
        return [FactoredKernel(at.angular, r.unflatten(1, (self.angles, -1))) for r in radial]
