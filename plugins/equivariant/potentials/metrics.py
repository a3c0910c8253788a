"""What a potential owes to physics, measured: invariance of the energy, vanishing torque."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.equivariant.graphs import Graph
from plugins.equivariant.rotations import random_orthogonal

from .potential import Potential


def net_torque(graph: Graph, forces: Tensor) -> Tensor:
    """(G,) norm of the sum over atoms of (r - centroid) x F, in eV; zero for a rotation-invariant energy."""
    count = torch.zeros(graph.num_graphs, 1, dtype=graph.pos.dtype, device=graph.pos.device)
    ones = torch.ones(len(graph.pos), 1, dtype=graph.pos.dtype, device=graph.pos.device)
    count.index_add_(0, graph.batch, ones)
    total = graph.pos.new_zeros(graph.num_graphs, 3)
    centroid = total.index_add(0, graph.batch, graph.pos) / count.clamp_min(1)
    arm = graph.pos - centroid[graph.batch]
    return total.index_add(0, graph.batch, torch.linalg.cross(arm, forces)).norm(dim=-1)


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


def force_cosine(predicted: Tensor, reference: Tensor) -> Tensor:
    """Mean cosine of the angle between predicted and reference forces (N, 3) of atoms with non-zero forces."""
    moving = reference.norm(dim=-1) > 0
    return torch.nn.functional.cosine_similarity(predicted[moving], reference[moving], dim=-1).mean()
