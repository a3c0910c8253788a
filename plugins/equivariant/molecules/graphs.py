"""Frames as graphs whose scalar feature is the atomic number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from plugins.equivariant.graphs import Graph, collate, fully_connected, radius_graph

from .frame import Frame


def frame_graph(frame: Frame, radius: float | None = None, dtype: torch.dtype = torch.float32) -> Graph:
    """One frame as a graph.

    Args:
        frame: with n atoms.
        radius: neighbours within this distance in angstrom; None joins all pairs of a molecule.
        dtype: of positions and forces.

    Returns:
        ``x`` (n, 1) atomic numbers; ``y`` holds what the frame knows of ``energy`` (1,), float64 in eV, whose total is
        too large for float32, and ``forces`` (n, 3).

    Raises:
        ValueError: a periodic frame without radius.
    """
    pos = torch.as_tensor(frame.pos, dtype=dtype)
    shifts = None
    if any(frame.pbc):
        if radius is None:
            raise ValueError("a periodic frame needs a radius: all pairs of a crystal are infinitely many")
        cell = torch.as_tensor(np.asarray(frame.cell), dtype=dtype)
        edge_index, shifts = radius_graph(pos, radius, cell=cell, pbc=list(frame.pbc))
    elif radius is None:
        edge_index = fully_connected([len(frame)])
    else:
        edge_index, _ = radius_graph(pos, radius)
    y: dict[str, Tensor] = {}
    if frame.energy is not None:
        y["energy"] = torch.tensor([frame.energy], dtype=torch.float64)
    if frame.forces is not None:
        y["forces"] = torch.as_tensor(frame.forces, dtype=dtype)
    numbers = torch.as_tensor(frame.numbers, dtype=dtype)[:, None]
    return Graph(pos=pos, x=numbers, edge_index=edge_index, shifts=shifts, y=y)


def batch_frames(frames: Sequence[Frame], radius: float | None = None, dtype: torch.dtype = torch.float32) -> Graph:
    """Frames laid end to end; arguments as for :func:`frame_graph`."""
    return collate([frame_graph(frame, radius, dtype) for frame in frames])


def one_hot(x: Tensor, table: Tensor) -> Tensor:
    """(N, 1) atomic numbers as (N, len(table)) indicators; rows of unknown elements are zero."""
    return (x == table.to(x)).to(x.dtype)


def check_species(x: Tensor, species: Sequence[int]) -> None:
    """Raise ValueError if (N, 1) atomic numbers hold an element that is not among the species."""
    if strange := sorted({int(z) for z in x.unique().tolist()} - set(species)):
        raise ValueError(f"atomic numbers {strange} are not among the potential's species {list(species)}")
