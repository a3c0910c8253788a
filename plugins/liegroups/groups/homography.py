"""Homographies of the plane, ``x -> (A x + b) / (c^T x + d)``: SL(3) acting projectively.

A homography that keeps the origin finite is ``T_b h``: a translation of the plane times an element h that fixes the
origin. Convolution layers work on images of translations, so they use the group of those h, ``CentredHomographies``.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from plugins.liegroups.groups.base import LieGroup
from plugins.liegroups.groups.linear import GeneralLinear, SpecialLinear


def projective_act(g: Tensor, x: Tensor) -> Tensor:
    """``(A x + b) / (c^T x + d)`` for ``g`` [..., 3, 3] and points ``x`` [..., 2]."""
    moved = (g[..., :2, :2] @ x.unsqueeze(-1)).squeeze(-1) + g[..., :2, 2]
    return moved / _denominator(g, x)[..., None]


def projective_log_jacobian(g: Tensor, x: Tensor) -> Tensor:
    """``log |det g / (c^T x + d)^3|``, the log Jacobian of the projective map."""
    return torch.linalg.slogdet(g).logabsdet - 3 * _denominator(g, x).abs().log()


def _denominator(g: Tensor, x: Tensor) -> Tensor:
    return (g[..., 2, :2] * x).sum(-1) + g[..., 2, 2]


def projective_visible(g: Tensor, x: Tensor) -> Tensor:
    """bool [...]: whether ``x`` lies on the origin's side of the line that ``g`` (with d > 0) sends to infinity."""
    return _denominator(g, x) > 1e-6


class Homographies(SpecialLinear):
    """SL(3) acting on the plane projectively: 8 dimensions, polar coordinates of SL(3)."""

    def __init__(self):
        super().__init__(3)
        self.name = "homography"
        self.space_dim = 2

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        return projective_act(g, x)

    def log_jacobian(self, g: Tensor, x: Tensor) -> Tensor:
        return projective_log_jacobian(g, x)

    def visible(self, g: Tensor, x: Tensor) -> Tensor:
        return projective_visible(g, x)

    def log_abs_det(self, g: Tensor) -> Tensor:
        return projective_log_jacobian(g, torch.zeros_like(g[..., 0, :2]))

    def split_translation(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """``g = T_b h`` -> (b [..., 2], h [..., 3, 3] fixing the origin, normalised to h33 = 1)."""
        g = g / g[..., 2:, 2:]
        b = g[..., :2, 2]
        return b, _remove_translation(g, b)


def _remove_translation(g: Tensor, b: Tensor) -> Tensor:
    """``T_{-b} g``."""
    return torch.cat([g[..., :2, :] - b.unsqueeze(-1) * g[..., 2:, :], g[..., 2:, :]], dim=-2)


class CentredHomographies(LieGroup):
    """Homographies that fix the origin, ``x -> A x / (1 + c^T x)`` with A in GL+(2): 6 dimensions.

    Elements are [[A, 0], [c^T, 1]] and act projectively; coordinates are (c, polar coordinates of A). The left Haar
    measure is ``dc dmu_GL(A)``, the modular function ``|det A|`` in the sense of ``LieGroup.log_modular``. With
    planar translations they make up the homographies, whose Haar measure is ``dx |det A|^-1 dc dmu_GL(A)``.
    """

    name = "centred_homography"
    dim = 6
    rep_dim = 3
    space_dim = 2

    def __init__(self):
        self.linear = GeneralLinear(2)

    @cached_property
    def basis(self) -> Tensor:
        basis = torch.zeros(6, 3, 3, dtype=torch.float64)
        basis[:2, 2, :2] = torch.eye(2, dtype=torch.float64)
        basis[2:, :2, :2] = self.linear.basis
        return basis

    def join(self, c: Tensor, a: Tensor) -> Tensor:
        """c [..., 2] and A [..., 2, 2] -> element [..., 3, 3]."""
        column = torch.zeros_like(torch.cat([c, c[..., :1]], -1))
        column[..., 2] = 1.0
        return torch.cat([torch.cat([a, c.unsqueeze(-2)], dim=-2), column.unsqueeze(-1)], dim=-1)

    def project(self, m: Tensor) -> Tensor:
        m = m / m[..., 2:, 2:]
        return self.join(m[..., 2, :2], self.linear.project(m[..., :2, :2]))

    def coordinates(self, g: Tensor) -> Tensor:
        return torch.cat([g[..., 2, :2], self.linear.coordinates(g[..., :2, :2])], dim=-1)

    def from_coordinates(self, v: Tensor) -> Tensor:
        return self.join(v[..., :2], self.linear.from_coordinates(v[..., 2:]))

    @property
    def feature_dim(self) -> int:
        return 2 + self.linear.feature_dim

    def features(self, g: Tensor) -> Tensor:
        return torch.cat([g[..., 2, :2], self.linear.features(g[..., :2, :2])], dim=-1)

    def haar_log_density(self, v: Tensor) -> Tensor:
        return self.linear.haar_log_density(v[..., 2:])

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        return projective_act(g, x)

    def log_jacobian(self, g: Tensor, x: Tensor) -> Tensor:
        return projective_log_jacobian(g, x)

    def visible(self, g: Tensor, x: Tensor) -> Tensor:
        return projective_visible(g, x)

    def local_element(self, g_inv: Tensor, u: Tensor, h: Tensor) -> Tensor:
        """``T_{-g^-1 u} g^-1 T_u h``, which fixes the origin but depends on u: translations are not normal here.

        The identity where ``u`` is not ``visible`` under g^-1: there the element leaves the component det A > 0.
        """
        top = h[..., :2, :] + u.unsqueeze(-1) * h[..., 2:, :]
        bottom = h[..., 2:, :].expand(*top.shape[:-2], 1, 3)
        k = g_inv @ torch.cat([top, bottom], dim=-2)
        visible = projective_visible(g_inv, u)[..., None, None]
        k = torch.where(visible, k, torch.eye(3, dtype=k.dtype, device=k.device))
        k = k / k[..., 2:, 2:]
        return _remove_translation(k, k[..., :2, 2])

    @property
    def local_element_depends_on_offset(self) -> bool:
        return True
