"""A learned ranking of solver schedules, so that a search evaluates only the most promising candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from .unified import CORRECTORS, FIRST_EVALUATIONS, MAX_ORDER, PREDICTIONS, RELAXATIONS, SolverSchedule

_MAX_START = 4
STEP_FEATURES = 3 + MAX_ORDER + MAX_ORDER + len(PREDICTIONS) + len(RELAXATIONS) + 1 + len(CORRECTORS) + _MAX_START


@lru_cache(maxsize=8192)  # every fit reads all schedules again
@torch.inference_mode(False)
def encode_schedule(schedule: SolverSchedule) -> Tensor:
    """(steps, STEP_FEATURES + len(FIRST_EVALUATIONS)) float32 features: levels in log sigma over the range, genes."""

    def one_hot(index: int, size: int) -> list[float]:
        return [float(position == min(index, size - 1)) for position in range(size)]

    high, low = math.log(schedule.sigmas[0]), math.log(schedule.sigmas[-1] or schedule.sigmas[-2] / 10)
    place = [(high - math.log(sigma or math.exp(low))) / (high - low) for sigma in schedule.sigmas]
    first = one_hot(FIRST_EVALUATIONS.index(schedule.first_evaluation), len(FIRST_EVALUATIONS))
    rows = []
    for i, genes in enumerate(schedule.steps):
        rows.append(
            [
                place[i],
                place[i + 1],
                place[i + 1] - place[i],
                *one_hot(genes.order - 1, MAX_ORDER),
                *one_hot(genes.difference or genes.order - 1, MAX_ORDER),
                *one_hot(PREDICTIONS.index(genes.prediction), len(PREDICTIONS)),
                *one_hot(RELAXATIONS.index(genes.relaxation), len(RELAXATIONS)),
                genes.relaxation_coefficient,
                *one_hot(CORRECTORS.index(genes.corrector), len(CORRECTORS)),
                *one_hot(genes.start - 1, _MAX_START),
                *first,
            ]
        )
    return torch.tensor(rows)


class SchedulePredictor(nn.Module):
    """Schedule -> a number that orders schedules like their scores (lower is better), on no particular scale.

    A GRU reads the steps; a small network reads its last state. Trained by a pairwise ranking loss: for each pair of
    evaluated schedules the worse one should lie at least `margin` above the better.

    Args:
        width: Of the GRU and the head.
        margin: Of the hinge.
        generator: Source of the initial weights and of the training batches.
    """

    def __init__(self, width: int = 48, margin: float = 0.1, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.margin, self.generator = margin, generator
        # weights born in inference mode could not be trained
        with torch.inference_mode(False), torch.no_grad():
            self.encoder = nn.GRU(STEP_FEATURES + len(FIRST_EVALUATIONS), width, batch_first=True)
            self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
            for parameter in self.parameters():
                bound = width**-0.5
                parameter.uniform_(-bound, bound, generator=generator)
        self.optimizer = torch.optim.Adam(self.parameters(), 3e-3)

    def forward(self, schedules: Sequence[SolverSchedule]) -> Tensor:
        """(len(schedules),) predicted ranks."""
        return self._rank(*_padded([encode_schedule(schedule) for schedule in schedules]))

    def _rank(self, features: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
        _, last = self.encoder(packed)
        return self.head(last[0]).squeeze(-1)

    def fit(
        self, schedules: Sequence[SolverSchedule], scores: Sequence[float], steps: int = 60, batch: int = 64
    ) -> None:
        """Train on evaluated schedules, from where the last call stopped; infinite scores rank last.

        Args:
            schedules, scores: Two or more, lower scores better.
            steps: Optimizer steps.
            batch: Schedules in each, all pairs of which are compared.
        """
        with torch.inference_mode(False), torch.enable_grad():
            features, lengths = _padded([encode_schedule(schedule) for schedule in schedules])
            target = torch.tensor(scores, dtype=torch.float64)
            for _ in range(steps):
                chosen = torch.randint(len(target), (min(batch, len(target)),), generator=self.generator)
                ranks, wanted = self._rank(features[chosen], lengths[chosen]), target[chosen]
                worse = wanted[:, None] > wanted[None, :]
                hinge = (self.margin - (ranks[:, None] - ranks[None, :])).clamp_min(0)
                if not bool(worse.any()):
                    continue
                self.optimizer.zero_grad()
                hinge[worse].mean().backward()
                self.optimizer.step()


def _padded(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(rows) for rows in features])
    return nn.utils.rnn.pad_sequence(list(features), batch_first=True), lengths
