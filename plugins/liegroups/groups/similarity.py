"""Rotations with one common positive scale: the linear part of the similarities."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from plugins.liegroups.groups.base import LieGroup
from plugins.liegroups.groups.orthogonal import SpecialOrthogonal
from plugins.liegroups.linalg import nearest_rotation


class ScaledRotations(LieGroup):
    """R+ x SO(n), elements ``e^s R``; coordinates (s, rotation). The Haar measure is ``ds dR``, dR of mass one."""

    def __init__(self, n: int = 2):
        self.rotations = SpecialOrthogonal(n)
        self.rep_dim = self.space_dim = self.n = n
        self.dim = 1 + self.rotations.dim
        self.name = f"scaled_so{n}"

    @cached_property
    def basis(self) -> Tensor:
        return torch.cat([torch.eye(self.n, dtype=torch.float64)[None], self.rotations.basis])

    def exp(self, v: Tensor) -> Tensor:
        return v[..., :1, None].exp() * self.rotations.exp(v[..., 1:])

    def log(self, g: Tensor) -> Tensor:
        s = self.log_abs_det(g)[..., None] / self.n
        return torch.cat([s, self.rotations.log(g / s.exp()[..., None])], dim=-1)

    def inverse(self, g: Tensor) -> Tensor:
        return g.mT * (-2 * self.log_abs_det(g) / self.n).exp()[..., None, None]

    def project(self, m: Tensor) -> Tensor:
        r = nearest_rotation(m)
        scale = (m * r).sum((-2, -1)) / self.n
        scale = torch.where(scale > 0, scale, torch.full_like(scale, torch.nan))
        return scale[..., None, None] * r

    @property
    def feature_dim(self) -> int:
        return 1 + self.rotations.feature_dim

    def features(self, g: Tensor) -> Tensor:
        s = self.log_abs_det(g)[..., None] / self.n
        return torch.cat([s, self.rotations.features(g / s.exp()[..., None])], dim=-1)

    def haar_log_density(self, v: Tensor) -> Tensor:
        return self.rotations.haar_log_density(v[..., 1:])

    def log_modular(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g[..., 0, 0])
