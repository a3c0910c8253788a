"""Rows that every table holds beside the generators: what real motion scores, and what plainly bad motion does.

Each takes real clips and returns motions as bad; a metric that cannot tell them from real ones is no judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from plugins.motion.evaluation.clips import LabelledClips, cell_numbers

Treatment = Callable[[LabelledClips, torch.Generator], tuple[Tensor, Tensor]]
"""``treatment(clips, generator) -> motion (N, T, D), lengths (N,)``."""

JITTER = 0.3  # standard deviations of the normalised features


def real(clips: LabelledClips, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The clips as they are."""
    return clips.motion, clips.lengths


def jittered_real(clips: LabelledClips, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """White noise on every number: Fréchet distances hardly see it, accelerations do."""
    noise = torch.randn(clips.motion.shape, generator=generator)
    return (clips.motion + JITTER * noise) * clips.mask.unsqueeze(-1), clips.lengths


def shuffled_labels(clips: LabelledClips, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Real motions of other clips, so that nothing fits its text but by chance. Each has its own length."""
    order = torch.randperm(len(clips), generator=generator)
    # one step round a random circle: nobody keeps their own
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return clips.motion[other], clips.lengths[other]


def frozen_frame(groups: Mapping[str, slice], mean: Tensor, std: Tensor) -> Treatment:
    """The first pose, held for the length of the clip.

    Args:
        groups: columns of the representation by name; turns and velocities become zero.
        mean, std: (D,) of the normalisation.
    """
    still = torch.zeros(len(mean), dtype=torch.bool)
    for name, columns in groups.items():
        if name == "turn" or "velocit" in name:
            still[columns] = True

    def frozen(clips: LabelledClips, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first = torch.where(still, -mean.cpu() / std.cpu(), clips.motion[:, :1].cpu())
        return first * clips.mask.unsqueeze(-1), clips.lengths

    return frozen


def mean_motion(train: LabelledClips) -> Treatment:
    """The mean over training clips at every frame: the same for every text."""
    weight = train.mask.unsqueeze(-1).to(train.motion)
    count = weight.sum(0)
    overall = (train.motion * weight).sum((0, 1)) / count.sum(0)
    # frames that no training clip reaches take the mean of all
    average = torch.where(count > 0, (train.motion * weight).sum(0) / count.clamp_min(1), overall)

    def averaged(clips: LabelledClips, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return average * clips.mask.unsqueeze(-1), clips.lengths

    return averaged


def matched(train: LabelledClips, test: LabelledClips, generator: torch.Generator) -> LabelledClips:
    """For every test clip a random training clip with its labels, so that two real sets differ only in the clips.

    A label pair that the training split lacks gives any clip of the same content, else any clip.
    """
    cells = cell_numbers(train.content, train.style)
    picks = []
    for cell, content in zip(cell_numbers(test.content, test.style).tolist(), test.content.tolist(), strict=True):
        candidates = torch.nonzero(cells == cell).flatten()
        if not len(candidates):
            candidates = torch.nonzero(train.content == content).flatten()
        if not len(candidates):
            candidates = torch.arange(len(train))
        picks.append(candidates[torch.randint(len(candidates), (), generator=generator)])
    return train[torch.stack(picks)]
