"""What a potential owes to physics, measured: invariance of the energy, vanishing torque."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.equivariant.geometry import random_orthogonal
from plugins.equivariant.graphs import Graph, centre, scatter_sum

from .potential import Potential


def net_torque(graph: Graph, forces: Tensor) -> Tensor:
    """(G,) norm of the sum over atoms of (r - centroid) x F, in eV; zero for a rotation-invariant energy."""
    arm = centre(graph.pos, graph.batch, graph.num_graphs)
    return scatter_sum(torch.linalg.cross(arm, forces), graph.batch, graph.num_graphs).norm(dim=-1)


def rotational_spread(potential: Potential, graph: Graph, rotations: int = 8) -> Tensor:
    """(G,) standard deviation of the energy over random rotations of the whole system, in eV."""
    if rotations < 2:
        raise ValueError(f"rotations must be at least 2 to have a spread, not {rotations}")
    energies = []
    for _ in range(rotations):
        turn = random_orthogonal(graph.num_graphs, graph.pos, proper=True)[graph.batch]
        turned = graph.replace(pos=torch.einsum("nij,nj->ni", turn, graph.pos))
        energies.append(potential(turned)[0])
    return torch.stack(energies).std(0)
