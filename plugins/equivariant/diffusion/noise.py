"""States of the diffusion: positions without centre of mass beside scaled indicators of the atoms' types."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.equivariant.graphs import centre

TYPE_SCALE = 0.25
"""Indicators are this large, so that positions are decided before types (Hoogeboom et al. 2022, section 4)."""


def noise_like(state: Tensor, batch: Tensor, num_graphs: int, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of a state (N, 3 + S) whose positions have no centre of mass."""
    noise = torch.randn(state.shape, dtype=state.dtype, device=state.device, generator=generator)
    return torch.cat([centre(noise[:, :3], batch, num_graphs), noise[:, 3:]], dim=1)


def encode(pos: Tensor, numbers: Tensor, table: Tensor, length: float, batch: Tensor, num_graphs: int) -> Tensor:
    """Molecules as a state.

    Args:
        pos: (N, 3) in angstrom.
        numbers: (N,) or (N, 1) atomic numbers.
        table: (S,) the atomic numbers that occur.
        length: angstrom that become 1.
        batch, num_graphs: of the atoms.

    Returns:
        (N, 3 + S).
    """
    kinds = (numbers.reshape(-1, 1) == table.to(numbers)).to(pos.dtype) * TYPE_SCALE
    return torch.cat([centre(pos, batch, num_graphs) / length, kinds], dim=1)


def decode(state: Tensor, table: Tensor, length: float) -> tuple[Tensor, Tensor]:
    """Positions (N, 3) in angstrom and atomic numbers (N,) of a state: the largest indicator wins."""
    return state[:, :3] * length, table.to(state.device)[state[:, 3:].argmax(-1)]
