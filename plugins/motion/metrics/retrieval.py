"""Do motions match their texts: R-precision, matching distance (Guo et al. 2022, sec. 5.1), and label accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def distinct_pools(cells: Tensor, size: int, pools: int, generator: torch.Generator | None = None) -> Tensor:
    """Indices (pools, size) of samples whose cells all differ within a pool.

    With few distinct prompts a random pool holds several right answers, of which only one counts; pools of distinct
    cells have no such ceiling.

    Args:
        cells: (N,) integer per sample, equal for samples with the same prompt.

    Raises:
        ValueError: there are fewer than `size` distinct cells.
    """
    members = [torch.nonzero(cells == cell).flatten() for cell in cells.unique()]
    if len(members) < size:
        raise ValueError(f"pools of {size} distinct prompts need as many cells; there are {len(members)}")
    drawn = []
    for _ in range(pools):
        chosen = torch.randperm(len(members), generator=generator)[:size].tolist()
        drawn.append(
            torch.stack([members[i][torch.randint(len(members[i]), (), generator=generator)] for i in chosen])
        )
    return torch.stack(drawn)


def r_precision(text: Tensor, motion: Tensor, pools: Tensor, top: Sequence[int] = (1, 2, 3)) -> dict[int, float]:
    """Share of texts whose own motion is among the k nearest of its pool, for k in `top`.

    Args:
        text, motion: (N, E) embeddings in one space; row i of both belong together.
        pools: (P, S) indices, as of `distinct_pools`. Chance is k / S.
    """
    distance = torch.cdist(text[pools].double(), motion[pools].double())  # (P, S, S)
    own = distance.diagonal(dim1=1, dim2=2).unsqueeze(-1)
    # ties count against the sample: a constant embedding must not score
    rank = (distance <= own).sum(-1)
    return {k: float((rank <= k).double().mean()) for k in top}


def matching_distance(text: Tensor, motion: Tensor) -> float:
    """Mean Euclidean distance of embeddings (N, E) that belong together ("MM-Dist")."""
    return float(torch.linalg.vector_norm(text.double() - motion.double(), dim=-1).mean())


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows of `logits` (N, C) whose largest entry is at `labels` (N,)."""
    if len(labels) == 0:
        raise ValueError("accuracy of no samples")
    return float((logits.argmax(-1) == labels).double().mean())
