"""E(n) equivariant graph network (Satorras, Hoogeboom and Welling, ICML 2021): the distance-based baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.equivariant.geometry.cutoff import PolynomialCutoff
from plugins.equivariant.graphs import Graph, scatter_sum
from plugins.equivariant.models.checks import check_graph, check_sizes


class EGNNLayer(nn.Module):
    """One round of messages.

        m_ij = phi_e(h_i, h_j, |x_i - x_j|^2),    h_i += phi_h(h_i, sum_j m_ij),
        x_i += (1 / degree) sum_j (x_i - x_j) phi_x(m_ij) + sum_k phi_v(h_i)_k v_ik,

    each phi a two-layer perceptron with SiLU, and a sigmoid gate on messages. The position update is left out when
    `vectors` is None.
    """

    def __init__(self, hidden: int, vectors: int | None) -> None:
        super().__init__()
        self.edge = nn.Sequential(nn.Linear(2 * hidden + 1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.gate = nn.Sequential(nn.Linear(hidden, 1), nn.Sigmoid())
        self.node = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.coordinate = self.velocity = None
        if vectors is not None:
            last = nn.Linear(hidden, 1, bias=False)
            nn.init.xavier_uniform_(last.weight, gain=1e-3)
            self.coordinate = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), last)
            if vectors:
                self.velocity = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, vectors))

    def forward(
        self,
        h: Tensor,
        x: Tensor,
        vec: Tensor | None,
        edge_index: Tensor,
        shifts: Tensor | None,
        cutoff: nn.Module | None,
        inverse_degree: Tensor,
    ) -> tuple[Tensor, Tensor]:
        sender, receiver = edge_index
        rel = x.index_select(0, receiver) - x.index_select(0, sender)
        rel = rel if shifts is None else rel - shifts
        square = rel.square().sum(-1, keepdim=True)
        message = self.edge(torch.cat([h.index_select(0, receiver), h.index_select(0, sender), square], -1))
        message = message * self.gate(message)
        if cutoff is not None:
            message = message * cutoff(square.clamp(min=1e-24).sqrt())
        if self.coordinate is not None:
            x = x + scatter_sum(rel * self.coordinate(message), receiver, len(x)) * inverse_degree
            if self.velocity is not None:
                x = x + (self.velocity(h)[..., None] * vec).sum(1)
        return h + self.node(torch.cat([h, scatter_sum(message, receiver, len(h))], -1)), x


class EGNN(nn.Module):
    """EGNN with scalar and vector inputs and outputs.

    Args:
        n: dimension of space.
        in_scalars, in_vectors: node features; vectors (velocities) push positions directly, and their lengths are read
            beside the scalars.
        out_scalars, out_vectors: at most one vector: the total displacement of the positions.
        hidden, layers: width and depth.
        radius: polynomial cut-off of messages; None for none.

    Exactly E(n) equivariant.
    """

    def __init__(
        self,
        n: int = 3,
        in_scalars: int = 1,
        in_vectors: int = 0,
        out_scalars: int = 1,
        out_vectors: int = 0,
        hidden: int = 64,
        layers: int = 4,
        radius: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_scalars=in_scalars, hidden=hidden, layers=layers)
        if out_vectors not in (0, 1):
            raise ValueError(f"EGNN has at most one output vector, its displacement; out_vectors={out_vectors}")
        self.n, self.in_scalars, self.in_vectors, self.out_vectors = n, in_scalars, in_vectors, out_vectors
        self.embed = nn.Linear(in_scalars + in_vectors, hidden)
        moves = in_vectors if out_vectors else None
        self.layers = nn.ModuleList(EGNNLayer(hidden, moves) for _ in range(layers))
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, out_scalars))
        self.cutoff = None if radius is None else PolynomialCutoff(radius)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Scalars (N, S) and vectors (N, V, n)."""
        check_graph(graph, self.n, self.in_scalars, self.in_vectors)
        h = graph.x
        if graph.vec is not None:
            # the length, smooth at zero
            h = torch.cat([h, (graph.vec.square().sum(-1) + 1e-12).sqrt()], -1)
        h, x = self.embed(h), graph.pos
        degree = torch.bincount(graph.edge_index[1], minlength=len(x)).clamp(min=1)
        inverse_degree = degree.to(x).reciprocal()[:, None]
        for layer in self.layers:
            h, x = layer(h, x, graph.vec, graph.edge_index, graph.shifts, self.cutoff, inverse_degree)
        return self.head(h), (x - graph.pos)[:, None].expand(-1, self.out_vectors, -1)
