"""S3 on the digits mixture: search a solver schedule on some noise, judge it on other noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from framework.data import data_dir
from framework.study import Study
from plugins.generative.figures_search import schedule_search_figure
from plugins.generative.mixtures import cached_reference, digits_mixture
from plugins.generative.solvers import Problem
from plugins.generative.solvers.ems import problem_statistics
from plugins.generative.solvers.schedule_search import (
    SearchResult,
    SearchSpace,
    TrajectoryObjective,
    fixed_schedules,
    search_schedule,
)
from plugins.generative.solvers.unified import PREDICTIONS

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002


@dataclass(frozen=True)
class Budget:
    """What was found for one number of evaluations; errors are on held-out noise unless said otherwise.

    Attributes:
        result: Of the search, with held-in scores.
        searched: (B,) errors of the searched schedule.
        fixed_name, fixed: Name and (B,) errors of the fixed schedule that is best on the held-out noise itself.
        fixed_held_in: Held-in score of the best fixed schedule there.
        classical: Held-out score of the best fixed schedule without model statistics, if there is one.
    """

    result: SearchResult
    searched: Tensor
    fixed_name: str
    fixed: Tensor
    fixed_held_in: float
    classical: float | None


def rms(errors: Tensor) -> float:
    """Root mean square over all entries from the (B,) root mean squares of the samples."""
    return errors.square().mean().sqrt().item()


class ScheduleSearch(Study):
    """Searches a schedule for each budget and compares it with the best of all fixed schedules.

    The fixed schedules are `fixed_schedules`: every grid x prediction x order x corrector x relaxation. They start the
    search, which sees held-in noise only; the baseline is chosen on the held-out noise, to its advantage.

    Metrics, on held-out noise, for each budget k: `rms/searched/nfe<k>`, `rms/best_fixed/nfe<k>`, `gain/nfe<k>`
    (1 - their ratio), `gain/smallest`, `rms/best_classical/nfe<k>` (fixed, without model statistics), the medians of
    the samples' errors `median/searched|best_fixed/nfe<k>`; and `rms_held_in/searched|best_fixed/nfe<k>`.
    The schedules are written to `schedules/nfe<k>.yaml` in the run folder, the statistics to `schedules/ems.pt`.

    Args:
        nfe: Budgets of evaluations.
        predictions: Of "noise", "data", "v3"; for the search and the fixed schedules alike.
        evaluations: Schedules to evaluate for each budget, the fixed ones included.
        candidates: Children made for each one evaluated, ranked by a learned predictor; 1 works without it.
        held_in, held_out: Trajectories searched on and judged by.
        s0: Standard deviation of the mixture's components.
        statistics_points, statistics_samples: Of the model statistics.
        reference_steps: Of the exact trajectories.
        seed: Of the search and of all noise.
        cache: Folder for exact trajectories and statistics; None is `generative` in the data folder.
        fast: One budget, few trajectories and evaluations, data prediction only, no cache.
    """

    def __init__(
        self,
        nfe: Sequence[int] = (5, 8, 10),
        predictions: Sequence[str] = PREDICTIONS,
        evaluations: int = 1600,
        candidates: int = 16,
        held_in: int = 192,
        held_out: int = 256,
        s0: float = 0.3,
        statistics_points: int = 241,
        statistics_samples: int = 512,
        reference_steps: int = 500,
        seed: int = 0,
        cache: str | None = None,
        fast: bool = False,
    ) -> None:
        super().__init__()
        unknown = [name for name in predictions if name not in PREDICTIONS]
        if unknown or not predictions:
            raise ValueError(f"predictions must be some of {', '.join(PREDICTIONS)}; got {list(predictions)}")
        if min(nfe) < 1 or held_in < 1 or held_out < 1:
            raise ValueError(f"nfe, held_in and held_out must be at least 1; got {list(nfe)}, {held_in}, {held_out}")
        self.nfe = tuple(nfe)[:1] if fast else tuple(nfe)
        self.predictions = ("data",) if fast else tuple(predictions)
        self.evaluations = 170 if fast else evaluations
        self.candidates = candidates
        self.held_in, self.held_out = (8, 8) if fast else (held_in, held_out)
        self.s0, self.seed = s0, seed
        self.statistics = (statistics_points, statistics_samples)
        self.reference_steps = 100 if fast else reference_steps
        self.cache = None if fast else Path(cache) if cache else data_dir() / "generative"

    @torch.no_grad()
    def study(self) -> dict[str, float]:
        mixture = digits_mixture(self.s0).to(self.device)
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.held_in + self.held_out, mixture.dim)
        y = SIGMA_MAX * torch.randn(shape, dtype=torch.float64, generator=generator).to(self.device)
        ends = torch.tensor([SIGMA_MAX, SIGMA_MIN], dtype=torch.float64)
        identity = f"digits_mixture({self.s0!r})"
        exact = cached_reference(mixture, y, ends, self.reference_steps, self.cache, identity, progress=True)[-1]

        ems = None
        if "v3" in self.predictions:
            examples = mixture.sample(4096, torch.Generator(self.device).manual_seed(self.seed))
            problem = Problem(mixture, SIGMA_MAX, SIGMA_MIN, examples, cache=self.cache, seed=self.seed)
            ems = problem_statistics(problem, *self.statistics)
            ems.save(self.run_dir / "schedules" / "ems.pt")
        inside, outside = (
            TrajectoryObjective(mixture, y[part], exact[part], ems)
            for part in (slice(self.held_in), slice(self.held_in, None))
        )
        budgets = {nfe: self._search(nfe, inside, outside) for nfe in self.nfe}
        for nfe, budget in budgets.items():
            budget.result.schedule.save(self.run_dir / "schedules" / f"nfe{nfe}.yaml")
        self.save_figure("schedule_search", schedule_search_figure(budgets))
        return self._metrics(budgets)

    def _search(self, nfe: int, inside: TrajectoryObjective, outside: TrajectoryObjective) -> Budget:
        fixed = fixed_schedules(nfe, SIGMA_MAX, SIGMA_MIN, self.predictions)
        scores = {name: outside(schedule) for name, schedule in tqdm(fixed.items(), f"fixed schedules, NFE {nfe}")}
        best = min(scores, key=scores.__getitem__)
        classical = [score for name, score in scores.items() if not fixed[name].needs_ems]
        space = SearchSpace(nfe, self.predictions, candidates=self.candidates)
        rng = np.random.default_rng((self.seed, nfe))
        evaluations = max(self.evaluations, len(fixed))
        result = search_schedule(inside, fixed, space, evaluations, rng, progress=True)
        return Budget(
            result,
            outside.errors(result.schedule).cpu(),
            best,
            outside.errors(fixed[best]).cpu(),
            result.history[result.initial - 1],
            min(classical, default=None),
        )

    @staticmethod
    def _metrics(budgets: dict[int, Budget]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for nfe, budget in budgets.items():
            metrics[f"rms/searched/nfe{nfe}"] = rms(budget.searched)
            metrics[f"rms/best_fixed/nfe{nfe}"] = rms(budget.fixed)
            if budget.classical is not None:
                metrics[f"rms/best_classical/nfe{nfe}"] = budget.classical
            metrics[f"gain/nfe{nfe}"] = 1 - rms(budget.searched) / rms(budget.fixed)
            metrics[f"median/searched/nfe{nfe}"] = budget.searched.median().item()
            metrics[f"median/best_fixed/nfe{nfe}"] = budget.fixed.median().item()
            metrics[f"rms_held_in/searched/nfe{nfe}"] = budget.result.score
            metrics[f"rms_held_in/best_fixed/nfe{nfe}"] = budget.fixed_held_in
        metrics["gain/smallest"] = min(metrics[f"gain/nfe{nfe}"] for nfe in budgets)
        return metrics
