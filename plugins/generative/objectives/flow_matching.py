"""Flow matching along straight lines (Lipman et al. 2023; Liu et al. 2023).

Time as in `plugins.generative.schedules.Flow`: x_t = (1 - t) x0 + t noise, so t = 0 is data, t = 1 is noise, and the
velocity dx_t / dt = noise - x0 points away from the data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def stratified_times(
    count: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """`count` times, one uniform in each of `count` equal parts of [0, 1], ascending: float32 (count,).

    Each is uniform on [0, 1] once the batch is shuffled, and their mean loss has less variance than that of
    independent times (Kingma et al. 2021).
    """
    offsets = torch.rand(count, generator=generator, device=device)
    return (torch.arange(count, device=device) + offsets) / max(count, 1)


def flow_matching_loss(
    network: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    x0: Tensor,
    t: Tensor,
    noise: Tensor,
    c: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the network's velocity at x_t, a scalar; at its minimum it is E[noise - x0 | x_t].

    Args:
        network: network(x_t, t, c) -> velocity (B, ...).
        x0: (B, ...) data.
        t: (B,) times in [0, 1].
        noise: (B, ...) standard normal.
        c: (B,) labels, or None.
    """
    if noise.shape != x0.shape or t.shape != x0.shape[:1]:
        raise ValueError(
            f"x0, t and noise do not belong together: shapes {tuple(x0.shape)}, {tuple(t.shape)}, {tuple(noise.shape)}"
        )
    time = t.view(-1, *[1] * (x0.ndim - 1))
    x_t = (1 - time) * x0 + time * noise
    return (network(x_t, t, c) - (noise - x0)).square().mean()
