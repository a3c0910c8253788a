"""Real samples to compare generated ones with: what a perfect model would score."""

from __future__ import annotations

import torch
from torch import Tensor


def matched_subsets(labels: Tensor, like: Tensor) -> list[Tensor]:
    """Disjoint subsets of `labels` (n,) with the class counts of `like` (m,), as many as there are: indices, each (m,).

    A distance between m real samples and m others has the same bias as one between m generated samples and m others,
    which that of all n would not.

    Raises:
        ValueError: a class of `like` is rarer in `labels`.
    """
    wanted = torch.bincount(like)
    members = [torch.nonzero(labels == label).flatten() for label in range(len(wanted))]
    for label, count in enumerate(wanted.tolist()):
        if len(members[label]) < count:
            raise ValueError(f"class {label}: {count} samples wanted, {len(members[label])} there")
    folds = min(len(members[label]) // count for label, count in enumerate(wanted.tolist()) if count)
    return [
        torch.cat([members[label][fold * count : (fold + 1) * count] for label, count in enumerate(wanted.tolist())])
        for fold in range(folds)
    ]
