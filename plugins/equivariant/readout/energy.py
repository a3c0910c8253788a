"""Extensive sums over nodes and the conservative forces that follow from them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plugins.equivariant.graphs import Graph, scatter_sum
from plugins.equivariant.layers.activation import without_parameter_gradients


def pool(node_values: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
    """(N, ...) node values → (num_graphs, ...) sums; zero for a graph without nodes."""
    return scatter_sum(node_values, batch, num_graphs)


def energy_and_forces(
    model: Callable[[Graph], tuple[Tensor, Tensor]], graph: Graph, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Energy of each graph and the forces F = -dE/dpos, whatever the surrounding gradient mode.

    Args:
        model: graph → (scalars (N, S), vectors); its first scalar is the energy of a node.
        graph: positions are detached first: gradients flow to the parameters, not to where the positions came from.
        create_graph: keep the derivatives differentiable, for training on forces.

    Returns:
        energy (G,) and forces (N, n); both detached unless `create_graph`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # tensors made under inference mode cannot take part in differentiation; a clone can
        pos = (graph.pos.clone() if graph.pos.is_inference() else graph.pos.detach()).requires_grad_(True)
        scalars, _ = model(graph.replace(pos=pos))
        energy = pool(scalars[:, 0], graph.batch, graph.num_graphs)
        if not energy.requires_grad:
            return energy, torch.zeros_like(pos)
        with without_parameter_gradients():
            (gradient,) = torch.autograd.grad(
                energy.sum(), pos, create_graph=create_graph, allow_unused=True, materialize_grads=True
            )
    forces = -gradient
    return (energy, forces) if create_graph else (energy.detach(), forces.detach())
