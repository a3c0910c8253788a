"""Noise of one Fourier mode at the input of every layer (the robustness protocol of Yu et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from plugins.state_space.layers import S4D


@contextmanager
def fourier_disturbance(model: nn.Module, condition: tuple[float, float] | None) -> Iterator[None]:
    """While active, every S4D layer's input u[b, k, h] gains amplitude·U[b, h]·cos(ω Δ_h k), U uniform in [0, 1).

    ω is a frequency in the layer's own continuous time, so every channel meets it at its own step size Δ_h.

    Args:
        model: holds ``S4D`` layers (S4-PTD among them).
        condition: (ω, amplitude), or None for no noise.
    """
    if condition is None:
        yield
        return
    omega, amplitude = condition

    def add_noise(layer: S4D, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        u: Tensor = arguments[0]
        step = layer.step_rescale * torch.exp(layer.log_dt.double())
        phase = omega * step * torch.arange(u.shape[1], device=u.device, dtype=torch.float64)[:, None]
        size = amplitude * torch.rand(u.shape[0], 1, u.shape[2], device=u.device, dtype=u.dtype)
        return (u + size * torch.cos(phase).to(u.dtype), *arguments[1:])

    handles = [m.register_forward_pre_hook(add_noise) for m in model.modules() if isinstance(m, S4D)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
