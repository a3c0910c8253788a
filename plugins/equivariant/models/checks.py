"""What every model asks of its input."""

from __future__ import annotations

from plugins.equivariant.graphs import Graph


def check_graph(graph: Graph, n: int, in_scalars: int, in_vectors: int) -> None:
    """Raise a ValueError where a graph does not fit a model; looks at shapes only."""
    if graph.pos.shape[1] != n:
        raise ValueError(f"the model lives in R^{n}, the graph's positions in R^{graph.pos.shape[1]}")
    if graph.x.shape[1] != in_scalars:
        raise ValueError(f"the model reads in_scalars={in_scalars} node features, graph.x has {graph.x.shape[1]}")
    vectors = 0 if graph.vec is None else graph.vec.shape[1]
    if vectors != in_vectors:
        raise ValueError(f"the model reads in_vectors={in_vectors} vectors for each node, graph.vec has {vectors}")


def check_sizes(**sizes: int) -> None:
    """Raise a ValueError for a size below one."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
