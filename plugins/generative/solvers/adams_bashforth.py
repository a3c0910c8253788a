"""Adams-Bashforth in sigma: constant-step weights (PLMS, iPNDM) and variable-step ones (rho-AB of DEIS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .lagrange import uniform_kernel_weights
from .multistep import Multistep

CONSTANT_STEP_WEIGHTS: dict[int, tuple[float, ...]] = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
    5: (1901 / 720, -2774 / 720, 2616 / 720, -1274 / 720, 251 / 720),
}
"""Order -> Adams-Bashforth weights for equal steps, newest first."""


@dataclass(frozen=True)
class PLMS(Multistep):
    """DDIM with eps replaced by a constant-step Adams-Bashforth combination (PLMS, iPNDM); one evaluation a step.

    Args:
        order: 1 to 5.  It is the order of convergence on a grid uniform in sigma only; where the steps vary, as on
            Karras or log-SNR grids, every order from 2 up converges at order 2 (it can still be the most accurate
            choice at few steps).  :class:`RhoAB` keeps its order on any grid.

    Liu et al. 2022 (arXiv:2202.09778); Zhang & Chen 2023.  Real-axis stability |z|: 2, 1, 6/11, 3/10.
    """

    order: int = 4
    prediction = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in CONSTANT_STEP_WEIGHTS:
            raise ValueError(f"order = {self.order} is not in 1 ... {max(CONSTANT_STEP_WEIGHTS)}")

    def weights(self, nodes: tuple[float, ...], target: float) -> tuple[float, Sequence[float]]:
        return 1.0, [(target - nodes[0]) * w for w in CONSTANT_STEP_WEIGHTS[len(nodes)]]


@dataclass(frozen=True)
class RhoAB(Multistep):
    """Variable-step Adams-Bashforth in sigma: rho-AB-DEIS, and the linear multistep sampler "LMS".

    Order ``degree + 1`` on any grid, one evaluation a step.  Zhang & Chen 2023 (arXiv:2204.13902), where rho is
    our sigma.

    Args:
        degree: degree of the polynomial that extrapolates eps, >= 0 (0 is DDIM; DEIS uses 0 to 3).
    """

    degree: int = 3
    prediction = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.degree < 0:
            raise ValueError(f"degree = {self.degree} must not be negative")

    @property
    def order(self) -> int:
        return self.degree + 1

    def weights(self, nodes: tuple[float, ...], target: float) -> tuple[float, Sequence[float]]:
        return 1.0, uniform_kernel_weights(nodes, target)
