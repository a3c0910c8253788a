"""Transformations of graphs, and the relative error with which a network follows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plugins.equivariant.graphs import Graph, fully_connected
from plugins.equivariant.readout import pool

Network = Callable[[Graph], tuple[Tensor, Tensor]]


class EquivarianceError(NamedTuple):
    """Relative errors ||f(gx) - g f(x)|| / ||f(x)|| of the graphs' scalars and of the nodes' vectors.

    One that has no outputs of its kind is 0.
    """

    scalar: float
    vector: float

    @property
    def largest(self) -> float:
        return max(self)


def random_cloud(
    sizes: Sequence[int],
    scalars: int,
    vectors: int = 0,
    n: int = 3,
    seed: int = 0,
    scale: float = 1.5,
    dtype: torch.dtype = torch.float32,
) -> Graph:
    """Fully connected clouds of the given sizes: normal positions of deviation `scale`, scalars and vectors."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    nodes = sum(sizes)
    return Graph(
        pos=scale * normal(nodes, n),
        x=normal(nodes, scalars),
        edge_index=fully_connected(sizes),
        batch=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        num_graphs=len(sizes),
        vec=normal(nodes, vectors, n) if vectors else None,
    )


def transformed(
    graph: Graph,
    matrix: Tensor | None = None,
    translation: Tensor | None = None,
    permutation: Tensor | None = None,
) -> Graph:
    """The graph with positions and vectors turned by an orthogonal matrix (n, n), moved, and its nodes reordered.

    Args:
        permutation: (N,) new node k is old node permutation[k]; within graphs, as batches are sorted.
    """
    pos, vec = graph.pos, graph.vec
    if matrix is not None:
        pos = pos @ matrix.T
        vec = None if vec is None else vec @ matrix.T
    if translation is not None:
        pos = pos + translation
    if permutation is None:
        return graph.replace(pos=pos, vec=vec)
    place = torch.empty_like(permutation)
    place[permutation] = torch.arange(len(permutation), device=permutation.device)
    if not torch.equal(graph.batch[permutation], graph.batch):
        raise ValueError("permutation must keep nodes within their graphs")
    return Graph(
        pos=pos[permutation],
        x=graph.x[permutation],
        edge_index=place[graph.edge_index],
        batch=graph.batch,
        num_graphs=graph.num_graphs,
        vec=None if vec is None else vec[permutation],
    )


@torch.no_grad()
def equivariance_error(
    network: Network,
    graph: Graph,
    matrix: Tensor | None = None,
    translation: Tensor | None = None,
    permutation: Tensor | None = None,
    turned: Network | None = None,
) -> EquivarianceError:
    """How well a network follows one transformation of its input.

    Args:
        network: graph -> (scalars (N, S), vectors (N, V, n)).
        matrix, translation, permutation: of `transformed`.
        turned: the network for the transformed graph, where it is another (a grid that turns with the cloud).
    """
    scalars, vectors = network(graph)
    moved_scalars, moved_vectors = (turned or network)(transformed(graph, matrix, translation, permutation))
    if matrix is not None:
        vectors = vectors @ matrix.T
    if permutation is not None:
        vectors = vectors[permutation]
    before, after = (pool(s, graph.batch, graph.num_graphs) for s in (scalars, moved_scalars))
    return EquivarianceError(_relative(after, before), _relative(moved_vectors, vectors))


def _relative(made: Tensor, expected: Tensor) -> float:
    if not expected.numel():
        return 0.0
    size = float(expected.norm())
    return float((made - expected).norm()) / size if size > 0 else float((made - expected).norm())
