"""Random samplers of the Haar measure, each with its importance weight.

A sampler is called as ``sampler(n, generator)`` and returns float64 ``Samples`` on the CPU; ``generator=None`` uses
torch's global generator. ``sampler.group`` is the group sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from plugins.liegroups.groups import GeneralLinear, LieGroup, SpecialLinear, SpecialOrthogonal, polar_log_density
from plugins.liegroups.haar.samples import Samples
from plugins.liegroups.linalg import rotation_2x2, sym_exp


class Sampler(Protocol):
    """Anything that draws ``n`` weighted samples of ``group``."""

    group: LieGroup

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Samples:
        """Draw."""
        ...


def _require_count(n: int) -> None:
    if n < 0:
        raise ValueError(f"n={n}: the number of samples cannot be negative")


def haar_rotations(n_samples: int, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Uniform rotations float64 [n_samples, n, n]: QR of a normal matrix with a positive diagonal of R."""
    m = torch.randn(n_samples, n, n, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(m)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    flip = torch.ones(n_samples, n, dtype=torch.float64)
    flip[:, -1] = torch.linalg.det(q).sign()
    return q * flip.unsqueeze(-2)


def stratified_angles(n: int, generator: torch.Generator | None = None) -> Tensor:
    """n equidistant angles in [-pi, pi), the end point excluded, with one common uniform offset."""
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    return -math.pi + 2 * math.pi * (torch.arange(n, dtype=torch.float64) + offset) / max(n, 1)


class HaarUniformSO:
    """Uniform rotations of SO(n) of total mass one; ``stratified`` (n = 2): a regular grid with one random offset."""

    def __init__(self, n: int, stratified: bool = False):
        if stratified and n != 2:
            raise ValueError(f"stratified rotations exist for n=2 only, got n={n}")
        self.group = SpecialOrthogonal(n)
        self.stratified = stratified

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Samples:
        _require_count(n)
        if self.stratified:
            r = rotation_2x2(stratified_angles(n, generator))
        else:
            r = haar_rotations(n, self.group.n, generator)
        return Samples(r, r.mT, torch.zeros(n, dtype=torch.float64))


class _PolarSampler:
    """Draws the symmetric factor in a subclass, the rotation uniformly; the inverse comes free as R^T e^-X."""

    def __init__(self, group: GeneralLinear | SpecialLinear, stratified: bool = False):
        if not isinstance(group, (GeneralLinear, SpecialLinear)):
            raise ValueError(f"group={group.name}: this sampler needs the polar coordinates of GL+(n) or SL(n)")
        self.group = group
        self.rotations = HaarUniformSO(group.n, stratified)

    def symmetric(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """-> (coordinates of X [n, d], log of the sampling density [n])."""
        raise NotImplementedError

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Samples:
        _require_count(n)
        v, log_q = self.symmetric(n, generator)
        x = self.group.symmetric_matrix(v)
        r = self.rotations(n, generator).g
        return Samples(sym_exp(x) @ r, r.mT @ sym_exp(-x), polar_log_density(x) - log_q)


class LogNormalSPD(_PolarSampler):
    """X = Y/2 with Y normal of ``variance`` in orthonormal coordinates, so S = e^Y is log-normal; rotation uniform.

    The weights ``prod sinhc / q`` are unbounded: prefer ``PolarBall`` where the estimate matters.
    """

    def __init__(self, group: GeneralLinear | SpecialLinear, variance: float = 0.1, stratified: bool = False):
        super().__init__(group, stratified)
        if not variance > 0:
            raise ValueError(f"variance={variance} must be positive")
        self.std = math.sqrt(variance) / 2

    def symmetric(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        v = self.std * torch.randn(n, self.group.symmetric_dim, generator=generator, dtype=torch.float64)
        log_q = -0.5 * (v / self.std).square().sum(-1) - v.shape[-1] * math.log(self.std * math.sqrt(2 * math.pi))
        return v, log_q


class PolarBall(_PolarSampler):
    """X uniform in the Frobenius ball of ``radius``, rotation uniform; bounded weights ``volume * prod sinhc``."""

    def __init__(self, group: GeneralLinear | SpecialLinear, radius: float = 0.5, stratified: bool = False):
        super().__init__(group, stratified)
        if not radius > 0:
            raise ValueError(f"radius={radius} must be positive")
        self.radius = radius

    def symmetric(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        d = self.group.symmetric_dim
        v = uniform_ball(n, d, generator) * self.radius
        return v, torch.full((n,), -ball_log_volume(d, self.radius), dtype=torch.float64)


class HaarBallSL2:
    """Exactly Haar-uniform on the ball ``||g||_op <= e^A`` of SL(2): constant weight ``2 pi sinh^2 A``.

    ``cosh 2a = 1 + U (cosh 2A - 1)``, ``g = R(phi) diag(e^a, e^-a) R(theta)``.
    """

    def __init__(self, log_norm: float = 0.5):
        if not log_norm > 0:
            raise ValueError(f"log_norm={log_norm} must be positive")
        self.group = SpecialLinear(2)
        self.log_norm = log_norm

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Samples:
        _require_count(n)
        u = torch.rand(3, n, generator=generator, dtype=torch.float64)
        # cosh 2a - 1 = 2 sinh^2 a: no cancellation for small balls
        a = torch.asinh(u[0].sqrt() * math.sinh(self.log_norm))
        left, right = rotation_2x2(2 * math.pi * u[1]), rotation_2x2(2 * math.pi * u[2])
        stretch = torch.stack([a.exp(), (-a).exp()], -1)
        g = (left * stretch.unsqueeze(-2)) @ right
        g_inv = (right.mT * (1 / stretch).unsqueeze(-2)) @ left.mT
        volume = 2 * math.pi * math.sinh(self.log_norm) ** 2
        return Samples(g, g_inv, torch.full((n,), math.log(volume), dtype=torch.float64))


class CoordinateBox:
    """Uniform in a box of the group's coordinates, any group; weight = box volume times the Haar density.

    ``half_widths``: one number for every coordinate, or one for each.
    """

    def __init__(self, group: LieGroup, half_widths: float | Sequence[float]):
        widths = [half_widths] * group.dim if isinstance(half_widths, (int, float)) else list(half_widths)
        if len(widths) != group.dim or min(widths, default=1.0) <= 0:
            raise ValueError(f"half_widths={half_widths}: {group.name} needs {group.dim} positive numbers, or one")
        self.group = group
        self.half_widths = torch.tensor(widths, dtype=torch.float64)

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Samples:
        _require_count(n)
        v = (2 * torch.rand(n, self.group.dim, generator=generator, dtype=torch.float64) - 1) * self.half_widths
        g = self.group.from_coordinates(v)
        log_volume = (2 * self.half_widths).log().sum()
        return Samples(g, self.group.inverse(g), self.group.haar_log_density(v) + log_volume)


class CoordinateNormal:
    """Normal coordinates of standard deviation ``std``, any group; weight = Haar density over the normal density.

    Covers the chart without a boundary, at the price of unbounded weights. Draws outside the chart (angles beyond pi)
    would count elements twice: they get weight zero.
    """

    def __init__(self, group: LieGroup, std: float = 0.5):
        if not std > 0:
            raise ValueError(f"std={std} must be positive")
        self.group, self.std = group, std

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Samples:
        _require_count(n)
        v = self.std * torch.randn(n, self.group.dim, generator=generator, dtype=torch.float64)
        log_q = -0.5 * (v / self.std).square().sum(-1) - self.group.dim * math.log(self.std * math.sqrt(2 * math.pi))
        g = self.group.from_coordinates(v)
        inside = (self.group.coordinates(g) - v).abs().amax(-1) < 1e-6 if self.group.dim else log_q.isfinite()
        log_weight = torch.where(inside, self.group.haar_log_density(v) - log_q, -torch.inf)
        return Samples(g, self.group.inverse(g), log_weight)


class ProductSampler:
    """Semidirect product: translations uniform in a cube of ``half_width``, the linear part from its own sampler.

    ``group`` is a ``SemidirectProduct`` over ``linear.group``; the weight carries ``|det h|^-1`` and the cube's volume.
    """

    def __init__(self, group: LieGroup, linear: Sampler, half_width: float = 1.0):
        if getattr(group, "linear", None) is None or group.linear.name != linear.group.name:
            raise ValueError(f"group={group.name} is not a semidirect product over {linear.group.name}")
        if not half_width > 0:
            raise ValueError(f"half_width={half_width} must be positive")
        self.group, self.linear, self.half_width = group, linear, half_width

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Samples:
        h = self.linear(n, generator)
        d = self.group.space_dim
        x = (2 * torch.rand(n, d, generator=generator, dtype=torch.float64) - 1) * self.half_width
        g = self.group.join(x, h.g)
        g_inv = self.group.join(-(h.g_inv @ x.unsqueeze(-1)).squeeze(-1), h.g_inv)
        log_weight = h.log_weight - self.linear.group.log_abs_det(h.g) + d * math.log(2 * self.half_width)
        return Samples(g, g_inv, log_weight)


def uniform_ball(n: int, d: int, generator: torch.Generator | None = None) -> Tensor:
    """n points float64 [n, d] uniform in the unit ball of R^d."""
    direction = torch.randn(n, d, generator=generator, dtype=torch.float64)
    direction = direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    return direction * torch.rand(n, 1, generator=generator, dtype=torch.float64) ** (1 / d)


def ball_log_volume(d: int, radius: float = 1.0) -> float:
    """Log volume of the ball of ``radius`` in R^d."""
    return d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1) + d * math.log(radius)
