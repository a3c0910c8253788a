"""Orders of convergence, measured: every solver on a planar mixture with exact start values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from framework.data import data_dir
from framework.study import Study

from ..grids import karras, log_snr
from ..mixtures import GaussianMixture, reference_trajectory, toy_mixture
from ..solvers import ORDERS, OrderCase, Past, Problem

SIGMA_MAX, SIGMA_MIN = 2.0, 0.2
"""Range of the study: the part of a trajectory where the solution curves; above and below it is nearly straight."""

UNIFORM_RANGE = 1.5, 0.4
"""Range of the grid uniform in sigma, whose steps near the data are so coarse that 40 of them need a shorter one."""


@dataclass(frozen=True)
class Convergence:
    """Errors of one solver.

    Attributes:
        steps: step counts N.
        errors: root mean square error over the batch, for each N.
        expected: the order the solver claims.
    """

    steps: tuple[int, ...]
    errors: tuple[float, ...]
    expected: float

    @property
    def order(self) -> float:
        """Least-squares slope of -log(error) against log(N)."""
        x = torch.log(torch.tensor(self.steps, dtype=torch.float64))
        e = torch.log(torch.tensor(self.errors, dtype=torch.float64))
        x, e = x - x.mean(), e - e.mean()
        return -((x @ e) / (x @ x)).item()


def study_grid(name: str, steps: int, ahead: int) -> Tensor:
    """The study's grid, with ``ahead`` levels above its start by the same rule.

    Raises:
        ValueError: an unknown name.
    """
    if name == "karras":
        return karras(steps, SIGMA_MAX, SIGMA_MIN, ahead=ahead)
    if name == "log_snr":
        return log_snr(steps, SIGMA_MAX, SIGMA_MIN, ahead=ahead)
    if name == "uniform":
        return karras(steps, *UNIFORM_RANGE, rho=1.0, ahead=ahead)
    raise ValueError(f"grid {name!r} is not 'karras', 'log_snr' or 'uniform'")


class ExactTrajectories:
    """The exact solution through one batch of states at ``SIGMA_MAX``, at the levels of nested grids.

    The batch is taken at the highest level any history needs, so that histories lie on the same trajectories.
    """

    def __init__(
        self, mixture: GaussianMixture, grid: str, steps: Sequence[int], history: int, batch: int, seed: int
    ) -> None:
        finest = max(steps)
        for n in steps:
            if finest % n:
                raise ValueError(f"steps must divide the largest, {finest}; {n} does not")
        self.finest, self.ahead = finest, history * (finest // min(steps))
        levels = study_grid(grid, finest, self.ahead)
        generator = torch.Generator().manual_seed(seed)
        start = mixture.sample(batch, generator)
        start = start + levels[0] * torch.randn(start.shape, dtype=start.dtype, generator=generator)
        self.levels = levels
        self.states = reference_trajectory(mixture, start, levels, steps=4 * len(levels))

    def on(self, steps: int, history: int) -> tuple[Tensor, Tensor, Tensor]:
        """``(levels, states)`` with the history in front for a grid of ``steps``; the last state is the target."""
        stride = self.finest // steps
        first = self.ahead - history * stride
        return self.levels[first::stride], self.states[first::stride], self.states[-1]


def measure(
    case: OrderCase, exact: ExactTrajectories, mixture: GaussianMixture, problem: Problem, steps: Sequence[int]
) -> Convergence:
    """Run one case over all step counts."""
    solver = case.build(problem)
    errors = []
    for n in steps:
        levels, states, target = exact.on(n, case.history)
        past = [Past(levels[j].item(), states[j], mixture(states[j], levels[j])) for j in range(case.history)]
        y = solver.sample(mixture, states[case.history], levels[case.history :], history=past or None)
        errors.append((y - target).square().mean().sqrt().item())
    return Convergence(tuple(steps), tuple(errors), case.order)


def measure_all(
    names: Sequence[str] | None = None,
    steps: Sequence[int] = (40, 80, 160, 320),
    batch: int = 64,
    seed: int = 0,
    fast: bool = False,
    cache: Path | None = None,
) -> dict[str, Convergence]:
    """Every case of :data:`~plugins.generative.solvers.ORDERS` (or those named), by name."""
    from tqdm import tqdm

    mixture = toy_mixture()
    chosen = list(ORDERS) if names is None else list(names)
    unknown = [name for name in chosen if name not in ORDERS]
    if unknown:
        raise ValueError(f"no order case is called {unknown[0]!r}; there are {', '.join(ORDERS)}")
    data = mixture.sample(4096, torch.Generator().manual_seed(seed))
    problem = Problem(mixture, SIGMA_MAX, SIGMA_MIN, data, cache=cache, fast=fast)
    depth: dict[str, int] = {}
    for name in chosen:
        depth[ORDERS[name].grid] = max(depth.get(ORDERS[name].grid, 0), ORDERS[name].history)
    exact: dict[str, ExactTrajectories] = {}
    results = {}
    for name in tqdm(chosen, desc="convergence orders", leave=False):
        case = ORDERS[name]
        if case.grid not in exact:
            exact[case.grid] = ExactTrajectories(mixture, case.grid, steps, depth[case.grid], batch, seed)
        results[name] = measure(case, exact[case.grid], mixture, problem, steps)
    return results


class ConvergenceOrders(Study):
    """Measures ``order/<solver>`` and how far it lies from the claimed order, ``deviation/<solver>``.

    Args:
        steps: step counts, each dividing the last.
        batch: trajectories.
        solvers: names from ``plugins.generative.solvers.ORDERS``; None takes all.
        seed: of the trajectories.
        fast: fewer trajectories and step counts.
    """

    def __init__(
        self,
        steps: Sequence[int] = (40, 80, 160, 320),
        batch: int = 64,
        solvers: Sequence[str] | None = None,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        self.steps = (40, 80) if fast else tuple(steps)
        self.batch = 4 if fast else batch
        self.names, self.seed, self.fast = solvers, seed, fast

    def study(self) -> dict[str, float]:
        from ..figures_solvers import order_figure

        with torch.no_grad():
            cache = None if self.fast else data_dir() / "generative"
            results = measure_all(self.names, self.steps, self.batch, self.seed, self.fast, cache)
        self.save_figure("convergence_orders", order_figure(results))
        metrics = {f"order/{name}": result.order for name, result in results.items()}
        deviations = {name: abs(result.order - result.expected) for name, result in results.items()}
        metrics |= {f"deviation/{name}": value for name, value in deviations.items()}
        metrics["deviation/largest"] = max(deviations.values(), default=math.nan)
        return metrics
