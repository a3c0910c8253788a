"""Batched graphs, neighbour lists and sums over edges, in plain PyTorch."""

from plugins.equivariant.graphs.graph import Graph, collate
from plugins.equivariant.graphs.neighbors import EdgeLift, fully_connected, lift_to_edges, radius_graph
from plugins.equivariant.graphs.scatter import scatter_sum

__all__ = ["EdgeLift", "Graph", "collate", "fully_connected", "lift_to_edges", "radius_graph", "scatter_sum"]
