"""How good is an optimised perturbation: conditioning, deviation from HiPPO and stability, against S4D and chance."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm import tqdm

from framework.study import Study
from plugins.state_space import figures
from plugins.state_space.diagnostics import (
    apriori_bound,
    deviation_sup,
    diagonal_resolvent,
    frequency_grid,
    hippo_resolvent,
    resolvent,
)
from plugins.state_space.hippo import hippo, legs_resolvent, nplr
from plugins.state_space.ptd import PTDResult, PTDSolver, evaluate_perturbation


class PTDQuality(Study):
    """The table of κ, deviation and abscissa for each size, with the figures that go with it.

    Args:
        gammas: state size → prices γ of the perturbation. The first gives ``kappa/n<k>``, ``deviation/n<k>``,
            ``abscissa/n<k>``, ``eps/n<k>``, ``solve_seconds/n<k>`` (seconds of one core; ``solve_wall_seconds/n<k>`` is
            the clock's, which counts whatever else the machine does); further ones ``kappa/n<k>/gamma<g>`` and so on.
        spectrum_size: state size of the transfer-function figure; must be among the sizes.
        perturbations: random perturbations that the a-priori bound is held against.
        seed: of every random perturbation.
        fast: the two smallest sizes and few perturbations.
    """

    def __init__(
        self,
        gammas: Mapping[int, Sequence[float]],
        spectrum_size: int,
        perturbations: int = 200,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        self.gammas = {int(n): list(values) for n, values in gammas.items()}
        if fast:
            self.gammas = {n: self.gammas[n] for n in sorted(self.gammas)[:2]}
            perturbations, spectrum_size = 10, max(self.gammas)
        if spectrum_size not in self.gammas:
            raise ValueError(f"spectrum_size must be one of {sorted(self.gammas)}, not {spectrum_size}")
        self.spectrum_size, self.perturbations, self.seed = spectrum_size, perturbations, seed

    def study(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        curves: dict[str, list[tuple[float, float]]] = {"S4D": [], "random perturbation of equal size": [], "PTD": []}
        with single_thread():
            for n, gammas in tqdm(sorted(self.gammas.items()), desc="state sizes"):
                s4d = s4d_deviation(n)
                metrics[f"deviation_s4d/n{n}"] = s4d
                for i, gamma in enumerate(gammas):
                    started, wall = time.process_time(), time.perf_counter()
                    result = PTDSolver(gamma=gamma).solve("legs", n)
                    seconds, wall = time.process_time() - started, time.perf_counter() - wall
                    suffix = f"n{n}" if i == 0 else f"n{n}/gamma{gamma:g}"
                    metrics |= {
                        f"kappa/{suffix}": result.kappa,
                        f"deviation/{suffix}": result.deviation,
                        f"abscissa/{suffix}": result.abscissa,
                        f"eps/{suffix}": result.eps,
                        f"solve_seconds/{suffix}": seconds,
                        f"solve_wall_seconds/{suffix}": wall,
                    }
                    if i:
                        continue
                    chance = evaluate_perturbation("legs", random_perturbation(n, result.eps, self.seed))
                    metrics |= {
                        f"kappa_random/n{n}": chance.kappa,
                        f"deviation_random/n{n}": chance.deviation,
                        f"abscissa_random/n{n}": chance.abscissa,
                    }
                    curves["S4D"].append((s4d, 1.0))
                    curves["random perturbation of equal size"].append((chance.deviation, chance.kappa))
                    curves["PTD"].append((result.deviation, result.kappa))
                    if n == self.spectrum_size:
                        omega, lines = spectrum(result, chance)
                        self.save_figure("transfer_functions", figures.transfer_functions(omega, lines, n))
            metrics["linearity/slope"] = linearity_slope(16, self.seed)
            sizes, deviations = bound_samples(self.perturbations, self.seed)
        bounds = [apriori_bound(size) for size in sizes]
        metrics["bound/violations"] = float(sum(d > b for d, b in zip(deviations, bounds, strict=True)))
        metrics["bound/tightest"] = max(d / b for d, b in zip(deviations, bounds, strict=True))
        order = sorted(range(len(sizes)), key=sizes.__getitem__)
        self.save_figure("quality", figures.quality(sorted(self.gammas), curves))
        self.save_figure(
            "deviation_against_perturbation",
            figures.linearity(*([values[i] for i in order] for values in (sizes, deviations, bounds))),
        )
        return metrics


@contextmanager
def single_thread() -> Iterator[None]:
    """One core inside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def s4d_deviation(n: int) -> float:
    """Deviation of the diagonal part of LegS, with the ½ of the theory in its input."""
    parts = nplr("legs", n)
    lam, _, b = parts.dplr()
    return deviation_sup("legs", lam, b / 2, parts.V)


def random_perturbation(n: int, size: float, seed: int) -> Tensor:
    """A Gaussian matrix scaled to ‖E‖₂ = size."""
    e = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return e * (size / torch.linalg.matrix_norm(e, 2))


def perturbed_deviation(n: int, e: Tensor) -> float:
    """Deviation of A + E from A without diagonalising anything, so that E may be as small as one likes."""
    a, b = hippo("legs", n)
    omega = frequency_grid(n)
    difference = resolvent(a + e, b, omega) - legs_resolvent(omega, n)
    return torch.linalg.vector_norm(difference, dim=1).max().item()


def linearity_slope(n: int, seed: int) -> float:
    """Slope of log deviation against log ‖E‖₂ for one direction, ‖E‖₂ from 1e-5 to 1e-2."""
    sizes = [10.0**k for k in range(-5, -1)]
    points = [(math.log(size), math.log(perturbed_deviation(n, random_perturbation(n, size, seed)))) for size in sizes]
    return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])


def bound_samples(count: int, seed: int) -> tuple[list[float], list[float]]:
    """‖E‖₂ and deviation of random perturbations, ‖E‖₂ log-uniform in [1e-4, 0.499), n from 4 to 32."""
    generator = torch.Generator().manual_seed(seed)
    sizes, deviations = [], []
    for k in tqdm(range(count), desc="random perturbations"):
        n = (4, 8, 16, 32)[k % 4]
        size = 1e-4 * (0.499 / 1e-4) ** torch.rand((), generator=generator, dtype=torch.float64).item()
        sizes.append(size)
        deviations.append(perturbed_deviation(n, random_perturbation(n, size, seed + 1 + k)))
    return sizes, deviations


def spectrum(result: PTDResult, chance: PTDResult) -> tuple[Tensor, dict[str, Tensor]]:
    """Deviations against frequency of S4D, of a random perturbation and of the optimised one."""
    n = len(result.lam)
    parts = nplr("legs", n)
    lam, _, b = parts.dplr()
    omega = torch.cat([frequency_grid(n, lam)[1:], frequency_grid(n, result.lam)[4001:]])
    truth = hippo_resolvent("legs", n, omega)
    lines = {"HiPPO-LegS": torch.linalg.vector_norm(truth, dim=1)}
    for name, parts_of in {
        "S4D-LegS": (lam, b / 2, parts.V),
        "a random perturbation of equal size": (chance.lam, chance.B, chance.V),
        "PTD": (result.lam, result.B, result.V),
    }.items():
        x = diagonal_resolvent(parts_of[0], parts_of[1], omega, parts_of[2])
        lines[name] = torch.linalg.vector_norm(x - truth, dim=1)
    return omega, lines
