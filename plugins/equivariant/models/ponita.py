"""PONITA: convolutional networks on position-orientation space, and PNITA, their point-cloud variant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plugins.equivariant.bases.harmonics import HarmonicFilter, ZonalFiber
from plugins.equivariant.bases.mlp import KernelMLP
from plugins.equivariant.bases.zonal import (
    ZonalAttributes,
    ZonalBasis,
    angular_functions,
    zonal_polynomials,
)
from plugins.equivariant.geometry.cutoff import PolynomialCutoff
from plugins.equivariant.geometry.frames import equivariant_frames
from plugins.equivariant.geometry.grids import OrientationGrid, make_grid
from plugins.equivariant.geometry.invariants import (
    ATTRIBUTES,
    fiber_attributes,
    grid_attributes,
    position,
    position_orientation,
)
from plugins.equivariant.geometry.norms import safe_norm
from plugins.equivariant.geometry.rotations import random_orthogonal
from plugins.equivariant.graphs import Graph, lift_to_edges, scatter_sum
from plugins.equivariant.layers.conv import PositionOrientationConv
from plugins.equivariant.layers.convnext import ConvNextBlock
from plugins.equivariant.layers.messages import Messages
from plugins.equivariant.models.checks import check_graph, check_sizes
from plugins.equivariant.readout.vectors import PairVectors

FRAMES = ("fixed", "random", "graph")
READOUTS = ("all", "last")


class PONITA(nn.Module):
    """Features on R^n x S^(n-1), sampled on a grid of orientations (Bekkers et al., ICLR 2024).

    Args:
        n: 2 or 3.
        in_scalars, in_vectors: node features; a vector v enters as its components v.n along the orientations.
        out_scalars, out_vectors: means over orientations of f, and of f n.
        hidden, layers: channels C and number of blocks.
        radius: where the smooth window on distances closes; None for no window.
        orientations: O; 0 gives PNITA, the network on R^n, whose kernels see distances only. "edges" takes for
            orientations of an atom the directions of its edges, one node for each (see graphs.lift_to_edges): triples
            of atoms are seen, without a grid, at a cost that grows with the square of the number of neighbours.
        basis_dim: functions of the kernel basis; `hidden` when omitted.
        max_order: of the monomials of the attributes.
        zonal_degree: expands the kernels on a grid, over positions and over orientations, in zonal harmonics up to this
            degree (see bases.ZonalBasis): faster, smooth, and at degree 2, which suits grids of 12 to 20, nearer to
            equivariance than the published form, which None asks for, where networks make kernels of the attributes.
        attributes: "ponita" or "universal", see geometry.invariants.
        smooth: with "ponita" in 3D, the squared perpendicular distance, whose forces have no kinks.
        grid: name, see geometry.make_grid.
        compress: length l; attributes and distances x are read as x / (1 + |r| / l), which stays below l however far
            the pair, so that their powers do too. None reads them as they are.
        quadrature: weigh the orientations, see geometry.quadrature_weights.
        frames: how the grid stands: "fixed"; "random", turned anew for each graph in each forward pass; "graph",
            carried by each cloud (exactly equivariant, not continuous: see geometry.equivariant_frames).
        widening, layer_scale: of the blocks.
        readouts: "all" blocks' outputs averaged, or the "last" alone.

    Equivariance: translations and permutations always; rotations and reflections exactly when the grid is turned too
    or they are symmetries of the grid, else up to the grid's resolution. PNITA, and orientations="edges": exactly.
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
        orientations: int | str = 12,
        basis_dim: int | None = None,
        max_order: int = 3,
        zonal_degree: int | None = None,
        attributes: str = "ponita",
        smooth: bool = False,
        compress: float | None = None,
        grid: str = "auto",
        quadrature: bool = False,
        frames: str = "fixed",
        widening: int = 4,
        layer_scale: float | None = None,
        readouts: str = "all",
    ) -> None:
        super().__init__()
        basis_dim = basis_dim or hidden
        check_sizes(in_scalars=in_scalars, hidden=hidden, layers=layers, basis_dim=basis_dim, max_order=max_order)
        self.lifted = orientations == "edges"
        if self.lifted:
            orientations = 0
        if isinstance(orientations, str) or orientations < 0:
            raise ValueError(f"orientations must be 0 (none), the size of a grid, or 'edges', not {orientations!r}")
        for name, value, known in (
            ("attributes", attributes, ATTRIBUTES),
            ("frames", frames, FRAMES),
            ("readouts", readouts, READOUTS),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        self.n, self.in_scalars, self.in_vectors = n, in_scalars, in_vectors
        self.out_scalars, self.out_vectors = out_scalars, out_vectors
        self.attributes, self.smooth, self.frames, self.readouts = attributes, smooth, frames, readouts
        if compress is not None and compress <= 0:
            raise ValueError(f"compress must be a positive length, not {compress}")
        self.compress = compress
        self._calibrating = False
        self.grid = OrientationGrid(make_grid(grid, orientations, n, quadrature)) if orientations else None
        fiber_attrs = 2 if attributes == "universal" and n == 2 else 1
        pair_attrs = (4 if attributes == "universal" else 3) if self.lifted else 2 if orientations else 1
        spatial_dim = fiber_dim = basis_dim
        if zonal_degree is not None:
            if not orientations or smooth or attributes != "ponita":
                raise ValueError(
                    f"zonal_degree={zonal_degree} is for kernels on a grid of orientations, and says all about them: "
                    "give a number of orientations, and neither smooth nor attributes"
                )
            self.spatial_basis: KernelMLP | ZonalBasis = ZonalBasis(n, hidden, basis_dim, max_order, zonal_degree)
            self.fiber_basis: KernelMLP | ZonalFiber | None = ZonalFiber(self.grid, zonal_degree)
            spatial_dim, fiber_dim = self.spatial_basis.out_features, angular_functions(n, zonal_degree)
        else:
            self.spatial_basis = KernelMLP(pair_attrs, hidden, basis_dim, max_order)
            self.fiber_basis = KernelMLP(fiber_attrs, hidden, basis_dim, max_order) if orientations else None
        self.zonal_degree = zonal_degree
        self.cutoff = None if radius is None else PolynomialCutoff(radius)
        self.embed = nn.Linear(in_scalars + in_vectors, hidden, bias=False)
        self.blocks = nn.ModuleList(
            ConvNextBlock(
                PositionOrientationConv(hidden, spatial_dim, fiber_dim if orientations else 0),
                hidden,
                widening,
                layer_scale,
            )
            for _ in range(layers)
        )
        oriented = self.lifted or bool(orientations)
        outputs = out_scalars + (out_vectors if oriented else 0)
        count = layers if readouts == "all" else 1
        self.heads = nn.ModuleList(nn.Linear(hidden, outputs) for _ in range(count))
        self.vector_readout = (
            PairVectors(hidden, basis_dim, in_vectors, out_vectors) if out_vectors and not oriented else None
        )

    def forward(self, graph: Graph, frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scalars (N, S) and vectors (N, V, n).

        Args:
            graph: the batch.
            frames: (G, n, n) rotations that turn the grid of each graph, in place of what the option `frames` says.
        """
        check_graph(graph, self.n, self.in_scalars, self.in_vectors)
        if self.grid is None:
            return self._edges(graph) if self.lifted else self._points(graph)
        frames = self._frames(graph) if frames is None else frames
        rel, vec = graph.relative(), graph.vec
        if frames is not None:
            mine = frames.index_select(0, graph.batch)
            rel = (rel[:, None] @ mine.index_select(0, graph.edge_index[1]))[:, 0]
            vec = None if vec is None else vec @ mine
        points = self.grid.points.to(rel)
        mirrored = graph.paired and self.grid.antipodal
        messages = Messages.build(rel, graph.edge_index, len(graph.pos), mirrored, orientations=True)
        near = self._attributes(messages.rel, points)
        own = self._attributes(rel.new_zeros(1, self.n), points[:1])
        known = isinstance(self.fiber_basis, ZonalFiber)
        fiber = None if known else fiber_attributes(points[:, None], points[None], self.attributes)
        x = graph.x[:, None].expand(-1, len(points), -1)
        if vec is not None:
            x = torch.cat([x, (vec @ points.T).transpose(1, 2)], -1)
        window = self._window(messages.rel)
        if isinstance(near, ZonalAttributes) and window is not None:
            near, window = near.windowed(window), None
        out, _ = self._blocks(self.embed(x), messages, window, near, own, fiber)
        out = out * self.grid.weights.to(out)[:, None]
        vectors = torch.einsum("nov,od->nvd", out[..., self.out_scalars :], points)
        if frames is not None:
            vectors = vectors @ mine.transpose(1, 2)
        return out[..., : self.out_scalars].sum(1), vectors

    def _points(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """The network on R^n: features (N, 1, C)."""
        rel = graph.relative()
        messages = Messages.build(rel, graph.edge_index, len(graph.pos), graph.paired, orientations=False)
        rel_read = self._read(messages.rel)
        near, own = position(rel_read)[:, None], rel.new_zeros(1, 1, 1)
        x = graph.x if graph.vec is None else torch.cat([graph.x, safe_norm(graph.vec)], -1)
        window = self._window(messages.rel)
        out, x = self._blocks(self.embed(x)[:, None], messages, window, near, own, None)
        scalars = out[:, 0, : self.out_scalars]
        if self.vector_readout is None:
            return scalars, rel.new_zeros(len(x), 0, self.n)
        basis = _windowed(self.spatial_basis(near), window)
        return scalars, self.vector_readout(x[:, 0], basis[:, 0], messages, graph.vec)

    def _edges(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """The network on lifted nodes: features (E, 1, C). An atom's output is sum u f / (1 + sum u) over its edges,
        with the window u, or 1: it changes smoothly as neighbours come and go, and an atom without any has none."""
        rel, nodes = graph.relative(), len(graph.pos)
        lift = lift_to_edges(graph.edge_index, nodes)
        length = safe_norm(rel, keepdim=True)
        direction = rel / torch.where(length == 0, 1, length)
        weight = torch.ones_like(length) if self.cutoff is None else self.cutoff(length)
        source, target = lift.edge_index
        # within an atom there is no displacement
        padded = torch.cat([rel, rel.new_zeros(1, self.n)])
        between = padded[lift.node_edge]  # -1 reads the last row
        window = self._window(between)
        if window is not None:
            window = window * weight.index_select(0, source)[..., None]
        messages = Messages(between, source, target, len(rel), 1, False)
        near = self._pair(between, direction.index_select(0, target), direction.index_select(0, source))
        axis = torch.eye(self.n, dtype=rel.dtype, device=rel.device)[:1]
        own = self._pair(rel.new_zeros(1, self.n), axis, axis)
        x = graph.x.index_select(0, lift.origin)
        if graph.vec is not None:
            along = (graph.vec.index_select(0, lift.origin) @ direction[..., None])[..., 0]
            x = torch.cat([x, along], -1)
        out, _ = self._blocks(self.embed(x)[:, None], messages, window, near[:, None], own[:, None], None)
        total = 1 + scatter_sum(weight, lift.origin, nodes)
        values = weight * out[:, 0]
        vectors = values[:, self.out_scalars :, None] * direction[:, None]
        scalars = scatter_sum(values[:, : self.out_scalars], lift.origin, nodes) / total
        return scalars, scatter_sum(vectors, lift.origin, nodes) / total[..., None]

    def _pair(self, rel: Tensor, receiver: Tensor, sender: Tensor) -> Tensor:
        return position_orientation(self._read(rel), receiver, sender, self.attributes, self.smooth)

    @torch.no_grad()
    def calibrate_(self, graph: Graph) -> PONITA:
        """Rescale the kernels of all blocks, in order, so that on `graph` convolutions keep the standard deviation.

        Deterministic in the weights and the batch, and equal on all ranks. Call it once, on a training batch, before
        training; `calibrated` then says so, also after loading a state.
        """
        self._calibrating = True
        try:
            self(graph)
        finally:
            self._calibrating = False
        return self

    @property
    def calibrated(self) -> bool:
        """Whether `calibrate_` has been called."""
        return all(bool(block.conv.calibrated) for block in self.blocks)

    def _frames(self, graph: Graph) -> Tensor | None:
        if self.frames == "fixed":
            return None
        if self.frames == "random":
            return random_orthogonal(graph.num_graphs, graph.pos.double(), proper=True).to(graph.pos)
        if graph.shifts is not None:
            raise ValueError("frames='graph' needs clouds without periodic images: choose 'fixed' or 'random'")
        return equivariant_frames(graph.pos, graph.batch, graph.num_graphs)

    def _attributes(self, rel: Tensor, points: Tensor) -> Tensor | ZonalAttributes:
        read = self._read(rel)
        if self.zonal_degree is not None:
            return ZonalAttributes(safe_norm(read, keepdim=True), zonal_polynomials(rel, points, self.zonal_degree))
        return grid_attributes(read, points, self.attributes, self.smooth)

    def _read(self, rel: Tensor) -> Tensor:
        return rel if self.compress is None else rel / (1 + safe_norm(rel) / self.compress)[..., None]

    def _window(self, rel: Tensor) -> Tensor | None:
        return None if self.cutoff is None else self.cutoff(safe_norm(rel))[:, None, None]

    def _blocks(
        self, x: Tensor, messages: Messages, window: Tensor | None, near: Tensor, own: Tensor, fiber: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run the blocks on attributes of edges, of a node with itself, and of pairs of orientations; averaged
        read-outs (N, O, S + V) and the features (N, O, C), the last ones where vectors are read from them."""
        if self._calibrating:
            self._calibrate_blocks(x, messages, window, near, own, fiber)
        spatial = [block.conv.spatial.weight for block in self.blocks]
        kernels, selves = (self.spatial_basis.kernels(at, spatial) for at in (near, own))
        if isinstance(own, ZonalAttributes):
            selves = [kernel.dense() for kernel in selves]
        else:
            kernels = [_windowed(kernel, window) for kernel in kernels]
        fibers: Sequence[Tensor | HarmonicFilter | None] = [None] * len(self.blocks)
        if self.fiber_basis is not None:
            weights = [block.conv.fiber.weight for block in self.blocks]
            if isinstance(self.fiber_basis, ZonalFiber):
                fibers = self.fiber_basis.filters(weights)
            else:
                quadrature = self.grid.weights.to(x)[:, None]
                fibers = [kernel * quadrature for kernel in self.fiber_basis.kernels(fiber, weights)]
        out = []
        for k, block in enumerate(self.blocks):
            y = block.conv.convolve(x, messages, kernels[k], selves[k], fibers[k])
            if k == len(self.blocks) - 1 and self.vector_readout is None:
                out.append(block.read(x, y, self.heads[-1]))
                break
            x = x + block.mix(y)
            if self.readouts == "all":
                out.append(self.heads[k](x))
        return torch.stack(out).mean(0) if out else self.heads[0](x), x

    def _calibrate_blocks(
        self, x: Tensor, messages: Messages, window: Tensor | None, near: Tensor, own: Tensor, fiber: Tensor | None
    ) -> None:
        basis, self_basis = _windowed(self.spatial_basis(near), window), self.spatial_basis(own)
        if isinstance(self.fiber_basis, ZonalFiber):
            fiber = self.fiber_basis().to(x)
        elif self.fiber_basis is not None:
            fiber = self.fiber_basis(fiber) * self.grid.weights.to(x)[:, None]
        for block in self.blocks:
            block.conv.calibrate_(x, messages, basis, self_basis, fiber)
            x = block(x, messages, basis, self_basis, fiber)


def _windowed(basis: Tensor, window: Tensor | None) -> Tensor:
    return basis if window is None else basis * window
