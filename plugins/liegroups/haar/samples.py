"""Weighted samples of a group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from plugins.liegroups.groups import LieGroup


@dataclass(frozen=True)
class Samples:
    """N elements with their inverses and log weights: ``int f dmu ~ (1/N) sum_j exp(log_weight_j) f(g_j)``.

    g, g_inv: [N, m, m]; log_weight: [N]. The measure is the left Haar measure restricted to the sampler's region.
    """

    g: Tensor
    g_inv: Tensor
    log_weight: Tensor

    def __len__(self) -> int:
        return self.g.shape[0]

    def left_translate(self, group: LieGroup, h: Tensor) -> Samples:
        """The samples ``h g_j``; weights keep, because the measure is left invariant."""
        h = h.to(self.g)
        return Samples(group.compose(h, self.g), group.compose(self.g_inv, group.inverse(h)), self.log_weight)

    def normalized(self) -> Samples:
        """Weights divided by their mean, so that the samples stand for a measure of total mass one."""
        mean = torch.logsumexp(self.log_weight, 0) - math.log(max(len(self), 1))
        return Samples(self.g, self.g_inv, self.log_weight - mean)

    def unweighted(self) -> Samples:
        """All weights one: integrates against the sampler's own distribution, which is not invariant."""
        return Samples(self.g, self.g_inv, torch.zeros_like(self.log_weight))

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Samples:
        """Copy in another dtype or on another device."""
        return Samples(*(t.to(dtype=dtype, device=device) for t in (self.g, self.g_inv, self.log_weight)))


def samples_of(group: LieGroup, g: Tensor, log_weight: Tensor | None = None) -> Samples:
    """Samples from explicit elements ``g`` [N, m, m], by default with unit weights."""
    weight = g.new_zeros(len(g)) if log_weight is None else log_weight.to(g)
    return Samples(g, group.inverse(g), weight)
