"""Batched graphs, neighbour lists and sums over edges, in plain PyTorch."""

from plugins.equivariant.graphs.graph import Graph, collate, end_to_end
from plugins.equivariant.graphs.neighbors import EdgeLift, fully_connected, lift_to_edges, radius_graph
from plugins.equivariant.graphs.scatter import centre, scatter_sum

__all__ = [
    "EdgeLift",
    "Graph",
    "centre",
    "collate",
    "end_to_end",
    "fully_connected",
    "lift_to_edges",
    "radius_graph",
    "scatter_sum",
]
