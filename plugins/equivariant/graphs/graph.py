"""One graph, or a batch of graphs laid end to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Graph:
    """Points of R^n with features and directed edges.

    Args:
        pos: (N, n) positions.
        x: (N, C) scalar node features.
        edge_index: (2, E) integers, rows (sender, receiver). Self-loops are not stored: layers add their self term.
        batch: (N,) graph of each node, non-decreasing; zeros when omitted.
        num_graphs: number of graphs, which may include graphs without nodes.
        vec: (N, V, n) vector node features.
        shifts: (E, n) displacement added to the sender's position (periodic images).
        y: targets by name, first dimension N (node level) or num_graphs (graph level).

    The displacement of an edge is ``pos[sender] + shifts - pos[receiver]``.

    Where edges ``2p`` and ``2p + 1`` are each other's reverse, as the builders of this package lay them out, layers
    evaluate kernels once for both; any other order gives the same result, more slowly.
    """

    pos: Tensor
    x: Tensor
    edge_index: Tensor
    batch: Tensor | None = None
    num_graphs: int = 1
    vec: Tensor | None = None
    shifts: Tensor | None = None
    y: dict[str, Tensor] = field(default_factory=dict)
    _paired: bool | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        nodes = self.pos.shape[0]
        if self.pos.ndim != 2 or not self.pos.is_floating_point():
            raise ValueError(f"pos must be real of shape (N, n), not {self.pos.dtype} {tuple(self.pos.shape)}")
        if self.batch is None:
            self.batch = torch.zeros(nodes, dtype=torch.long, device=self.pos.device)
        if self.x.ndim != 2 or len(self.x) != nodes:
            raise ValueError(f"x must have shape ({nodes}, C), not {tuple(self.x.shape)}")
        if self.edge_index.ndim != 2 or len(self.edge_index) != 2 or self.edge_index.is_floating_point():
            raise ValueError(
                f"edge_index must hold integers of shape (2, E), not {self.edge_index.dtype} "
                f"{tuple(self.edge_index.shape)}"
            )
        if self.batch.shape != (nodes,):
            raise ValueError(f"batch must have shape ({nodes},), not {tuple(self.batch.shape)}")
        if self.vec is not None and (self.vec.ndim != 3 or self.vec.shape[::2] != self.pos.shape):
            raise ValueError(f"vec must have shape ({nodes}, V, {self.pos.shape[1]}), not {tuple(self.vec.shape)}")
        if self.shifts is not None and self.shifts.shape != (self.edge_index.shape[1], self.pos.shape[1]):
            raise ValueError(
                f"shifts must have shape ({self.edge_index.shape[1]}, {self.pos.shape[1]}), "
                f"not {tuple(self.shifts.shape)}"
            )

    def check(self) -> Graph:
        """Look at the values too (which waits for the device): indices in range, `batch` sorted, no self-loop.

        Raises:
            ValueError: naming the field, the first bad value and the remedy.
        """
        nodes = len(self.pos)
        if self.edge_index.numel():
            low, high = int(self.edge_index.min()), int(self.edge_index.max())
            if low < 0 or high >= nodes:
                bad = high if high >= nodes else low
                raise ValueError(f"edge_index names node {bad}, but nodes are 0..{nodes - 1}")
            loops = self.edge_index[0] == self.edge_index[1]
            if self.shifts is not None:
                loops &= (self.shifts == 0).all(-1)
            if bool(loops.any()):
                raise ValueError(
                    f"edge {int(loops.nonzero()[0])} joins node {int(self.edge_index[0, loops][0])} to itself: "
                    "leave self-loops out, the layers add their self term"
                )
        if nodes and (bool((self.batch.diff() < 0).any()) or not 0 <= int(self.batch[0]) <= int(self.batch[-1])):
            raise ValueError("batch must be non-decreasing and non-negative: put the nodes of a graph together")
        if nodes and int(self.batch[-1]) >= self.num_graphs:
            raise ValueError(f"batch names graph {int(self.batch[-1])}, but num_graphs is {self.num_graphs}")
        if not bool(torch.isfinite(self.pos).all()):
            bad = int((~torch.isfinite(self.pos)).any(-1).nonzero()[0])
            raise ValueError(f"pos[{bad}] is not finite: {self.pos[bad].tolist()}")
        return self

    @property
    def paired(self) -> bool:
        """Whether edges 2p and 2p + 1 are each other's reverse; looked at once and remembered."""
        if self._paired is None:
            even, odd = self.edge_index[:, 0::2], self.edge_index[:, 1::2]
            self._paired = even.shape == odd.shape and torch.equal(even, odd.flip(0))
            if self._paired and self.shifts is not None:
                self._paired = torch.equal(self.shifts[0::2], -self.shifts[1::2])
        return self._paired

    def to(self, *args: Any, **kwargs: Any) -> Graph:
        """Move to a device or to a floating-point dtype; integer fields keep theirs."""
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)

        def move(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: move(item) for name, item in value.items()}
            if not isinstance(value, Tensor):
                return value
            return value.to(device, dtype if value.is_floating_point() else None, non_blocking)

        fields = {f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return Graph(**fields)

    def replace(self, **fields: Any) -> Graph:
        """A copy with some fields replaced."""
        if "edge_index" in fields or "shifts" in fields:
            fields.setdefault("_paired", None)
        return dataclasses.replace(self, **fields)

    def relative(self) -> Tensor:
        """(E, n) sender minus receiver, through periodic images."""
        sender, receiver = self.edge_index
        rel = self.pos.index_select(0, sender) - self.pos.index_select(0, receiver)
        return rel if self.shifts is None else rel + self.shifts


def collate(graphs: Sequence[Graph]) -> Graph:
    """Lay graphs (each may itself be a batch) end to end, after checking their values.

    Raises:
        ValueError: nothing to collate, or graphs that differ in dimension, features, `vec`, `shifts` or targets.
    """
    graphs = list(graphs)
    if not graphs:
        raise ValueError("collate needs at least one graph")
    first = graphs[0]
    for k, graph in enumerate(graphs):
        for name in ("pos", "x", "vec", "shifts"):
            mine, theirs = getattr(first, name), getattr(graph, name)
            if (mine is None) != (theirs is None):
                raise ValueError(f"graph 0 and graph {k} disagree about having {name}")
            if mine is not None and mine.shape[1:] != theirs.shape[1:]:
                raise ValueError(
                    f"{name} of graph {k} has shape {tuple(theirs.shape)}, which does not go with "
                    f"{tuple(mine.shape)} of graph 0"
                )
        if graph.y.keys() != first.y.keys():
            raise ValueError(f"graph 0 has targets {sorted(first.y)}, graph {k} has {sorted(graph.y)}")
        graph.check()
    return end_to_end(graphs)


def end_to_end(graphs: Sequence[Graph]) -> Graph:
    """`collate` without its checks, for graphs, at least one, that have been checked before."""
    first = graphs[0]
    nodes = offsets = 0
    edges, batches = [], []
    for graph in graphs:
        edges.append(graph.edge_index + nodes)
        batches.append(graph.batch + offsets)
        nodes, offsets = nodes + len(graph.pos), offsets + graph.num_graphs

    def join(name: str) -> Tensor | None:
        return None if getattr(first, name) is None else torch.cat([getattr(graph, name) for graph in graphs])

    return Graph(
        pos=join("pos"),
        x=join("x"),
        edge_index=torch.cat(edges, 1),
        batch=torch.cat(batches),
        num_graphs=offsets,
        vec=join("vec"),
        shifts=join("shifts"),
        y={name: torch.cat([graph.y[name] for graph in graphs]) for name in first.y},
        _paired=all(graph.paired for graph in graphs),
    )
