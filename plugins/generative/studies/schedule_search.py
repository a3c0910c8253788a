"""S3 on the digits mixture: search a solver schedule on some noise, judge it on other noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from framework.data import data_dir
from framework.study import Study
from plugins.generative.figures_search import schedule_search_figure
from plugins.generative.mixtures import cached_reference, digits_mixture
from plugins.generative.solvers import Problem
from plugins.generative.solvers.ems import problem_statistics
from plugins.generative.solvers.schedule_search import Found, SearchSpace, TrajectoryObjective, find_schedule
from plugins.generative.solvers.unified import PREDICTIONS

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002


@dataclass(frozen=True)
class Judged:
    """What was found in one space at one budget, and errors (B,) on held-out noise.

    Attributes:
        found: Of the search.
        searched: Errors of the schedule found.
        fixed: Errors of the fixed schedule, among the finalists, that does best on the held-out noise itself.
    """

    found: Found
    searched: Tensor
    fixed: Tensor

    @property
    def gain(self) -> float:
        """Relative reduction of the root mean square error."""
        return 1 - rms(self.searched) / rms(self.fixed)


def rms(errors: Tensor) -> float:
    """Root mean square over all entries from the (B,) root mean squares of the samples."""
    return errors.square().mean().sqrt().item()


class ScheduleSearch(Study):
    """Searches a schedule for each budget and compares it with the best of all fixed schedules.

    The fixed schedules are `fixed_schedules`: every grid x prediction x order x corrector x relaxation, with the same
    predictions as the search. Those best on held-in noise start the search, which sees no other noise; the baseline is
    the one of them that is best on the held-out noise, to its advantage.

    Metrics for each space s and budget k, on held-out noise: `rms/searched/nfe<k>`, `rms/best_fixed/nfe<k>`,
    `gain/nfe<k>` (1 - their ratio), `gain/smallest`, and the medians over samples `median/searched|best_fixed/nfe<k>`;
    on held-in noise `rms_held_in/searched|best_fixed/nfe<k>`. The names are those of the first space; for every
    further space they end in its name (`rms/searched_<s>/nfe<k>`, `gain_<s>/nfe<k>`, ...).
    The schedules are written to `schedules/<s>_nfe<k>.yaml` in the run folder, statistics to `schedules/ems.pt`.

    Args:
        nfe: Budgets of evaluations.
        spaces: Name -> predictions, of "noise", "data" and "v3", which needs model statistics.
        evaluations: Schedules to evaluate in each search.
        candidates: Children made for each one evaluated, ranked by a learned predictor; 1 works without it.
        held_in, held_out: Trajectories searched on and judged by.
        s0: Standard deviation of the mixture's components.
        statistics_points, statistics_samples: Of the model statistics.
        reference_steps: Of the exact trajectories.
        seed: Of the search and of all noise.
        cache: Folder for exact trajectories and statistics; None is `generative` in the data folder.
        fast: One budget, the first space, few trajectories and evaluations, no cache.
    """

    def __init__(
        self,
        spaces: Mapping[str, Sequence[str]],
        nfe: Sequence[int] = (5, 8, 10),
        evaluations: int = 1500,
        candidates: int = 16,
        held_in: int = 2048,
        held_out: int = 1024,
        s0: float = 0.3,
        statistics_points: int = 241,
        statistics_samples: int = 512,
        reference_steps: int = 300,
        seed: int = 0,
        cache: str | None = None,
        fast: bool = False,
    ) -> None:
        super().__init__()
        for name, predictions in spaces.items():
            if not predictions or not set(predictions) <= set(PREDICTIONS):
                raise ValueError(f"spaces.{name} must hold some of {', '.join(PREDICTIONS)}; got {list(predictions)}")
        if not spaces or min(nfe) < 1 or min(held_in, held_out) < 1:
            raise ValueError(
                f"a space, and nfe, held_in and held_out of at least 1 are needed; got {list(spaces)}, {list(nfe)}, "
                f"{held_in}, {held_out}"
            )
        kept = list(spaces.items())[: 1 if fast else None]
        self.spaces = {name: tuple(predictions) for name, predictions in kept}
        self.nfe = tuple(nfe)[:1] if fast else tuple(nfe)
        self.evaluations = 40 if fast else evaluations
        self.candidates = candidates
        self.held_in, self.held_out = (8, 8) if fast else (held_in, held_out)
        self.s0, self.seed = s0, seed
        self.statistics = (statistics_points, statistics_samples)
        self.reference_steps = 100 if fast else reference_steps
        self.cache = None if fast else Path(cache) if cache else data_dir() / "generative"
        self.fast = fast

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
        if any("v3" in predictions for predictions in self.spaces.values()):
            examples = mixture.sample(4096, torch.Generator(self.device).manual_seed(self.seed))
            problem = Problem(
                mixture, SIGMA_MAX, SIGMA_MIN, examples, cache=self.cache, fast=self.fast, seed=self.seed
            )
            ems = problem_statistics(problem, *self.statistics)
            ems.save(self.run_dir / "schedules" / "ems.pt")
        everything = TrajectoryObjective(mixture, y, exact, ems)
        inside, outside = everything.part(slice(self.held_in)), everything.part(slice(self.held_in, None))
        results = {
            space: {nfe: self._search(space, nfe, inside, outside) for nfe in self.nfe} for space in self.spaces
        }
        self.save_figure("schedule_search", schedule_search_figure(results))
        return self._metrics(results)

    def _search(self, name: str, nfe: int, inside: TrajectoryObjective, outside: TrajectoryObjective) -> Judged:
        space = SearchSpace(nfe, self.spaces[name], candidates=self.candidates)
        generator = np.random.default_rng((self.seed, nfe))
        found = find_schedule(inside, SIGMA_MAX, SIGMA_MIN, space, self.evaluations, generator, progress=True)
        found.schedule.save(self.run_dir / "schedules" / f"{name}_nfe{nfe}.yaml")
        fixed = min((outside.errors(schedule).cpu() for schedule, _ in found.finalists.values()), key=rms)
        return Judged(found, outside.errors(found.schedule).cpu(), fixed)

    @staticmethod
    def _metrics(results: Mapping[str, Mapping[int, Judged]]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for index, (space, budgets) in enumerate(results.items()):
            end = f"_{space}" if index else ""
            for nfe, judged in budgets.items():
                held_in = min(score for _, score in judged.found.finalists.values())
                metrics[f"rms/searched{end}/nfe{nfe}"] = rms(judged.searched)
                metrics[f"rms/best_fixed{end}/nfe{nfe}"] = rms(judged.fixed)
                metrics[f"gain{end}/nfe{nfe}"] = judged.gain
                metrics[f"median/searched{end}/nfe{nfe}"] = judged.searched.median().item()
                metrics[f"median/best_fixed{end}/nfe{nfe}"] = judged.fixed.median().item()
                metrics[f"rms_held_in/searched{end}/nfe{nfe}"] = judged.found.score
                metrics[f"rms_held_in/best_fixed{end}/nfe{nfe}"] = held_in
            metrics[f"gain{end}/smallest"] = min(judged.gain for judged in budgets.values())
        return metrics
