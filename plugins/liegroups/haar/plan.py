"""Which layer uses which samples, and when they are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from plugins.liegroups.haar.samplers import Sampler
from plugins.liegroups.haar.samples import Samples


class SamplePlan(nn.Module):
    """Owns the sample sets of a network and gives one to every stage.

    ``sampler`` draws a set of ``n`` samples (None for a structured rule). ``sets`` names the set of each stage: with
    ``(0, 0, 1)`` the first two stages share one set and the last has its own. A layer's input samples are the output
    samples of the stage before it, so a residual branch needs equal numbers at its ends.

    In training, random sets are drawn anew at every call from torch's generator, and ``offset`` (a sampler of the same
    group) moves all sets by one common random element. Left translation leaves every ``g_i^-1 g_j`` and every weight
    unchanged, so for R^2 x| H this is an exact symmetry of the continuous network and costs nothing (for centred
    homographies it is one choice of samples among others). In evaluation the sets come
    from ``seed`` and no offset is applied: the same input gives the same output. ``eval_offsets`` > 1 makes
    ``evaluation_draws`` return that many fixed offsets to average over. ``weighted=False`` drops the Haar weights.
    """

    def __init__(
        self, sampler: Sampler, n: int | None = None, sets: Sequence[int] = (0,), offset: Sampler | None = None,
        eval_offsets: int = 1, weighted: bool = True, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        if not sets or min(sets) < 0:
            raise ValueError(f"sets={sets}: give one non-negative set number for each stage")
        if offset is not None and offset.group.name != sampler.group.name:
            raise ValueError(f"offset samples {offset.group.name} but the sampler samples {sampler.group.name}")
        if eval_offsets < 1 or (eval_offsets > 1 and offset is None):
            raise ValueError(f"eval_offsets={eval_offsets}: at least 1, and more than 1 only with an offset sampler")
        self.sampler, self.n, self.sets, self.offset = sampler, n, tuple(sets), offset
        self.eval_offsets, self.weighted, self.seed = eval_offsets, weighted, seed
        self.group = sampler.group
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)
        self._evaluation: list[list[Samples]] | None = None

    def _draw(self, generator: torch.Generator | None, offset: bool) -> list[Samples]:
        drawn = {}
        for name in sorted(set(self.sets)):
            samples = self.sampler(self.n, generator)
            drawn[name] = samples.normalized() if self.weighted else samples.unweighted()
        if offset and self.offset is not None:
            h = self.offset(1, generator).g[0]
            drawn = {name: s.left_translate(self.group, h) for name, s in drawn.items()}
        return [drawn[name] for name in self.sets]

    def _place(self, stages: list[Samples]) -> list[Samples]:
        placed = {id(s): s.to(dtype=self._anchor.dtype, device=self._anchor.device) for s in stages}
        return [placed[id(s)] for s in stages]

    def forward(self) -> list[Samples]:
        """Samples for every stage, in the plan's dtype and device."""
        return self._place(self._draw(None, offset=True)) if self.training else self.evaluation_draws()[0]

    def evaluation_draws(self) -> list[list[Samples]]:
        """The fixed draws of evaluation, ``eval_offsets`` of them; the first has no offset."""
        if self._evaluation is None:
            generator = torch.Generator().manual_seed(self.seed)
            first = self._draw(generator, offset=False)
            moved = []
            for _ in range(self.eval_offsets - 1):
                h = self.offset(1, generator).g[0]
                shared = {id(s): s.left_translate(self.group, h) for s in first}
                moved.append([shared[id(s)] for s in first])
            self._evaluation = [first, *moved]
        return [self._place(stages) for stages in self._evaluation]
