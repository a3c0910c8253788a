"""From node values to those of graphs, from features to vectors, and from energies to forces."""

from plugins.equivariant.readout.energy import energy_and_forces, pool
from plugins.equivariant.readout.vectors import PairVectors

__all__ = ["PairVectors", "energy_and_forces", "pool"]
