"""Do samples differ: diversity over all, multimodality within one prompt (Guo et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor


def diversity(features: Tensor, pairs: int = 300, generator: torch.Generator | None = None) -> float:
    """Mean Euclidean distance of `pairs` random pairs of distinct samples of features (N, D).

    Raises:
        ValueError: fewer than two samples.
    """
    if len(features) < 2:
        raise ValueError(f"diversity needs at least two samples, not {len(features)}")
    first = torch.randint(len(features), (pairs,), generator=generator)
    second = (first + torch.randint(1, len(features), (pairs,), generator=generator)) % len(features)
    return float(torch.linalg.vector_norm(features[first].double() - features[second].double(), dim=-1).mean())


def multimodality(
    features: Tensor, cells: Tensor, pairs: int = 10, generator: torch.Generator | None = None
) -> float:
    """Mean distance of `pairs` random pairs of distinct samples within a prompt, then over prompts.

    Args:
        features: (N, D).
        cells: (N,) integer, equal for samples of the same prompt; prompts with a single sample are left out.

    Returns:
        The mean, or nan if no prompt has two samples.
    """
    groups = [features[cells == cell] for cell in cells.unique()]
    means = [diversity(group, pairs, generator) for group in groups if len(group) > 1]
    return sum(means) / len(means) if means else float("nan")
