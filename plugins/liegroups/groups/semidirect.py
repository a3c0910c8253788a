"""Affine groups R^n x| H: translations with any linear group H. SE(n), Sim(n) and Aff(n) are instances."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from plugins.liegroups.groups.base import LieGroup
from plugins.liegroups.groups.linear import GeneralLinear
from plugins.liegroups.groups.orthogonal import SpecialOrthogonal
from plugins.liegroups.groups.similarity import ScaledRotations
from plugins.liegroups.linalg import phi1


class SemidirectProduct(LieGroup):
    """``(x, h)(x', h') = (x + h x', h h')`` as matrices [[h, x], [0, 1]].

    Coordinates are (x, coordinates of h). The left Haar measure is ``|det h|^-1 dx dmu_H(h)``; the modular function is
    ``|det h|^-1`` for unimodular H.
    """

    def __init__(self, linear: LieGroup, name: str | None = None):
        if linear.rep_dim != linear.space_dim:
            raise ValueError(f"linear: {linear.name} does not act linearly on R^{linear.space_dim}")
        self.linear = linear
        self.space_dim = linear.space_dim
        self.rep_dim = linear.space_dim + 1
        self.dim = linear.space_dim + linear.dim
        self.name = name or f"r{linear.space_dim}_{linear.name}"

    @cached_property
    def basis(self) -> Tensor:
        n = self.space_dim
        basis = torch.zeros(self.dim, n + 1, n + 1, dtype=torch.float64)
        basis[:n, :n, n] = torch.eye(n, dtype=torch.float64)
        basis[n:, :n, :n] = self.linear.basis
        return basis

    def join(self, x: Tensor, h: Tensor) -> Tensor:
        """Translation [..., n] and linear part [..., n, n] -> element [..., n+1, n+1]."""
        top = torch.cat([h, x.unsqueeze(-1)], dim=-1)
        bottom = torch.zeros_like(top[..., :1, :])
        bottom[..., -1] = 1.0
        return torch.cat([top, bottom], dim=-2)

    def split(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Element -> (translation [..., n], linear part [..., n, n])."""
        n = self.space_dim
        return g[..., :n, n], g[..., :n, :n]

    def exp(self, v: Tensor) -> Tensor:
        """``(phi1(A) t, e^A)`` for the algebra element (t, A)."""
        n = self.space_dim
        a = self.linear.hat(v[..., n:])
        x = (phi1(a) @ v[..., :n].unsqueeze(-1)).squeeze(-1)
        return self.join(x, self.linear.exp(v[..., n:]))

    def log(self, g: Tensor) -> Tensor:
        x, h = self.split(g)
        a = self.linear.log(h)
        t = torch.linalg.solve(phi1(self.linear.hat(a)), x.unsqueeze(-1)).squeeze(-1)
        return torch.cat([t, a], dim=-1)

    def inverse(self, g: Tensor) -> Tensor:
        x, h = self.split(g)
        h_inv = self.linear.inverse(h)
        return self.join(-(h_inv @ x.unsqueeze(-1)).squeeze(-1), h_inv)

    def project(self, m: Tensor) -> Tensor:
        x, h = self.split(m)
        return self.join(x, self.linear.project(h))

    def coordinates(self, g: Tensor) -> Tensor:
        x, h = self.split(g)
        return torch.cat([x, self.linear.coordinates(h)], dim=-1)

    def from_coordinates(self, v: Tensor) -> Tensor:
        n = self.space_dim
        return self.join(v[..., :n], self.linear.from_coordinates(v[..., n:]))

    @property
    def feature_dim(self) -> int:
        return self.space_dim + self.linear.feature_dim

    def features(self, g: Tensor) -> Tensor:
        x, h = self.split(g)
        return torch.cat([x, self.linear.features(h)], dim=-1)

    def haar_log_density(self, v: Tensor) -> Tensor:
        linear = v[..., self.space_dim :]
        return self.linear.haar_log_density(linear) - self.linear.log_abs_det(self.linear.from_coordinates(linear))

    def log_modular(self, g: Tensor) -> Tensor:
        h = self.split(g)[1]
        return self.linear.log_modular(h) - self.linear.log_abs_det(h)


def special_euclidean(n: int) -> SemidirectProduct:
    """SE(n) = R^n x| SO(n)."""
    return SemidirectProduct(SpecialOrthogonal(n), f"se{n}")


def similarity(n: int = 2) -> SemidirectProduct:
    """Sim(n) = R^n x| (R+ x SO(n))."""
    return SemidirectProduct(ScaledRotations(n), f"sim{n}")


def affine(n: int = 2) -> SemidirectProduct:
    """Aff+(n) = R^n x| GL+(n)."""
    return SemidirectProduct(GeneralLinear(n), f"aff{n}")
