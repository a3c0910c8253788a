"""Rotations SO(n). Coordinates are radians: the angle for n = 2, the rotation vector for n = 3."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from plugins.liegroups.groups.base import LieGroup
from plugins.liegroups.linalg import nearest_rotation, rotation_2x2, so3_exp, so3_log, stumpff


class SpecialOrthogonal(LieGroup):
    """SO(n). ``exp``/``log`` are closed for n = 2 and 3; for n >= 4 the logarithm is the general matrix logarithm.

    The Haar measure has total mass one. Coordinates of so(n) refer to the generators ``E_ji - E_ij`` (for n = 3 in the
    order of the cross product), so that they are angles in radians.
    """

    def __init__(self, n: int):
        if n < 2:
            raise ValueError(f"n={n}: rotations need at least two dimensions")
        self.n = self.rep_dim = self.space_dim = n
        self.dim = n * (n - 1) // 2
        self.name = f"so{n}"

    @cached_property
    def basis(self) -> Tensor:
        if self.n == 3:
            pairs = [(1, 2), (2, 0), (0, 1)]
        else:
            pairs = [(i, j) for i in range(self.n) for j in range(i + 1, self.n)]
        basis = torch.zeros(self.dim, self.n, self.n, dtype=torch.float64)
        for k, (i, j) in enumerate(pairs):
            basis[k, j, i], basis[k, i, j] = 1.0, -1.0
        return basis

    def exp(self, v: Tensor) -> Tensor:
        if self.n == 2:
            return rotation_2x2(v[..., 0])
        return so3_exp(v) if self.n == 3 else super().exp(v)

    def log(self, g: Tensor) -> Tensor:
        if self.n == 2:
            return torch.atan2(g[..., 1, 0] - g[..., 0, 1], g[..., 0, 0] + g[..., 1, 1])[..., None]
        return so3_log(g) if self.n == 3 else super().log(g)

    def inverse(self, g: Tensor) -> Tensor:
        return g.mT

    def project(self, m: Tensor) -> Tensor:
        return nearest_rotation(m)

    def log_abs_det(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g[..., 0, 0])

    def log_modular(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g[..., 0, 0])

    @property
    def feature_dim(self) -> int:
        return 2 if self.n == 2 else self.n * self.n

    def features(self, g: Tensor) -> Tensor:
        return g[..., :, 0] if self.n == 2 else g.flatten(-2)

    def haar_log_density(self, v: Tensor) -> Tensor:
        """SO(2): 1/(2 pi); SO(3): (1 - cos w)/(4 pi^2 w^2) in the rotation vector; total mass one on the ball of pi."""
        if self.n == 2:
            return torch.full_like(v[..., 0], -math.log(2 * math.pi))
        if self.n == 3:
            return torch.log(stumpff(2, (v * v).sum(-1))) - math.log(4 * math.pi**2)
        return super().haar_log_density(v) - self.log_volume

    @property
    def log_volume(self) -> float:
        """Log volume of SO(n) for the metric in which the generators ``E_ji - E_ij`` are orthonormal."""
        return sum(math.log(2) + k / 2 * math.log(math.pi) - math.lgamma(k / 2) for k in range(2, self.n + 1))
