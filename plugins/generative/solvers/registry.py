"""Named, ready-made solver configurations: what the benchmark runs, and what the convergence study proves.

A configuration is a function from a :class:`Problem` to a solver::

    @register("dpm_solver_pp_2m")
    def _(problem: Problem) -> Solver:
        return DPMSolverPP2M()

Most ignore the problem; one that needs statistics of the denoiser (DPM-Solver-v3) computes them from it, caching under
``problem.cache`` where that is given.  A method that comes with its own grid for each budget, such as a searched
schedule, answers a mapping ``{nfe: (solver, sigmas)}`` instead of one solver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .base import Denoiser, Solver


@dataclass(frozen=True)
class Problem:
    """What a ready-made solver may look at: the denoiser, the range of noise levels, and data for statistics.

    Attributes:
        denoiser: the model to be sampled.
        sigma_max, sigma_min: range of noise levels of the sampler.
        data: (n, ...) clean examples to draw noisy states from, or None.
        nfes: budgets of evaluations that will be asked for.
        cache: folder for what is expensive to compute, or None.
        fast: cheap settings for a smoke run.
        seed: of everything random in the preparation; never that of the judged noise.
    """

    denoiser: Denoiser
    sigma_max: float
    sigma_min: float
    data: Tensor | None = None
    nfes: tuple[int, ...] = (5, 10, 20, 50)
    cache: Path | None = None
    fast: bool = False
    seed: int = 1234


Prepared = Solver | Mapping[int, tuple[Solver, Tensor]]
"""A solver for any grid, or for each number of evaluations a solver with its own grid."""

Build = Callable[[Problem], Prepared]


@dataclass(frozen=True)
class OrderCase:
    """A configuration whose order of convergence is to be measured.

    Attributes:
        build: the configuration, with ``start="exact"`` where it is a multistep method.
        order: the order it should show.
        grid: "karras", "log_snr" or "uniform" (in sigma).
        history: number of exact points before the first step it is given.
    """

    build: Build
    order: float
    grid: str = "karras"
    history: int = 0


SOLVERS: dict[str, Build] = {}
"""Name -> function from a problem to what the benchmark runs; deterministic solvers only."""

ORDERS: dict[str, OrderCase] = {}
"""Name -> case, as the convergence study runs them."""


def register(name: str) -> Callable[[Build], Build]:
    """Decorator that enters a configuration in :data:`SOLVERS`; a name may be taken once."""

    def enter(build: Build) -> Build:
        if name in SOLVERS:
            raise ValueError(f"solver name {name!r} is already registered")
        SOLVERS[name] = build
        return build

    return enter


def register_order(name: str, order: float, grid: str = "karras", history: int = 0) -> Callable[[Build], Build]:
    """Decorator that enters a configuration in :data:`ORDERS`; see :class:`OrderCase`."""

    def enter(build: Build) -> Build:
        if name in ORDERS:
            raise ValueError(f"order case {name!r} is already registered")
        ORDERS[name] = OrderCase(build, order, grid, history)
        return build

    return enter
