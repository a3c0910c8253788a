"""S3: an evolutionary search for the solver schedule of a given budget.

Liu et al. 2023, "A unified sampling framework for solver searching of diffusion probabilistic models",
arXiv:2312.07243: parents by rank, crossover by kind of gene, small Gaussian mutations of the levels, random genes, and
steps that come and go under a fixed number of evaluations; candidates ranked by a learned predictor before the best of
them is evaluated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..grids import angular, karras, log_snr, time_quadratic, time_uniform
from ..mixtures import cached_reference
from ..schedules import VPCosine, VPLinear
from .base import Denoiser, Solver
from .ems import EMS, problem_statistics
from .registry import Problem, register
from .schedule_predictor import SchedulePredictor
from .unified import CORRECTORS, MAX_ORDER, RELAXATIONS, SolverSchedule, StepGenes, uniform_schedule


@dataclass(frozen=True)
class SearchSpace:
    """What the search may vary, and how eagerly.

    Args:
        nfe: Evaluations a schedule may spend; steps are added while it spends fewer.
        predictions: Of "noise", "data", "v3" (which needs model statistics).
        max_order: Highest Taylor order, 1 to 4.
        relaxations, correctors: Of those of `StepGenes`.
        singlestep: Let steps start from earlier nodes.
        first_evaluations: Of "model", "zero", "average" (which needs the mean of the data).
        parents: Parents are drawn from this many best, evenly.
        crossover: Probability that a child has two parents.
        mutation: Probability, for each kind of gene, that it mutates in a child.
        level_scale: Standard deviation of a level's move in log sigma, as a fraction of the whole range.
        add, drop: Probabilities that a child gains or loses a step.
        candidates: Children made for each one that is evaluated: the one that a `SchedulePredictor`, trained on all
            schedules evaluated so far, ranks first (and in every other round simply the first child). 1 works without a
            predictor.
    """

    nfe: int
    predictions: tuple[str, ...] = ("noise", "data")
    max_order: int = MAX_ORDER
    relaxations: tuple[str, ...] = RELAXATIONS
    correctors: tuple[str, ...] = CORRECTORS
    singlestep: bool = True
    first_evaluations: tuple[str, ...] = ("model",)
    parents: int = 15
    crossover: float = 0.5
    mutation: float = 0.3
    level_scale: float = 0.03
    add: float = 0.2
    drop: float = 0.2
    candidates: int = 16

    def __post_init__(self) -> None:
        if min(self.nfe, self.parents, self.candidates) < 1 or not 1 <= self.max_order <= MAX_ORDER:
            raise ValueError(
                f"nfe, parents and candidates must be at least 1 and max_order in 1..{MAX_ORDER}; got {self.nfe}, "
                f"{self.parents}, {self.candidates}, {self.max_order}"
            )
        if not self.predictions or not self.relaxations or not self.correctors or not self.first_evaluations:
            raise ValueError("predictions, relaxations, correctors and first_evaluations each need one choice or more")
        for name in ("crossover", "mutation", "add", "drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability; got {getattr(self, name)}")


@dataclass(frozen=True)
class SearchResult:
    """Outcome of `search_schedule`.

    Attributes:
        schedule, score: the best schedule and its score (lower is better).
        leaders: the best `SearchSpace.parents` schedules, best first.
        history: best score after each evaluation.
        initial: how many of the evaluations went to the initial population.
    """

    schedule: SolverSchedule
    score: float
    leaders: tuple[SolverSchedule, ...]
    history: tuple[float, ...]
    initial: int


class TrajectoryObjective:
    """Root-mean-square distance, over all entries, of a schedule's samples from exact ones; lower is better.

    Args:
        denoiser: Model to sample.
        y: (B, ...) states at the first level.
        exact: (B, ...) exact states at the last level.
        ems, average: Passed to the schedules.
        weights: (B,) of the samples' mean squares, summing to 1; equal by default.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        exact: Tensor,
        ems: EMS | None = None,
        average: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        if y.shape != exact.shape:
            raise ValueError(f"y and exact must have one shape; got {tuple(y.shape)} and {tuple(exact.shape)}")
        self.denoiser, self.y, self.exact, self.ems, self.average = denoiser, y, exact, ems, average
        self.weights = torch.full((len(y),), 1 / len(y), dtype=y.dtype, device=y.device) if weights is None else weights

    def part(self, index: Tensor | slice, weights: Tensor | None = None) -> TrajectoryObjective:
        """The same on some of the samples, with equal weights or those given."""
        return TrajectoryObjective(
            self.denoiser, self.y[index], self.exact[index], self.ems, self.average, weights
        )

    @torch.no_grad()
    def errors(self, schedule: SolverSchedule) -> Tensor:
        """(B,) root-mean-square error of each sample."""
        sample = schedule.sample(self.denoiser, self.y, self.ems, self.average)
        return (sample - self.exact).flatten(1).square().mean(1).sqrt()

    def __call__(self, schedule: SolverSchedule) -> float:
        """The score; infinity for a schedule whose trajectory overflows."""
        solver = schedule.solver(self.ems, self.average)
        solver.check(schedule.sigmas, ())  # an invalid schedule is an error, an unstable one only bad
        try:
            score = (self.weights * self.errors(schedule).square()).sum().sqrt().item()
        except ValueError:
            return math.inf
        return score if math.isfinite(score) else math.inf


