"""Every solver on one exact problem: error against evaluations, beside diffusers' schedulers."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from framework.data import data_dir
from framework.study import Study

from ..grids import angular, karras, log_snr, time_quadratic, time_uniform
from ..mixtures import GaussianMixture, cached_reference, digits_mixture
from ..schedules import NoiseSchedule, VPCosine, VPLinear
from ..solvers import SOLVERS, Problem, Solver
from .solver_peers import PEERS, Peer

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002


def _in_time(make: Callable, schedule: NoiseSchedule) -> Callable[[int], Tensor]:
    first, last = schedule.inverse_sigma_tilde(torch.tensor([SIGMA_MAX, SIGMA_MIN], dtype=torch.float64)).tolist()

    def grid(steps: int) -> Tensor:
        levels = make(schedule, steps, first, last)
        levels[0], levels[-1] = SIGMA_MAX, SIGMA_MIN
        return levels

    return grid


GRIDS: dict[str, Callable[[int], Tensor]] = {
    "karras": lambda steps: karras(steps, SIGMA_MAX, SIGMA_MIN),
    "log_snr": lambda steps: log_snr(steps, SIGMA_MAX, SIGMA_MIN),
    "vp_uniform": _in_time(time_uniform, VPLinear()),
    "vp_quadratic": _in_time(time_quadratic, VPLinear()),
    "cosine_uniform": _in_time(time_uniform, VPCosine()),
    "angular": lambda steps: angular(steps, SIGMA_MAX, SIGMA_MIN),
    "angular_rho1.25": lambda steps: angular(steps, SIGMA_MAX, SIGMA_MIN, rho=1.25),
    "angular_rho2": lambda steps: angular(steps, SIGMA_MAX, SIGMA_MIN, rho=2.0),
}
"""Name -> levels for a number of steps, all from 80 to 0.002 (the end is not 0)."""


@dataclass(frozen=True)
class Score:
    """Error of one run against the exact trajectories.

    Attributes:
        rms: root mean square over all entries (dominated by trajectories that end in another mode).
        median: median over trajectories of each one's root mean square.
        correct: trajectories that end nearest to the same component as the exact ones.
    """

    rms: float
    median: float
    correct: int


@dataclass
class Row:
    """One solver: NFE -> grid -> score."""

    scores: dict[int, dict[str, Score]] = field(default_factory=dict)

    def best(self, nfe: int) -> tuple[str, Score]:
        """Grid of least RMS and its score."""
        return min(self.scores[nfe].items(), key=lambda item: item[1].rms)


@dataclass(frozen=True, eq=False)
class DigitsProblem:
    """The fixed problem: the digits mixture, 64 starting states, and where the exact ODE takes them."""

    mixture: GaussianMixture
    start: Tensor
    target: Tensor

    @classmethod
    def build(cls, s0: float, batch: int, seed: int, reference_steps: int, cache: Path | None) -> DigitsProblem:
        mixture = digits_mixture(s0)
        generator = torch.Generator().manual_seed(seed)
        start = SIGMA_MAX * torch.randn(batch, mixture.dim, dtype=torch.float64, generator=generator)
        ends = torch.tensor([SIGMA_MAX, SIGMA_MIN], dtype=torch.float64)
        states = cached_reference(mixture, start, ends, reference_steps, cache, f"digits_mixture({s0!r})")
        return cls(mixture, start, states[-1])

    def score(self, y: Tensor) -> Score:
        """Judge final states."""
        each = (y - self.target).square().mean(1)
        if not bool(torch.isfinite(each).all()):
            return Score(math.inf, math.inf, 0)
        same = self.mixture.nearest(y) == self.mixture.nearest(self.target)
        return Score(each.mean().sqrt().item(), each.sqrt().median().item(), int(same.sum()))


def run_ours(
    names: Sequence[str], nfes: Sequence[int], grids: Sequence[str], problem: DigitsProblem, context: Problem
) -> dict[str, Row]:
    """Score registered solvers; a solver too costly or too short for a budget has no entry there."""
    from tqdm import tqdm

    rows: dict[str, Row] = {}
    for name in tqdm(names, desc="solvers", leave=False):
        prepared = SOLVERS[name](context)
        row = rows[name] = Row()
        for nfe in nfes:
            if isinstance(prepared, Mapping):
                runs = {"own": prepared[nfe]} if nfe in prepared else {}
            else:
                steps = prepared.steps_for(nfe)
                enough = steps >= max(1, prepared.min_steps)
                runs = {grid: (prepared, GRIDS[grid](steps)) for grid in grids} if enough else {}
            for grid, (solver, sigmas) in runs.items():
                spent = solver.nfe(sigmas)
                if spent > nfe:
                    raise RuntimeError(f"{name} would spend {spent} evaluations of a budget of {nfe}")
                y = solver.sample(problem.mixture, problem.start, sigmas)
                row.scores.setdefault(nfe, {})[grid] = problem.score(y)
    return rows


def run_peers(nfes: Sequence[int], grids: Sequence[str], problem: DigitsProblem) -> dict[str, Row]:
    """Score diffusers' schedulers, on the same grids."""
    from tqdm import tqdm

    rows: dict[str, Row] = {}
    for name, peer in tqdm(PEERS.items(), desc="diffusers", leave=False):
        row = rows[f"diffusers_{name}"] = Row()
        for nfe in nfes:
            for grid in grids:
                y = peer.sample(problem.mixture, problem.start, GRIDS[grid](nfe // peer.stages))
                row.scores.setdefault(nfe, {})[grid] = problem.score(y)
    return rows


def overhead_ratio(
    solver: Solver, peer: Peer, steps: int = 20, shape: tuple[int, ...] = (16, 3, 32, 32), repeats: int = 15
) -> float:
    """Our time outside the network over diffusers' for the same method, batch (float32) and grid.

    The network is replaced by one that returns a tensor at once, so that everything timed is overhead.  Our side is a
    whole ``sample`` call; diffusers' side is its loop of ``step`` calls, its ``set_timesteps`` left out.  Runs
    alternate, and the ratio is that of the medians.
    """
    generator = torch.Generator().manual_seed(0)
    y, denoised = (torch.randn(shape, generator=generator) for _ in range(2))
    y = y * SIGMA_MAX
    sigmas = GRIDS["karras"](steps)

    def network(state: Tensor, sigma: Tensor) -> Tensor:
        return denoised

    ours, theirs = [], []
    with torch.no_grad():
        for repeat in range(repeats + 2):
            scheduler = peer.prepare(sigmas)
            began = time.perf_counter()
            solver.sample(network, y, sigmas)
            between = time.perf_counter()
            x = y
            for t in scheduler.timesteps:
                x = scheduler.step(denoised, t, scheduler.scale_model_input(x, t), return_dict=False)[0]
            ended = time.perf_counter()
            if repeat >= 2:
                ours.append(between - began)
                theirs.append(ended - between)
    return sorted(ours)[len(ours) // 2] / sorted(theirs)[len(theirs) // 2]


class SolverBenchmark(Study):
    """All solvers of :data:`plugins.generative.solvers.SOLVERS` against the exact ODE of the digits mixture.

    For each solver and number of evaluations the best of ``grids`` counts (every solver and every peer may choose).
    A solver whose steps cost s evaluations takes as many steps as the budget allows.

    Metrics:
        ``rms|median|correct/<solver>/nfe<k>`` on the solver's best grid; ``rms_karras/<solver>/nfe<k>`` on the
        Karras grid; ``best/nfe<k>``; and with peers ``.../diffusers_<name>/...``, ``best_peer/nfe<k>``,
        ``ratio/nfe<k>`` (best of ours over best peer) and ``overhead_ratio/<solver>``.
        ``table.csv`` in the run folder holds every grid.

    Args:
        nfes: budgets of denoiser evaluations.
        grids: names from :data:`GRIDS`.
        solvers: names from ``SOLVERS``; None takes all.
        peers: also run diffusers' schedulers (extra ``peers``).
        s0: standard deviation of the mixture's components.
        batch, seed: number of trajectories and seed of their starting noise.
        reference_steps: of the exact trajectories.
        cache: folder for the exact trajectories and for model statistics; None is ``generative`` in the data folder.
        fast: few trajectories, budgets and reference steps, and cheap statistics.
    """

    def __init__(
        self,
        nfes: Sequence[int] = (5, 10, 20, 50),
        grids: Sequence[str] = tuple(GRIDS),
        solvers: Sequence[str] | None = None,
        peers: bool = False,
        s0: float = 0.3,
        batch: int = 64,
        seed: int = 0,
        reference_steps: int = 2500,
        cache: str | None = None,
        fast: bool = False,
    ) -> None:
        super().__init__()
        for given, known, what in ((grids, GRIDS, "grid"), (solvers or (), SOLVERS, "solver")):
            for name in given:
                if name not in known:
                    raise ValueError(f"no {what} is called {name!r}; there are {', '.join(known)}")
        self.nfes = (5, 10) if fast else tuple(nfes)
        self.grids = tuple(grids)[:2] if fast else tuple(grids)
        self.names = tuple(SOLVERS) if solvers is None else tuple(solvers)
        self.peers, self.s0, self.seed, self.fast = peers, s0, seed, fast
        self.batch = 8 if fast else batch
        self.reference_steps = 200 if fast else reference_steps
        self.cache = None if fast else Path(cache) if cache else data_dir() / "generative"

    def study(self) -> dict[str, float]:
        from ..figures_solvers import benchmark_figure

        with torch.no_grad():
            problem = DigitsProblem.build(self.s0, self.batch, self.seed, self.reference_steps, self.cache)
            data = problem.mixture.sample(4096, torch.Generator().manual_seed(1))
            context = Problem(problem.mixture, SIGMA_MAX, SIGMA_MIN, data, self.nfes, self.cache, self.fast)
            ours = run_ours(self.names, self.nfes, self.grids, problem, context)
            peers = run_peers(self.nfes, self.grids, problem) if self.peers else {}
        metrics: dict[str, float] = {}
        for name, row in (ours | peers).items():
            for nfe, by_grid in row.scores.items():
                _, score = row.best(nfe)
                metrics[f"rms/{name}/nfe{nfe}"] = score.rms
                metrics[f"median/{name}/nfe{nfe}"] = score.median
                metrics[f"correct/{name}/nfe{nfe}"] = score.correct
                if "karras" in by_grid:
                    metrics[f"rms_karras/{name}/nfe{nfe}"] = by_grid["karras"].rms
        winners = []
        for nfe in self.nfes:
            winner, best = self._best(ours, nfe)
            winners.append(winner)
            metrics[f"best/nfe{nfe}"] = best
            if peers:
                _, theirs = self._best(peers, nfe)
                metrics[f"best_peer/nfe{nfe}"] = theirs
                metrics[f"ratio/nfe{nfe}"] = best / theirs
        if self.peers:
            metrics |= self._overheads()
        self._write_table(ours | peers)
        curves = {name: {k: row.best(k)[1].rms for k in row.scores} for name, row in (ours | peers).items()}
        shown = dict.fromkeys([*winners, *(n for n in ("euler", "heun", "dpm_solver_pp_2m", "unipc3") if n in ours)])
        self.save_figure(
            "rms_against_nfe",
            benchmark_figure(
                {n: curves[n] for n in ours if curves[n]}, {n: curves[n] for n in peers}, list(shown)
            ),
        )
        return metrics

    @staticmethod
    def _best(rows: Mapping[str, Row], nfe: int) -> tuple[str, float]:
        scored = {name: row.best(nfe)[1].rms for name, row in rows.items() if nfe in row.scores}
        winner = min(scored, key=scored.__getitem__)
        return winner, scored[winner]

    def _overheads(self) -> dict[str, float]:
        ratios = {}
        for peer in PEERS.values():
            if peer.ours is not None and f"overhead_ratio/{peer.ours}" not in ratios:
                solver = SOLVERS[peer.ours](Problem(lambda y, sigma: y, SIGMA_MAX, SIGMA_MIN))
                ratios[f"overhead_ratio/{peer.ours}"] = overhead_ratio(solver, peer, repeats=3 if self.fast else 15)
        ratios["overhead_ratio/largest"] = max(ratios.values())
        return ratios

    def _write_table(self, rows: Mapping[str, Row]) -> None:
        with open(self.run_dir / "table.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["solver", "nfe", "grid", "rms", "median", "correct"])
            for name, row in rows.items():
                for nfe, by_grid in row.scores.items():
                    for grid, score in by_grid.items():
                        writer.writerow([name, nfe, grid, score.rms, score.median, score.correct])
