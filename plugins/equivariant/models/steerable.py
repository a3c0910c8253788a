"""A steerable message-passing network with tensor products, for comparison."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from plugins.equivariant.geometry import PolynomialCutoff
from plugins.equivariant.graphs import Graph, scatter_sum
from plugins.equivariant.models.checks import check_graph, check_sizes


class SteerableNet(nn.Module):
    """E(3)-equivariant convolutions of steerable features, as in NequIP (Batzner et al., Nat. Commun. 13, 2022).

    A layer: linear, tensor product of the sender's features with the spherical harmonics of the displacement, weighted
    by an MLP of Bessel functions of the distance, sum over neighbours, linear, self-connection, gate.

    Args:
        n: 3.
        in_scalars, in_vectors, out_scalars, out_vectors: as in PONITA.
        hidden: scalars of a feature; each higher degree has half as many.
        layers: number of layers.
        radius: where Bessel functions and the smooth window end; they span `span` without a window when omitted.
        degree: highest degree l of the features and harmonics.
        bessel: number of radial functions.
        span: see radius, in the data's unit of length.
        neighbors: typical number of neighbours, by whose root sums are divided.

    Raises:
        ImportError: e3nn is not installed; names the extra.
    """

    def __init__(
        self,
        n: int = 3,
        in_scalars: int = 1,
        in_vectors: int = 0,
        out_scalars: int = 1,
        out_vectors: int = 0,
        hidden: int = 32,
        layers: int = 3,
        radius: float | None = None,
        degree: int = 1,
        bessel: int = 8,
        span: float = 6.0,
        neighbors: float = 8.0,
    ) -> None:
        super().__init__()
        o3, gate = _e3nn()
        check_sizes(in_scalars=in_scalars, hidden=hidden, layers=layers, degree=degree, bessel=bessel)
        if n != 3:
            raise ValueError(f"SteerableNet is made for n = 3, not {n}")
        self.n, self.in_scalars, self.in_vectors = n, in_scalars, in_vectors
        self.out_scalars, self.out_vectors = out_scalars, out_vectors
        self.harmonics = o3.SphericalHarmonics(list(range(degree + 1)), normalize=True, normalization="component")
        self.cutoff = None if radius is None else PolynomialCutoff(radius)
        self.length = radius or span
        self.register_buffer("frequencies", math.pi * torch.arange(1, bessel + 1) / self.length)
        higher = [(max(1, hidden // 2), (degree_, (-1) ** degree_)) for degree_ in range(1, degree + 1)]
        scalars, others = o3.Irreps([(hidden, (0, 1))]), o3.Irreps(higher)
        features = o3.Irreps([(in_scalars, (0, 1)), (in_vectors, (1, -1))]).remove_zero_multiplicities()
        self.layers = nn.ModuleList()
        for _ in range(layers):
            gates = o3.Irreps([(others.num_irreps, (0, 1))])
            activation = gate(scalars, [torch.nn.functional.silu], gates, [torch.sigmoid], others)
            self.layers.append(_Layer(o3, features, self.harmonics.irreps_out, activation, bessel, neighbors))
            features = activation.irreps_out
        outputs = o3.Irreps([(out_scalars, (0, 1)), (out_vectors, (1, -1))]).remove_zero_multiplicities()
        self.read = o3.Linear(features, outputs)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Scalars (N, S) and vectors (N, V, 3)."""
        check_graph(graph, self.n, self.in_scalars, self.in_vectors)
        rel = graph.relative()
        # coincident atoms have no direction: their harmonics are those of zero
        distance = (rel.square().sum(-1) + 1e-12).sqrt()
        x = graph.x if graph.vec is None else torch.cat([graph.x, graph.vec.flatten(1)], -1)
        angles = distance[:, None] * self.frequencies.to(rel)
        radial = math.sqrt(2 / self.length) * angles.sin() / distance[:, None]
        if self.cutoff is not None:
            radial = radial * self.cutoff(distance)[:, None]
        harmonics = self.harmonics(rel / distance[:, None])
        size = len(graph.pos)
        for layer in self.layers:
            x = layer(x, graph.edge_index, harmonics, radial, size)
        out = self.read(x)
        return out[:, : self.out_scalars], out[:, self.out_scalars :].reshape(size, self.out_vectors, 3)


class _Layer(nn.Module):
    def __init__(
        self, o3: Any, features: Any, harmonics: Any, activation: Any, bessel: int, neighbors: float, width: int = 32
    ) -> None:
        super().__init__()
        self.neighbors = neighbors
        target = activation.irreps_in
        instructions, made = [], []
        for i, (mul, ir) in enumerate(features):
            for j, (_, ir_sh) in enumerate(harmonics):
                for ir_out in ir * ir_sh:
                    if ir_out in target:
                        instructions.append((i, j, len(made), "uvu", True))
                        made.append((mul, ir_out))
        between, order, _ = o3.Irreps(made).sort()
        instructions = [(i, j, order[k], mode, train) for i, j, k, mode, train in instructions]
        self.first = o3.Linear(features, features)
        self.product = o3.TensorProduct(
            features, harmonics, between, instructions, shared_weights=False, internal_weights=False
        )
        self.weights = nn.Sequential(nn.Linear(bessel, width), nn.SiLU(), nn.Linear(width, self.product.weight_numel))
        self.second = o3.Linear(between.simplify(), target)
        self.skip = o3.Linear(features, target)
        self.activation = activation

    def forward(self, x: Tensor, edge_index: Tensor, harmonics: Tensor, radial: Tensor, size: int) -> Tensor:
        sender, receiver = edge_index
        messages = self.product(self.first(x).index_select(0, sender), harmonics, self.weights(radial))
        total = scatter_sum(messages, receiver, size) / self.neighbors**0.5
        return self.activation(self.second(total) + self.skip(x))


def _e3nn() -> tuple[Any, Any]:
    try:
        from e3nn import o3
        from e3nn.nn import Gate
    except ImportError:
        raise ImportError("SteerableNet needs e3nn: pip install 'framework[equivariant]'") from None
    return o3, Gate
