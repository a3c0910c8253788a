"""From node-level scalars of an equivariant network to energies in eV and forces in eV / angstrom."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plugins.equivariant.graphs import Graph
from plugins.equivariant.molecules.graphs import one_hot
from plugins.equivariant.readout import energy_and_forces


class Potential(nn.Module):
    """E = sum over atoms of (reference energy of the species + scale * network output), F = -dE/dpos.

    Args:
        network: called with a ``Graph`` whose ``x`` are indicators of the species; its first scalar is an atom's
            energy. It must accept ``len(species)`` scalars.
        species: atomic numbers that may occur.
        radius: neighbourhood in angstrom that the network was made for; None for all pairs. It is only remembered, for
            whoever builds graphs (the calculator does).
    """

    def __init__(self, network: nn.Module, species: Sequence[int], radius: float | None = None) -> None:
        super().__init__()
        if not species or len(set(species)) != len(species) or min(species) < 1:
            raise ValueError(f"species must be distinct atomic numbers, not {list(species)}")
        self.network, self.species, self.radius = network, [int(z) for z in species], radius
        self.register_buffer("table", torch.tensor(self.species))
        self.register_buffer("reference", torch.zeros(len(species), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def set_units(self, reference: Sequence[float] | Tensor, scale: float) -> None:
        """Fix the zero and the unit of the network's energies.

        Args:
            reference: (len(species),) energies of single atoms in eV (see ``reference_energies``).
            scale: eV, positive; the root mean square of the training forces makes its targets of order one.
        """
        if not scale > 0:
            raise ValueError(f"scale must be positive, not {scale}")
        self.reference.copy_(torch.as_tensor(reference, dtype=torch.float64))
        self.scale.fill_(scale)

    def scaled(self, graph: Graph, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Energy above the references (G,) and forces (N, 3), both divided by ``scale``; gradients must be enabled.

        Args:
            graph: ``x`` (N, 1) atomic numbers.
            create_graph: keep the forces differentiable, as training needs.
        """
        return energy_and_forces(self.network, self.inputs(graph), create_graph)

    def inputs(self, graph: Graph) -> Graph:
        """The graph as the network reads it: ``x`` (N, species) indicators in place of (N, 1) atomic numbers."""
        return graph.replace(x=one_hot(graph.x, self.table), y={})

    def targets(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """The graph's own energies and forces in the units of ``scaled``."""
        energy = (graph.y["energy"].double() - self.references(graph)) / self.scale
        return energy.to(graph.pos.dtype), graph.y["forces"] / self.scale.to(graph.pos.dtype)

    def references(self, graph: Graph) -> Tensor:
        """(G,) sums of the species' reference energies in eV, float64."""
        atoms = one_hot(graph.x.double(), self.table) @ self.reference
        return atoms.new_zeros(graph.num_graphs).index_add_(0, graph.batch, atoms)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Energies (G,) in eV, float64, and forces (N, 3) in eV / angstrom, without gradients of their own."""
        with torch.enable_grad():
            energy, forces = self.scaled(graph)
        total = energy.detach().double() * self.scale + self.references(graph)
        return total, forces.detach() * self.scale.to(forces.dtype)
