"""Euler's method, which is DDIM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .multistep import Multistep


@dataclass(frozen=True)
class Euler(Multistep):
    """``y' = y + (sigma' - sigma) eps``: order 1, one evaluation a step, time variable sigma.

    The same step is DDIM with eta = 0 (Song et al. 2021, arXiv:2010.02502), the first-order exponential integrator
    (DPM-Solver-1, DEIS-0) and Euler on a flow-matching velocity with ``sigma = t / (1 - t)``.
    Stable on the real axis for ``|z| <= 2``.
    """

    prediction = "noise"

    @property
    def order(self) -> int:
        return 1

    def weights(self, nodes: tuple[float, ...], target: float) -> tuple[float, Sequence[float]]:
        return 1.0, (target - nodes[0],)
