"""The discrete cosine schedule, and subsets of its steps."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.generative.grids import append_zero
from plugins.generative.schedules import VPCosine, VPDiscrete


def cosine_betas(steps: int = 1000, largest: float = 0.999) -> list[float]:
    """``beta_i = min(1 - abar((i + 1) / N) / abar(i / N), largest)``, abar the cosine schedule's signal power.

    Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 17 and the clipping below it.
    """
    if steps < 2:
        raise ValueError(f"steps = {steps} must be at least 2")
    power = VPCosine().alpha(torch.arange(steps + 1, dtype=torch.float64) / steps).square()
    return (1 - power[1:] / power[:-1]).clamp(max=largest).tolist()


def respaced(schedule: VPDiscrete, steps: int | None = None) -> Tensor:
    """Noise levels of ``steps`` of the schedule's times, evenly spaced from the last to the first, then 0.

    Args:
        steps: how many; all of them when omitted.

    Returns:
        (steps + 1,) float64, decreasing: a grid for any solver. With the ancestral solver these are the variances
        of the re-spaced DDPM (Nichol & Dhariwal 2021, section 4).
    """
    count = schedule.steps
    steps = count if steps is None else steps
    if not 2 <= steps <= count:
        raise ValueError(f"steps = {steps} must lie in 2 … {count}, the steps of the schedule")
    index = torch.linspace(count - 1, 0, steps, dtype=torch.float64).round()
    return append_zero(schedule.sigma_tilde((index + 1) / count))
