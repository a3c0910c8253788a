"""GL+(n) and SL(n) in polar coordinates ``g = e^X R``: X symmetric, R a rotation; they cover the whole group.

The matrix logarithm does not: diag(-1, -2) has none. Coordinates list X first, in the Frobenius-orthonormal basis of
symmetric matrices (diagonal entries, then sqrt(2) times the entries above; traceless directions only for SL), then
the rotation in radians. See Mironenco and Forre, Lie Group Decompositions for Equivariant Neural Networks, ICLR 2024.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from plugins.liegroups.groups.base import LieGroup
from plugins.liegroups.groups.orthogonal import SpecialOrthogonal
from plugins.liegroups.linalg import exp_2x2, log_sinhc, polar_log, sym_exp


def symmetric_basis(n: int, traceless: bool = False) -> Tensor:
    """Frobenius-orthonormal basis [d, n, n] (float64) of the symmetric, or traceless symmetric, n x n matrices."""
    matrices = []
    if traceless:
        for k in range(1, n):
            diagonal = torch.zeros(n, dtype=torch.float64)
            diagonal[:k], diagonal[k] = 1.0, -float(k)
            matrices.append(torch.diag(diagonal / math.sqrt(k * (k + 1))))
    else:
        for k in range(n):
            matrices.append(torch.diag(torch.eye(n, dtype=torch.float64)[k]))
    for i in range(n):
        for j in range(i + 1, n):
            m = torch.zeros(n, n, dtype=torch.float64)
            m[i, j] = m[j, i] = 1 / math.sqrt(2)
            matrices.append(m)
    return torch.stack(matrices) if matrices else torch.zeros(0, n, n, dtype=torch.float64)


def polar_log_density(x: Tensor) -> Tensor:
    """``sum_{i<j} log( sinh(x_i - x_j) / (x_i - x_j) )`` of the eigenvalues of symmetric ``x`` [..., n, n].

    The log density of the Haar measure of GL+(n) and SL(n) for ``dX dR``, dX Frobenius-orthonormal Lebesgue measure
    and dR of mass one.
    """
    n = x.shape[-1]
    if n == 2:
        gap2 = (x[..., 0, 0] - x[..., 1, 1]) ** 2 + 4 * x[..., 0, 1] ** 2
        # the gap enters as an even function; the clamp keeps the square root differentiable at a repeated eigenvalue
        return log_sinhc(gap2.clamp_min(torch.finfo(x.dtype).tiny).sqrt())
    values = torch.linalg.eigvalsh(x)
    i, j = torch.triu_indices(n, n, 1, device=x.device)
    return log_sinhc(values[..., i] - values[..., j]).sum(-1)


class _PolarGroup(LieGroup):
    def __init__(self, n: int, traceless: bool):
        if n < 2:
            raise ValueError(f"n={n}: the polar groups need n >= 2")
        self.n = self.rep_dim = self.space_dim = n
        self.rotations = SpecialOrthogonal(n)
        self.symmetric = symmetric_basis(n, traceless)
        self.symmetric_dim = len(self.symmetric)
        self.dim = self.symmetric_dim + self.rotations.dim

    @cached_property
    def basis(self) -> Tensor:
        return torch.cat([self.symmetric, self.rotations.basis])

    def exp(self, v: Tensor) -> Tensor:
        return exp_2x2(self.hat(v)) if self.n == 2 else super().exp(v)

    def split(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """``(X, R)`` with ``g = e^X R``; raises ValueError for a non-positive determinant."""
        return polar_log(g)

    def join(self, x: Tensor, r: Tensor) -> Tensor:
        """``e^X R``."""
        return (exp_2x2(x) if self.n == 2 else sym_exp(x)) @ r

    def symmetric_coordinates(self, x: Tensor) -> Tensor:
        """Symmetric matrix [..., n, n] -> its coordinates [..., symmetric_dim]."""
        return torch.einsum("...ij,dij->...d", x, self.symmetric.to(x))

    def symmetric_matrix(self, v: Tensor) -> Tensor:
        """Inverse of ``symmetric_coordinates``."""
        return torch.einsum("...d,dij->...ij", v, self.symmetric.to(v))

    def coordinates(self, g: Tensor) -> Tensor:
        x, r = self.split(g)
        return torch.cat([self.symmetric_coordinates(x), self.rotations.log(r)], dim=-1)

    def from_coordinates(self, v: Tensor) -> Tensor:
        d = self.symmetric_dim
        return self.join(self.symmetric_matrix(v[..., :d]), self.rotations.exp(v[..., d:]))

    @property
    def feature_dim(self) -> int:
        return self.symmetric_dim + self.rotations.feature_dim

    def features(self, g: Tensor) -> Tensor:
        x, r = self.split(g)
        return torch.cat([self.symmetric_coordinates(x), self.rotations.features(r)], dim=-1)

    def haar_log_density(self, v: Tensor) -> Tensor:
        d = self.symmetric_dim
        return polar_log_density(self.symmetric_matrix(v[..., :d])) + self.rotations.haar_log_density(v[..., d:])

    def log_modular(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g[..., 0, 0])


class GeneralLinear(_PolarGroup):
    """GL+(n), matrices of positive determinant; dim n^2."""

    def __init__(self, n: int):
        super().__init__(n, traceless=False)
        self.name = f"gl{n}"

    def project(self, m: Tensor) -> Tensor:
        """``m`` itself where its determinant is positive, else NaN: the group is open and has no nearest element."""
        return torch.where((torch.linalg.det(m) > 0)[..., None, None], m, torch.full_like(m, torch.nan))


class SpecialLinear(_PolarGroup):
    """SL(n), determinant one; dim n^2 - 1."""

    def __init__(self, n: int):
        super().__init__(n, traceless=True)
        self.name = f"sl{n}"

    def project(self, m: Tensor) -> Tensor:
        """Rescaled to determinant one; NaN where the determinant is not positive."""
        det = torch.linalg.det(m)
        det = torch.where(det > 0, det, torch.full_like(det, torch.nan))
        return m / det[..., None, None] ** (1 / self.n)

    def log_abs_det(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g[..., 0, 0])
