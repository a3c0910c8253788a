"""DEIS (Zhang & Chen 2023, arXiv:2204.13902): the linear part exactly, eps extrapolated by a polynomial.

The four members differ in the variable of the polynomial:

* t-AB, the polynomial in a schedule's time: :class:`TimeAB`, here;
* rho-AB, in rho = sigma: :class:`~plugins.generative.solvers.RhoAB`;
* log-rho, in log sigma: ``Exponential(order, prediction="noise")``, built by :func:`log_rho`;
* rho-RK, Runge-Kutta in rho: :class:`~plugins.generative.solvers.RungeKutta`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from ..schedules import NoiseSchedule, VPLinear
from .exponential import Exponential
from .lagrange import lagrange_coefficients
from .multistep import Multistep


@lru_cache(maxsize=4)
def _gauss_legendre(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return 0.5 * (nodes + 1), 0.5 * weights


@dataclass(frozen=True)
class TimeAB(Multistep):
    """t-AB-DEIS: eps extrapolated polynomially in the time of a noise schedule; one evaluation a step.

    Order ``degree + 1`` on any grid (for a smooth schedule).  The weights ``int (d sigma/dt) l_j(t) dt`` are
    integrated by parts, so that only ``sigma_tilde(t)`` is needed, with Gauss-Legendre quadrature in float64.

    Args:
        degree: of the polynomial, 0 to 3 in the paper; 0 is DDIM.
        schedule: whose time it is a polynomial in (of any model, the grid is converted).
        quadrature: number of Gauss-Legendre points for each step.
    """

    degree: int = 3
    schedule: NoiseSchedule = field(default_factory=VPLinear)
    quadrature: int = 48
    prediction = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.degree < 0:
            raise ValueError(f"degree = {self.degree} must not be negative")

    @property
    def order(self) -> int:
        return self.degree + 1

    def weights(self, nodes: tuple[float, ...], target: float) -> tuple[float, Sequence[float]]:
        times = self.schedule.inverse_sigma_tilde(torch.tensor([*nodes, target], dtype=torch.float64)).tolist()
        start, step = times[0], times[-1] - times[0]
        scaled = [(t - start) / step for t in times[:-1]]
        u, quadrature = _gauss_legendre(self.quadrature)
        sigma = self.schedule.sigma_tilde(torch.from_numpy(start + step * u)).numpy()
        # Relative to the target's level, so that what is integrated vanishes at the end of the step.
        excess = quadrature * (sigma - target)
        weights = []
        for row in lagrange_coefficients(scaled):
            slope = np.polynomial.polynomial.polyval(u, [k * c for k, c in enumerate(row)][1:] or [0.0])
            weights.append(-(nodes[0] - target) * row[0] - float(excess @ slope))
        return 1.0, weights


def log_rho(order: int, lower_order_final: bool = False) -> Exponential:
    """DEIS with the polynomial in log rho, as in diffusers' DEIS scheduler; order as given."""
    return Exponential(order, "noise", lower_order_final)