def hard_subset(
    squares: Tensor, hard: int, easy: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A small stratified stand-in for many samples: all that are hard for known schedules, and some of the others.

    Close to the data a diffusion model's error is that of the few trajectories that end in another mode, so that a
    search on some hundred random ones fits their noise. The weighted mean square over this subset estimates that over
    all samples, at a fraction of the cost and of the variance.

    Args:
        squares: (schedules, B) mean squared errors.
        hard: Samples of largest mean over the schedules, each standing for itself.
        easy: Random ones of the rest, standing for all of it.

    Returns:
        Indices (hard + easy,) into the samples, and weights that sum to 1.
    """
    count = squares.shape[1]
    if hard + easy > count or min(hard, easy) < 1:
        raise ValueError(f"hard and easy must be at least 1 and at most {count} together; got {hard} and {easy}")
    order = squares.mean(0).argsort(descending=True)
    rest = order[hard:]
    chosen = rest[torch.randperm(len(rest), generator=generator)[:easy].to(rest.device)]
    weights = torch.cat([squares.new_ones(hard), squares.new_full((easy,), len(rest) / easy)]) / count
    return torch.cat([order[:hard], chosen]), weights


def fixed_schedules(
    nfe: int,
    sigma_max: float,
    sigma_min: float,
    predictions: Sequence[str] = ("noise", "data"),
    max_order: int = 3,
) -> dict[str, SolverSchedule]:
    """The fixed samplers of the field at a budget: grid x prediction x order x corrector x relaxation x final order.

    Grids: Karras with rho 5, 7, 10, log-SNR, uniform and quadratic in the time of VP-linear, uniform in that of
    VP-cosine, and uniform in angle. They are the baseline of a search and its initial population; each spends exactly
    `nfe` evaluations.
    """
    range_ = torch.tensor([sigma_max, sigma_min], dtype=torch.float64)
    grids = {f"karras{rho}": karras(nfe, sigma_max, sigma_min, rho) for rho in (5, 7, 10)}
    grids["log_snr"] = log_snr(nfe, sigma_max, sigma_min)
    grids["angular"] = angular(nfe, sigma_max, sigma_min)
    timed = (
        ("vp_uniform", time_uniform, VPLinear()),
        ("vp_quadratic", time_quadratic, VPLinear()),
        ("cosine_uniform", time_uniform, VPCosine()),
    )
    for name, grid, noise_schedule in timed:
        levels = grid(noise_schedule, nfe, *noise_schedule.inverse_sigma_tilde(range_).tolist())
        levels[0], levels[-1] = sigma_max, sigma_min
        grids[name] = levels
    found: dict[str, SolverSchedule] = {}
    for grid_name, sigmas in grids.items():
        for prediction in predictions:
            for order in range(1, min(max_order, nfe) + 1):
                for relaxation in ("none", "bh2") if order > 1 else ("none",):
                    for corrector in ("none", "pseudo"):
                        for final in (False, True) if order > 1 else (False,):
                            genes = StepGenes(order, prediction, relaxation=relaxation, corrector=corrector)
                            schedule = uniform_schedule(sigmas, genes, lower_order_final=final)
                            # correcting the last step would cost one evaluation more
                            last = schedule.steps[-1]
                            kept = last.relaxation if last.order > 1 else "none"
                            last = replace(last, corrector="none", relaxation=kept)
                            schedule = replace(schedule, steps=(*schedule.steps[:-1], last))
                            labels = [grid_name, prediction, str(order)]
                            labels += [relaxation] if relaxation != "none" else []
                            labels += ["corrected"] if corrector != "none" else []
                            labels += ["final"] if final else []
                            found["/".join(labels)] = schedule
    return found


def search_schedule(
    objective: Callable[[SolverSchedule], float],
    initial: Sequence[SolverSchedule] | Mapping[str, SolverSchedule],
    space: SearchSpace,
    evaluations: int,
    generator: np.random.Generator,
    *,
    progress: bool = False,
) -> SearchResult:
    """Evolve schedules for `evaluations` calls of the objective, those of the initial population included.

    Args:
        objective: Score of a schedule, lower is better; may be infinite.
        initial: Schedules to start from, all with the same first and last level and within the budget.
        space: What may vary.
        generator: Source of every random choice.
        progress: Show a bar.

    Raises:
        ValueError: an empty or unsuitable initial population, or fewer evaluations than it has members.
    """
    start = list(initial.values() if isinstance(initial, Mapping) else initial)
    if not start or evaluations < len(start):
        raise ValueError(f"evaluations = {evaluations} must cover the initial population of {len(start)} (at least 1)")
    if len({(schedule.sigmas[0], schedule.sigmas[-1]) for schedule in start}) != 1 or start[0].sigmas[-1] == 0:
        raise ValueError("all initial schedules must share their first and their last, positive level")
    excess = [schedule.nfe for schedule in start if schedule.nfe > space.nfe]
    if excess:
        raise ValueError(f"an initial schedule spends {excess[0]} evaluations, more than the budget of {space.nfe}")
    population: list[tuple[float, int, SolverSchedule]] = []
    seen: set[SolverSchedule] = set()
    history: list[float] = []
    bar = tqdm(total=evaluations, desc=f"schedule search, NFE {space.nfe}", disable=not progress)

    def evaluate(schedule: SolverSchedule) -> None:
        seen.add(schedule)
        population.append((objective(schedule), len(population), schedule))
        population.sort()
        history.append(population[0][0])
        bar.update()
        bar.set_postfix_str(f"best {population[0][0]:.4g}", refresh=False)

    for schedule in start:
        evaluate(schedule)
    predictor = None
    if space.candidates > 1:
        predictor = SchedulePredictor(generator=torch.Generator().manual_seed(int(generator.integers(2**31))))
    next_fit = 0
    while len(history) < evaluations:
        best = [schedule for _, _, schedule in population[: space.parents]]
        children = {_child(best, space, generator): None for _ in range(space.candidates)}
        fresh = [child for child in children if child not in seen]
        if not fresh:
            continue
        # every other child is taken unseen, lest the predictor feed on its own taste
        if predictor is None or len(population) < 2 or generator.random() < 0.5:
            evaluate(fresh[0])
            continue
        if len(history) >= next_fit:
            known, scores = [entry[2] for entry in population], [entry[0] for entry in population]
            predictor.fit(known, scores, steps=60 if next_fit else 300)
            next_fit = len(history) + 25
        with torch.no_grad():
            evaluate(fresh[int(predictor(fresh).argmin())])
    bar.close()
    leaders = tuple(schedule for _, _, schedule in population[: space.parents])
    return SearchResult(leaders[0], population[0][0], leaders, tuple(history), len(start))


def _child(best: Sequence[SolverSchedule], space: SearchSpace, generator: np.random.Generator) -> SolverSchedule:
    child = best[generator.integers(len(best))]
    if len(best) > 1 and generator.random() < space.crossover:
        child = crossover(child, best[generator.integers(len(best))], space, generator)
    return mutate(child, space, generator)


# genes that are inherited together
KINDS: dict[str, tuple[str, ...]] = {
    "order": ("order", "difference"),
    "prediction": ("prediction",),
    "relaxation": ("relaxation", "relaxation_coefficient"),
    "corrector": ("corrector",),
    "start": ("start",),
}


def crossover(
    first: SolverSchedule, second: SolverSchedule, space: SearchSpace, generator: np.random.Generator
) -> SolverSchedule:
    """A child that takes each kind of gene, and the levels, from one of two parents of equal length.

    Half of the children mix prediction and order step by step. Parents of different length give the first back.
    """
    if len(first.steps) != len(second.steps):
        return first
    parents = (first, second)
    source = {kind: parents[generator.integers(2)] for kind in (*KINDS, "levels", "first")}
    by_step = generator.random() < 0.5
    steps = []
    for i in range(len(first.steps)):
        genes: dict[str, object] = {}
        mixed = parents[generator.integers(2)]
        for kind, names in KINDS.items():
            parent = mixed if by_step and kind in ("order", "prediction") else source[kind]
            genes |= {name: getattr(parent.steps[i], name) for name in names}
        steps.append(genes)
    return _repair(source["levels"].sigmas, steps, source["first"].first_evaluation, space, generator)


def mutate(schedule: SolverSchedule, space: SearchSpace, generator: np.random.Generator) -> SolverSchedule:
    """A changed copy within the budget and the space."""
    logs = [math.log(sigma) for sigma in schedule.sigmas]
    span = logs[0] - logs[-1]
    steps = [{name: getattr(genes, name) for names in KINDS.values() for name in names} for genes in schedule.steps]
    first_evaluation = schedule.first_evaluation

    def pick(choices: Sequence) -> object:
        return choices[generator.integers(len(choices))]

    def chosen() -> bool:
        return bool(generator.random() < space.mutation)

    chance = generator.random()
    if schedule.nfe < space.nfe or chance < space.add:
        logs.append(generator.uniform(logs[-1], logs[0]))
        logs.sort(reverse=True)
        steps.insert(int(generator.integers(len(steps) + 1)), dict(steps[generator.integers(len(steps))]))
    elif chance < space.add + space.drop and len(steps) > 1:
        del steps[generator.integers(len(steps))]
        del logs[1 + generator.integers(len(logs) - 2)]

    if chosen():
        for i in range(1, len(logs) - 1):
            logs[i] += space.level_scale * span * generator.standard_normal()
    for genes in steps:
        # one step in two of a kind that mutates
        if chosen() and generator.random() < 0.5:
            genes["order"] = int(generator.integers(1, space.max_order + 1))
            genes["difference"] = pick((None, 1, 2, 3))
        if chosen() and generator.random() < 0.5:
            genes["prediction"] = pick(space.predictions)
        if chosen() and generator.random() < 0.5:
            genes["relaxation"] = pick(space.relaxations)
            genes["relaxation_coefficient"] = 0.1 * generator.standard_normal()
        if chosen() and generator.random() < 0.5:
            genes["corrector"] = pick(space.correctors)
        if space.singlestep and chosen() and generator.random() < 0.5:
            genes["start"] = int(generator.integers(1, 4))
    if chosen():
        first_evaluation = pick(space.first_evaluations)

    low, high = schedule.sigmas[-1], schedule.sigmas[0]
    inside = sorted((math.exp(value) for value in logs[1:-1]), reverse=True)
    return _repair((high, *inside, low), steps, first_evaluation, space, generator)


def _repair(
    sigmas: Sequence[float],
    steps: Sequence[Mapping[str, object]],
    first_evaluation: str,
    space: SearchSpace,
    generator: np.random.Generator,
) -> SolverSchedule:
    """The nearest valid schedule within the budget: levels apart and in range, genes that the nodes allow."""
    steps = [dict(genes) for genes in steps]
    levels = list(sigmas)
    ratio = (levels[0] / levels[-1]) ** 1e-3  # least distance of two levels
    for i in range(1, len(levels) - 1):
        levels[i] = min(levels[i], levels[i - 1] / ratio)
    for i in range(len(levels) - 2, 0, -1):
        levels[i] = max(levels[i], levels[i + 1] * ratio)

    while True:
        valid = tuple(_valid_genes(genes, i) for i, genes in enumerate(steps))
        schedule = SolverSchedule(tuple(levels), valid, first_evaluation)
        if schedule.nfe <= space.nfe:
            return schedule
        corrected = [i for i, genes in enumerate(valid) if genes.corrector == "implicit"]
        if valid[-1].corrector != "none":
            steps[-1]["corrector"] = "none"
        elif corrected:
            steps[corrected[generator.integers(len(corrected))]]["corrector"] = "pseudo"
        else:
            index = int(generator.integers(len(steps) - 1)) if len(steps) > 1 else 0
            del steps[index], levels[index + 1]


def _valid_genes(genes: Mapping[str, object], i: int) -> StepGenes:
    """The genes cut down to the i + 1 nodes that step i has."""
    order = min(genes["order"], i + 1)
    difference = genes["difference"]
    difference = None if order == 1 or difference is None else min(difference, i)
    relaxed = order > 1 or genes["corrector"] != "none"
    relaxation = genes["relaxation"] if relaxed else "none"
    coefficient = genes["relaxation_coefficient"] if relaxation == "linear" else 0.0
    start = min(genes["start"], i + 1)
    return StepGenes(order, genes["prediction"], difference, relaxation, coefficient, genes["corrector"], start)


@dataclass(frozen=True)
class Found:
    """Outcome of `find_schedule`; scores are root mean squares over all held-in samples.

    Attributes:
        schedule, score: What was found.
        finalists: The best fixed schedules by name, with their scores.
        search: The search itself, with scores on the hard subset.
    """

    schedule: SolverSchedule
    score: float
    finalists: dict[str, tuple[SolverSchedule, float]]
    search: SearchResult


def find_schedule(
    held_in: TrajectoryObjective,
    sigma_max: float,
    sigma_min: float,
    space: SearchSpace,
    evaluations: int,
    generator: np.random.Generator,
    *,
    finalists: int = 24,
    subset: int = 256,
    progress: bool = False,
) -> Found:
    """The whole procedure: screen the fixed schedules, search from the best of them, choose on all held-in samples.

    All of `fixed_schedules` are run on the first `subset` samples and ranked by their mean error, which a single
    straying trajectory does not decide; the best `finalists` of them are run on all samples. The search then works on
    a `hard_subset` of that size, and the winner is whichever of its leaders and of the finalists does best on all.

    Args:
        held_in: Objective on all samples of the search; judge the result on others.
        sigma_max, sigma_min: Ends of the levels.
        evaluations: Schedules the search evaluates, the finalists included.
    """
    fixed = fixed_schedules(space.nfe, sigma_max, sigma_min, space.predictions, min(3, space.max_order))
    subset = min(subset, len(held_in.y))
    screen = held_in.part(slice(subset))
    bar = tqdm(fixed.items(), f"fixed schedules, NFE {space.nfe}", disable=not progress)
    means = {name: screen.errors(schedule).mean().item() for name, schedule in bar}
    names = sorted(means, key=means.__getitem__)[:finalists]
    squares = torch.stack([held_in.errors(fixed[name]).square() for name in names])
    scores = squares.mean(1).sqrt().tolist()

    objective = held_in
    if subset < len(held_in.y):
        hard = subset * 5 // 8
        seed = torch.Generator().manual_seed(int(generator.integers(2**31)))
        objective = held_in.part(*hard_subset(squares, hard, subset - hard, seed))
    initial = [fixed[name] for name in names]
    search = search_schedule(objective, initial, space, max(evaluations, len(initial)), generator, progress=progress)
    candidates = dict(zip(initial, scores, strict=True))
    candidates |= {schedule: held_in(schedule) for schedule in search.leaders if schedule not in candidates}
    best = min(candidates, key=candidates.__getitem__)
    ranked = {name: (fixed[name], score) for name, score in zip(names, scores, strict=True)}
    return Found(best, candidates[best], ranked, search)


def searched_schedule(
    problem: Problem, nfe: int, ems: EMS, evaluations: int = 1000, samples: int = 1024
) -> SolverSchedule:
    """The schedule found for a registry problem at a budget, kept in its cache.

    The search is held in: noise from the problem's own seed, exact trajectories by Runge-Kutta in log sigma.
    """
    if problem.fast:
        evaluations, samples = 40, 8
    space = SearchSpace(nfe, ("data", "v3") if problem.fast else ("noise", "data", "v3"))
    path = None
    if problem.cache is not None:
        key = f"{space}|{evaluations}|{samples}|{problem.seed}|{ems.fingerprint()}"
        path = problem.cache / f"schedule-nfe{nfe}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.yaml"
        if path.is_file():
            return SolverSchedule.load(path)
    generator = torch.Generator(problem.data.device).manual_seed(problem.seed)
    shape = (samples, *problem.data.shape[1:])
    y = torch.randn(shape, dtype=problem.data.dtype, device=problem.data.device, generator=generator)
    y = problem.sigma_max * y
    ends = torch.tensor([problem.sigma_max, problem.sigma_min], dtype=torch.float64)
    steps = 100 if problem.fast else 400
    with torch.no_grad():
        exact = cached_reference(problem.denoiser, y, ends, steps, problem.cache, ems.fingerprint())[-1]
    found = find_schedule(
        TrajectoryObjective(problem.denoiser, y, exact, ems),
        problem.sigma_max,
        problem.sigma_min,
        space,
        evaluations,
        np.random.default_rng(problem.seed + nfe),
        progress=not problem.fast,
    )
    if path is not None:
        found.schedule.save(path)
    return found.schedule


@register("searched_schedule")
def _searched(problem: Problem) -> dict[int, tuple[Solver, Tensor]]:
    """For budgets up to 20, beyond which the fixed solvers are already at the search's own resolution."""
    ems = problem_statistics(problem)
    schedules = {nfe: searched_schedule(problem, nfe, ems) for nfe in problem.nfes if nfe <= 20}
    return {
        nfe: (schedule.solver(ems), torch.tensor(schedule.sigmas, dtype=torch.float64))
        for nfe, schedule in schedules.items()
    }
