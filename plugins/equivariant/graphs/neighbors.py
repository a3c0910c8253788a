"""Which nodes exchange messages: all pairs of a graph, pairs within a radius, or directed edges as nodes.

Every builder puts the two directions of a pair next to each other (edges 2p and 2p + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

DENSE_LIMIT = 256
"""Graphs up to this many nodes have all their distances computed; larger ones go through a k-d tree."""


def fully_connected(sizes: Sequence[int] | Tensor, device: torch.device | str | None = None) -> Tensor:
    """(2, sum n(n-1)) edges between all distinct nodes of each graph, for graphs of the given sizes laid end to end."""
    sizes = torch.as_tensor(sizes, dtype=torch.long, device=device).flatten()
    if len(sizes) and int(sizes.min()) < 0:
        raise ValueError(f"sizes must not be negative, got {int(sizes.min())}")
    counts = sizes * (sizes - 1) // 2
    graph = torch.repeat_interleave(counts)
    rank = torch.arange(len(graph), device=sizes.device) - (counts.cumsum(0) - counts)[graph]
    # rank = j(j-1)/2 + i enumerates i < j
    j = ((1 + (1 + 8 * rank.double()).sqrt()) / 2).long()
    j = j - (j * (j - 1) // 2 > rank).long()
    i = rank - j * (j - 1) // 2
    offset = (sizes.cumsum(0) - sizes)[graph]
    return _both_directions(torch.stack([i + offset, j + offset]))


def _both_directions(half: Tensor) -> Tensor:
    """(2, P) pairs → (2, 2P) edges, each pair followed by its reverse."""
    return torch.stack([half, half.flip(0)], -1).flatten(1)


@torch.no_grad()
def radius_graph(
    pos: Tensor,
    radius: float,
    batch: Tensor | None = None,
    cell: Tensor | None = None,
    pbc: Sequence[bool] | bool | None = None,
) -> tuple[Tensor, Tensor | None]:
    """All pairs closer than `radius`, in both directions, without a cap on the number of neighbours.

    Args:
        pos: (N, n) positions, anywhere.
        radius: cut-off, positive.
        batch: (N,) sorted graph of each node; one graph when omitted.
        cell: lattice vectors as rows, (n, n) for one graph or for all, or (G, n, n).
        pbc: periodic directions; all of them where `cell` is given.

    Returns:
        edge_index (2, E), and shifts (E, n) with ``pos[sender] + shift - pos[receiver]`` the displacement within
        `radius` (None without `cell`). In a cell narrower than the radius a pair appears once for each image, and an
        atom sees images of itself.

    Edges carry no gradient; recompute displacements from positions (``Graph.relative``).
    """
    if not radius > 0:
        raise ValueError(f"radius must be positive, not {radius}")
    if batch is None:
        batch = torch.zeros(len(pos), dtype=torch.long, device=pos.device)
    if cell is not None:
        return _periodic(pos, radius, batch, cell, pbc)
    if pbc is not None and np.any(pbc):
        raise ValueError("pbc needs a cell")
    sizes = torch.bincount(batch) if len(batch) else torch.zeros(0, dtype=torch.long, device=pos.device)
    if len(sizes) and int(sizes.max()) > DENSE_LIMIT:
        from scipy.spatial import cKDTree

        # one more coordinate keeps the graphs of a batch out of each other's reach
        far = 2 * radius * batch.double()[:, None]
        points = torch.cat([pos.double(), far], 1).cpu().numpy()
        half = cKDTree(points).query_pairs(radius, output_type="ndarray")
        half = half[np.lexsort((half[:, 0], half[:, 1]))].astype(np.int64)
        half = torch.from_numpy(half).T.to(pos.device)
    else:
        half = fully_connected(sizes)[:, 0::2]
    near = (pos[half[0]] - pos[half[1]]).square().sum(-1) < radius**2
    return _both_directions(half[:, near]), None


def _periodic(
    pos: Tensor, radius: float, batch: Tensor, cell: Tensor, pbc: Sequence[bool] | bool | None
) -> tuple[Tensor, Tensor]:
    n = pos.shape[1]
    graphs = int(batch[-1]) + 1 if len(batch) else 0
    cells = torch.as_tensor(cell, dtype=torch.float64, device="cpu")
    cells = cells.expand(graphs, n, n) if cells.ndim == 2 else cells
    if cells.shape != (graphs, n, n):
        raise ValueError(f"cell must have shape ({n}, {n}) or ({graphs}, {n}, {n}), not {tuple(cells.shape)}")
    periodic = np.broadcast_to(True if pbc is None else np.asarray(pbc, dtype=bool), (n,))
    points = pos.detach().double().cpu().numpy()
    owners = batch.cpu().numpy()
    halves, shifts = [np.zeros((2, 0), dtype=np.int64)], [np.zeros((0, n))]
    for g in range(graphs):
        members = np.flatnonzero(owners == g)
        if len(members) == 0:
            continue
        half, shift = _periodic_pairs(points[members], radius, cells[g].numpy(), periodic, g)
        halves.append(members[half])
        shifts.append(shift)
    half = torch.from_numpy(np.concatenate(halves, 1)).to(pos.device)
    shift = torch.from_numpy(np.concatenate(shifts)).to(pos)
    return _both_directions(half), torch.stack([shift, -shift], 1).flatten(0, 1)


def _periodic_pairs(
    points: np.ndarray, radius: float, cell: np.ndarray, periodic: np.ndarray, graph: int
) -> tuple[np.ndarray, np.ndarray]:
    """(2, P) each unordered pair once, and (P, n) the displacement of its sender."""
    from scipy.spatial import cKDTree

    n = len(cell)
    cell = np.where(periodic[:, None], cell, 0.0)
    # directions that do not repeat are completed by unit vectors orthogonal to those that do
    if not periodic.all():
        _, _, basis = np.linalg.svd(cell)
        cell[~periodic] = basis[int(periodic.sum()) :]
    volume = abs(np.linalg.det(cell))
    if volume < 1e-10 * max(1.0, np.abs(cell).max()) ** n:
        raise ValueError(f"the cell of graph {graph} has no volume in its periodic directions: {cell.tolist()}")
    inverse = np.linalg.inv(cell)
    home = np.where(periodic, np.floor(points @ inverse), 0.0)
    wrapped = points - home @ cell
    heights = 1 / np.linalg.norm(inverse, axis=0)
    reach = np.where(periodic, np.ceil(radius / heights), 0).astype(int)
    images = np.stack(np.meshgrid(*[np.arange(-k, k + 1) for k in reach], indexing="ij"), -1).reshape(-1, n)
    copies = (wrapped[None] + (images @ cell)[:, None]).reshape(-1, n)
    # every image of a sender that some atom of the cell can see
    low, high = wrapped.min(0) - radius, wrapped.max(0) + radius
    seen = np.flatnonzero(((copies >= low) & (copies <= high)).all(1))
    found = cKDTree(wrapped).query_ball_tree(cKDTree(copies[seen]), radius)
    receiver = np.repeat(np.arange(len(points)), [len(hits) for hits in found])
    copy = seen[np.fromiter((hit for hits in found for hit in hits), dtype=np.int64, count=len(receiver))]
    sender, image = copy % len(points), images[copy // len(points)]
    steps = (image - home[sender] + home[receiver]).astype(int)
    near = ((copies[copy] - wrapped[receiver]) ** 2).sum(1) < radius**2
    # one of an edge and its reverse: the first non-zero step positive, or sender < receiver within the cell
    leading = np.zeros(len(steps), dtype=int)
    for axis in reversed(range(n)):
        leading = np.where(steps[:, axis] != 0, np.sign(steps[:, axis]), leading)
    keep = near & ((leading > 0) | ((leading == 0) & (sender < receiver)))
    sender, receiver, steps = sender[keep], receiver[keep], steps[keep]
    order = np.lexsort((*steps.T, sender, receiver))
    return np.stack([sender[order], receiver[order]]), steps[order] @ cell


class EdgeLift(NamedTuple):
    """The nodes and edges of an edge-lifted point cloud; see `lift_to_edges`."""

    origin: Tensor  # (M,) node at which a lifted node sits
    edge_index: Tensor  # (2, K) between lifted nodes
    node_edge: Tensor  # (K,) edge of the original graph that each of them follows, -1 within an atom


def lift_to_edges(edge_index: Tensor, num_nodes: int) -> EdgeLift:
    """Points with directions made from the points alone: one lifted node for each directed edge.

    The lifted node of the edge s → r sits at r and points towards s. It receives from the lifted nodes (u → s) at the
    far end of its edge, along that edge, and from the other lifted nodes (s' → r) at its own atom.
    Messages therefore see triples of atoms.
    """
    sender, receiver = edge_index
    degree = torch.bincount(receiver, minlength=num_nodes)
    by_receiver = torch.argsort(receiver, stable=True)
    start = degree.cumsum(0) - degree

    def lifted_at(nodes: Tensor) -> tuple[Tensor, Tensor]:
        """For each of `nodes`, the lifted nodes that sit there: (which entry of `nodes`, lifted node)."""
        which = torch.repeat_interleave(degree[nodes])
        rank = torch.arange(len(which), device=which.device)
        rank = rank - (degree[nodes].cumsum(0) - degree[nodes])[which]
        return which, by_receiver[start[nodes][which] + rank]

    # along the bond itself: from what sits at its far end
    target, source = lifted_at(sender)
    along = torch.stack([source, target])
    target, source = lifted_at(receiver)
    within = torch.stack([source, target])
    within = within[:, source != target]
    node_edge = torch.cat([along[1], within.new_full((within.shape[1],), -1)])
    return EdgeLift(receiver, torch.cat([along, within], 1), node_edge)
