"""Volumes known in closed form or by quadrature, against which samplers and densities are held."""

from __future__ import annotations

import math

import numpy as np

from plugins.liegroups.haar.samplers import ball_log_volume


def polar_ball_volume(n: int, radius: float = 1.0, traceless: bool = False, nodes: int = 64) -> float:
    """Haar volume of ``{e^X R : ||X||_F <= radius}`` in SL(n) (``traceless``) or GL+(n), n = 2 or 3.

    X has Frobenius-orthonormal Lebesgue measure and SO(n) mass one. SL(2) in closed form,
    ``pi (cosh(sqrt 2 radius) - 1)``; otherwise Gauss-Legendre quadrature over the eigenvalues, whose measure is
    ``const * prod |x_i - x_j| dx``, the constant fixed by the volume of the Euclidean ball.
    """
    if not radius > 0:
        raise ValueError(f"radius={radius} must be positive")
    if n == 2 and traceless:
        return math.pi * (math.cosh(math.sqrt(2) * radius) - 1)
    if n not in (2, 3):
        raise ValueError(f"n={n}: quadrature is offered for n=2 and 3; integrate with PolarBall for other n")
    t, w = np.polynomial.legendre.leggauss(nodes)
    radial = (t + 1) / 2 * radius, w / 2 * radius
    polar = _panels(12, 12)
    basis = _eigenvalue_frame(n)[1 if traceless else 0 :]
    if len(basis) == 2:
        r, a = np.meshgrid(radial[0], polar[0], indexing="ij")
        weight = np.outer(radial[1], polar[1]) * r
        coordinates = [r * np.cos(a), r * np.sin(a)]
    else:
        r, a, c = np.meshgrid(radial[0], polar[0], t, indexing="ij")
        weight = np.einsum("i,j,k->ijk", radial[1], polar[1], w) * r * r
        s = np.sqrt(1 - c * c)
        coordinates = [r * c, r * s * np.cos(a), r * s * np.sin(a)]
    x = sum(np.multiply.outer(e, c) for e, c in zip(basis, coordinates, strict=True))
    plain, haar = np.ones_like(weight), np.ones_like(weight)
    for i in range(n):
        for j in range(i + 1, n):
            gap = np.abs(x[i] - x[j])
            plain, haar = plain * gap, haar * np.sinh(gap)
    dimension = n * (n + 1) // 2 - (1 if traceless else 0)
    return float((haar * weight).sum() / (plain * weight).sum() * math.exp(ball_log_volume(dimension, radius)))


def _panels(panels: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Composite Gauss-Legendre rule on [0, 2 pi]: in these frames eigenvalues cross at multiples of pi/6 only."""
    t, w = np.polynomial.legendre.leggauss(nodes)
    half = math.pi / panels
    starts = 2 * half * np.arange(panels)
    return (starts[:, None] + half * (t + 1)).ravel(), np.tile(w * half, panels)


def _eigenvalue_frame(n: int) -> list[np.ndarray]:
    """Orthonormal frame of R^n that starts with the trace direction."""
    frame = [np.ones(n) / math.sqrt(n)]
    for k in range(1, n):
        v = np.zeros(n)
        v[:k], v[k] = 1.0, -float(k)
        frame.append(v / math.sqrt(k * (k + 1)))
    return frame


def sl2_ball_volume(log_norm: float) -> float:
    """Haar volume ``2 pi sinh^2 A`` of ``{g in SL(2): ||g||_op <= e^A}``."""
    return 2 * math.pi * math.sinh(log_norm) ** 2


def sl2_fraction_without_log(log_norm: float) -> float:
    """Share of that ball without a real logarithm: ``(gd(A) cosh^2 A - sinh A) / (pi sinh^2 A)``, gd = arctan sinh."""
    s, c = math.sinh(log_norm), math.cosh(log_norm)
    return (math.atan(s) * c * c - s) / (math.pi * s * s)


def rotation_group_volume(n: int) -> float:
    """Volume of SO(n) for the Frobenius metric; the generators ``E_ji - E_ij`` have length sqrt 2.

    The constant between the polar measure ``prod sinhc dX dR`` (dR of mass one) and ``dg / |det g|^n``.
    """
    plain = sum(math.log(2) + k / 2 * math.log(math.pi) - math.lgamma(k / 2) for k in range(2, n + 1))
    return math.exp(plain + n * (n - 1) / 4 * math.log(2))


def spd_constant(n: int) -> float:
    """``c_n = pi^{n^2/2} / (2 Gamma_n(n/2))``: ``dg/|det g|^n = c_n det(S)^{-(n+1)/2} dS dR`` with S = g g^T."""
    log_gamma_n = n * (n - 1) / 4 * math.log(math.pi) + sum(math.lgamma((n - j) / 2) for j in range(n))
    return 0.5 * math.exp(n * n / 2 * math.log(math.pi) - log_gamma_n)
