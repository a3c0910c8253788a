"""Learning rates as functions of the used share of a training budget, be it steps or seconds."""

from __future__ import annotations

import math


def warm_cosine(progress: float, warmup: float = 0.02, final: float = 0.0) -> float:
    """Factor on the rate: linear up to 1 over the share ``warmup``, then a cosine down to ``final``.

    Args:
        progress: used share of the budget; clamped to [0, 1].
        warmup: share of the rise; the first steps have a factor above 0.
        final: factor at the end.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / max(1 - warmup, 1e-9)))
