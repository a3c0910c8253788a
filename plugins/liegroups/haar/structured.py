"""Structured samples: quadrature rules on a group instead of random points.

Like the samplers of ``haar.samplers`` they are called as ``sampler(n, generator)``; the number of points is fixed by
the rule, so ``n`` may be None and must agree otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from plugins.liegroups.groups import LieGroup
from plugins.liegroups.haar.samplers import ball_log_volume
from plugins.liegroups.haar.samples import Samples, samples_of


class _Rule:
    """A fixed set of samples."""

    group: LieGroup
    samples: Samples

    def __call__(self, n: int | None = None, generator: torch.Generator | None = None) -> Samples:
        if n is not None and n != len(self.samples):
            raise ValueError(f"n={n}: this rule has exactly {len(self.samples)} points; pass n=None")
        return self.samples


class StarGrid(_Rule):
    """Equidistant rotations times a star of stretches, for planar groups whose last coordinate is the angle.

    The other d coordinates take the centre and the points ``+-r_i e_i`` on every axis: the cubature of degree 3 for
    the ball of ``radius`` (an ellipsoid when one radius is given for each coordinate), with
    ``r = radius sqrt((d+2)/(d+4))`` and weights 4/(d+2)^2 (centre), (d+4)/(2 (d+2)^2) (others) of the ball's volume,
    times the Haar density. For SL(2) and GL+(2) the set is closed under inversion and under the rotations
    themselves whenever ``rotations`` is a multiple of 4 and at most 8, because conjugation by 45 degrees permutes the
    axes of the traceless plane; GL+(2) takes (trace, traceless) axes, not the diagonal entries.
    """

    def __init__(self, group: LieGroup, rotations: int = 8, radius: float | Sequence[float] = 0.35):
        if rotations < 1:
            raise ValueError(f"rotations={rotations} must be at least 1")
        d = group.dim - 1
        radii = [radius] * d if isinstance(radius, (int, float)) else list(radius)
        if len(radii) != d or min(radii, default=1.0) <= 0:
            raise ValueError(f"radius={radius}: {group.name} needs {d} positive numbers, or one")
        if group.space_dim != 2:
            raise ValueError(f"group={group.name}: the star grid is for groups of the plane")
        self.group = group
        axes = _star_axes(group, torch.tensor(radii, dtype=torch.float64))
        step = math.sqrt((d + 2) / (d + 4))
        points = torch.cat([torch.zeros(1, d, dtype=torch.float64), step * axes, -step * axes])
        share = torch.tensor([4 / (d + 2) ** 2] + [(d + 4) / (2 * (d + 2) ** 2)] * (2 * d), dtype=torch.float64)
        angles = 2 * math.pi * torch.arange(rotations, dtype=torch.float64) / rotations
        angles = torch.where(angles > math.pi, angles - 2 * math.pi, angles)
        v = torch.cat(
            [points.repeat_interleave(rotations, 0), angles.repeat(len(points))[:, None]],
            dim=-1,
        )
        volume = ball_log_volume(d) + sum(math.log(r) for r in radii) + math.log(2 * math.pi)
        # samples average: a share of the volume is multiplied by the number of points
        log_weight = share.repeat_interleave(rotations).log() + math.log(len(points)) + volume
        self.samples = samples_of(group, group.from_coordinates(v), log_weight + group.haar_log_density(v))


def _star_axes(group: LieGroup, radii: Tensor) -> Tensor:
    """Axes [d, d] of the star: the coordinate axes, with diagonal entries of GL turned into (trace, deviator)."""
    axes = torch.diag(radii)
    start = _diagonal_start(group)
    if start is not None:
        turn = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
        axes[start : start + 2, start : start + 2] = radii[start : start + 2, None] * turn
    return axes


def _diagonal_start(group: LieGroup) -> int | None:
    """First coordinate of a pair of diagonal entries in the coordinates of ``group``, if it has one."""
    basis = group.basis
    for k in range(group.dim - 2):
        first, second = basis[k], basis[k + 1]
        if first[0, 0] == 1 and first.abs().sum() == 1 and second[1, 1] == 1 and second.abs().sum() == 1:
            return k
    return None


class CoordinateGrid(_Rule):
    """Tensor grid in the coordinates of any group: Gauss-Legendre, or equidistant on periodic coordinates.

    ``counts``: points for each coordinate; ``half_widths``: half width of each interval (pi for a full circle);
    ``periodic``: which coordinates are angles on a full circle (end point excluded).
    """

    def __init__(
        self, group: LieGroup, counts: Sequence[int], half_widths: Sequence[float], periodic: Sequence[bool]
    ):  # fmt: skip
        if not len(counts) == len(half_widths) == len(periodic) == group.dim:
            raise ValueError(f"counts, half_widths and periodic: {group.name} needs {group.dim} entries of each")
        nodes, weights = [], []
        for count, width, is_angle in zip(counts, half_widths, periodic, strict=True):
            if count < 1 or not width > 0:
                raise ValueError(f"counts={list(counts)}, half_widths={list(half_widths)}: all must be positive")
            if is_angle:
                t = np.arange(count) * 2.0 / count
                t, w = np.where(t > 1, t - 2, t), np.full(count, 2.0 / count)
            else:
                t, w = np.polynomial.legendre.leggauss(count)
            nodes.append(torch.from_numpy(width * t))
            weights.append(torch.from_numpy(np.log(width * w)))
        self.group = group
        v = torch.cartesian_prod(*nodes).reshape(-1, group.dim)
        log_w = torch.cartesian_prod(*weights).reshape(-1, group.dim).sum(-1) + math.log(len(v))
        self.samples = samples_of(group, group.from_coordinates(v), log_w + group.haar_log_density(v))


class FiniteGroupRule(_Rule):
    """Every element of a finite group (``Cyclic``, ``Dihedral``), with the normalised counting measure."""

    def __init__(self, group: LieGroup):
        if getattr(group, "elements", None) is None:
            raise ValueError(f"group={group.name} is not finite: use a sampler or another rule")
        self.group = group
        self.samples = samples_of(group, group.elements)
