"""Zonal convolution over a grid of orientations, by way of harmonics: transform, multiply, transform back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from plugins.equivariant.bases.zonal import angular_functions, zonal_polynomials
from plugins.equivariant.geometry.grids import Float64Buffers, Grid


class HarmonicFilter(NamedTuple):
    """z(n) = sum_m w_m k(n, m) y(m) for functions y (N, O, C) on a grid, in M harmonics.

    Args:
        analysis: (M, O), harmonics times quadrature weights.
        synthesis: (O, M), harmonics.
        factor: (M, C) of each harmonic, and
        turn: (M, C) of its partner, sine for cosine and minus cosine for sine, for kernels in the plane that are not
            even; or None.
    """

    analysis: Tensor
    synthesis: Tensor
    factor: Tensor
    turn: Tensor | None

    def __call__(self, y: Tensor) -> Tensor:
        coefficients = torch.bmm(self.analysis.expand(len(y), -1, -1), y)
        out = coefficients * self.factor
        if self.turn is not None:
            cosine, sine = coefficients[:, 1::2], coefficients[:, 2::2]
            partner = torch.stack([sine, -cosine], 2).flatten(1, 2)
            out = torch.cat([out[:, :1], out[:, 1:] + partner * self.turn[1:]], 1)
        return torch.bmm(self.synthesis.expand(len(y), -1, -1), out)


class ZonalFiber(Float64Buffers):
    """The basis of zonal kernels over orientations, and their convolution as products of harmonic coefficients.

    On a grid, each of the `zonal_polynomials` of two orientations is a matrix (O, O). In three dimensions its rank is
    at most 2 l + 1, by the addition theorem: it is H H^T for as many harmonics H, here its own eigenvectors. In the
    plane the harmonics are cosines and sines, which the even kernels keep and the odd ones turn into each other.

    Args:
        grid: orientations and weights.
        degree: highest harmonic.
    """

    values: Tensor
    harmonics: Tensor
    analysis: Tensor
    owner: Tensor

    def __init__(self, grid: Grid, degree: int) -> None:
        super().__init__()
        points, weights = grid.points.double(), grid.weights.double()
        self.n = points.shape[1]
        self.angles = angular_functions(self.n, degree)
        # (receiver, sender)
        values = zonal_polynomials(points, points, degree, soft=0).transpose(0, 1).contiguous()
        columns, owners = [], []
        if self.n == 2:
            angle = torch.atan2(points[:, 1], points[:, 0])
            columns.append(torch.ones_like(angle)[:, None])
            owners.append(0)
            for order in range(1, degree + 1):
                wave = torch.stack([(order * angle).cos(), (order * angle).sin()], -1)
                columns.append(wave * 2**0.25)  # sqrt(2) cos(l (m - n)) is the product of two
                owners += [2 * order - 1] * 2
        else:
            for order in range(degree + 1):
                eigenvalues, vectors = torch.linalg.eigh(values[..., order])
                kept = min(2 * order + 1, len(points))
                columns.append(vectors[:, -kept:] * eigenvalues[-kept:].clamp_min(0).sqrt())
                owners += [order] * kept
        harmonics = torch.cat(columns, 1)
        self.register_buffer("values", values * weights[:, None])
        self.register_buffer("harmonics", harmonics)
        self.register_buffer("analysis", (harmonics * weights[:, None]).T.contiguous())
        self.register_buffer("owner", torch.tensor(owners))

    def forward(self) -> Tensor:
        """Basis functions of every two orientations times the quadrature weight of the second, (O, O, A)."""
        return self.values

    def filters(self, weights: list[Tensor]) -> list[HarmonicFilter]:
        """Convolutions by linear maps of the basis functions, one for each weight (C, A)."""
        analysis, synthesis = self.analysis.to(weights[0]), self.harmonics.to(weights[0])
        factors = [weight.T.index_select(0, self.owner) for weight in weights]
        turns: list[Tensor | None] = [None] * len(weights)
        if self.n == 2:
            odd = (self.owner + 1).clamp_max(self.angles - 1)
            turns = [weight.T.index_select(0, odd) for weight in weights]
        return [HarmonicFilter(analysis, synthesis, *pair) for pair in zip(factors, turns, strict=True)]
