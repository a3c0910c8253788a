"""PONITA written out as it reads on paper: what the fast form is measured against, in speed and digit by digit.

Self-loops are edges, every edge has attributes for every orientation, all entries of the tensor powers are features,
each layer makes its kernels for all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.equivariant.geometry import Grid
from plugins.equivariant.graphs import Graph
from plugins.equivariant.models import PONITA


class TensorPowers(nn.Module):
    """The attribute vector and its outer powers up to `max_order`, flattened and concatenated, repetitions and all."""

    def __init__(self, max_order: int) -> None:
        super().__init__()
        self.max_order = max_order

    def forward(self, x: Tensor) -> Tensor:
        powers = [x]
        for _ in range(1, self.max_order):
            powers.append(torch.einsum("...i,...j->...ij", powers[-1], x).flatten(-2))
        return torch.cat(powers, -1)


class StraightforwardConv(nn.Module):
    """Separable depthwise convolution: kernel of every edge and orientation, messages, sum, then over orientations."""

    def __init__(self, channels: int, basis_dim: int) -> None:
        super().__init__()
        self.spatial = nn.Linear(basis_dim, channels, bias=False)
        self.fiber = nn.Linear(basis_dim, channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, edge_index: Tensor, basis: Tensor, fiber_basis: Tensor) -> Tensor:
        sender, receiver = edge_index
        messages = self.spatial(basis) * x.index_select(0, sender)
        y = torch.zeros_like(x).index_add(0, receiver, messages)
        return torch.einsum("nmc,pmc->npc", y, self.fiber(fiber_basis)) / fiber_basis.shape[0] + self.bias


class StraightforwardPONITA(nn.Module):
    """PONITA for n = 3 on a grid with equal weights, in the straightforward form; arguments as in models.PONITA."""

    def __init__(
        self,
        grid: Grid,
        in_scalars: int = 1,
        in_vectors: int = 0,
        out_scalars: int = 1,
        out_vectors: int = 0,
        hidden: int = 64,
        layers: int = 4,
        basis_dim: int = 64,
        max_order: int = 3,
        widening: int = 4,
    ) -> None:
        super().__init__()
        self.register_buffer("points", grid.points.clone())
        self.out_scalars = out_scalars

        def basis(dim: int) -> nn.Sequential:
            features = sum(dim**k for k in range(1, max_order + 1))
            return nn.Sequential(
                TensorPowers(max_order), nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, basis_dim), nn.GELU()
            )

        self.spatial_basis, self.fiber_basis = basis(2), basis(1)
        self.embed = nn.Linear(in_scalars + in_vectors, hidden, bias=False)
        self.convs = nn.ModuleList(StraightforwardConv(hidden, basis_dim) for _ in range(layers))
        self.mixers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden),
                nn.Linear(hidden, widening * hidden),
                nn.GELU(),
                nn.Linear(widening * hidden, hidden),
            )
            for _ in range(layers)
        )
        self.heads = nn.ModuleList(nn.Linear(hidden, out_scalars + out_vectors) for _ in range(layers))

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Scalars (N, S) and vectors (N, V, 3)."""
        points = self.points.to(graph.pos)
        loops = torch.arange(len(graph.pos), device=graph.pos.device).expand(2, -1)
        edge_index = torch.cat([graph.edge_index, loops], 1)
        sender, receiver = edge_index
        rel = (graph.pos.index_select(0, sender) - graph.pos.index_select(0, receiver))[:, None]
        along = (rel * points).sum(-1, keepdim=True)
        across = (rel - along * points).norm(dim=-1, keepdim=True)
        basis = self.spatial_basis(torch.cat([along, across], -1))
        fiber_basis = self.fiber_basis((points @ points.T)[..., None])
        x = graph.x[:, None].expand(-1, len(points), -1)
        if graph.vec is not None:
            x = torch.cat([x, torch.einsum("nvd,od->nov", graph.vec, points)], -1)
        x = self.embed(x)
        outputs = []
        for conv, mixer, head in zip(self.convs, self.mixers, self.heads, strict=True):
            x = x + mixer(conv(x, edge_index, basis, fiber_basis))
            outputs.append(head(x))
        out = sum(outputs) / len(outputs)
        scalars, vectors = out.split([self.out_scalars, out.shape[-1] - self.out_scalars], -1)
        return scalars.mean(1), torch.einsum("nov,od->nvd", vectors, points) / len(points)


@torch.no_grad()
def copy_weights(source: StraightforwardPONITA, target: PONITA) -> None:
    """Make `target` compute the same function: same orientations, and first linear maps folded onto monomials."""
    if target.grid is None or sorted(map(tuple, target.grid.points.tolist())) != sorted(
        map(tuple, source.points.tolist())
    ):
        raise ValueError("the two networks must have the same orientations")
    for mine, theirs in ((target.spatial_basis, source.spatial_basis), (target.fiber_basis, source.fiber_basis)):
        mine.first.weight.copy_(mine.features.fold(theirs[1].weight))
        mine.first.bias.copy_(theirs[1].bias)
        mine.second.load_state_dict(theirs[3].state_dict())
    target.embed.load_state_dict(source.embed.state_dict())
    for block, conv, mixer in zip(target.blocks, source.convs, source.mixers, strict=True):
        block.conv.spatial.load_state_dict(conv.spatial.state_dict())
        block.conv.fiber.load_state_dict(conv.fiber.state_dict())
        block.conv.bias.copy_(conv.bias)
        block.norm.load_state_dict(mixer[0].state_dict())
        block.widen.load_state_dict(mixer[1].state_dict())
        block.narrow.load_state_dict(mixer[3].state_dict())
    for mine, theirs in zip(target.heads, source.heads, strict=True):
        mine.load_state_dict(theirs.state_dict())
