"""Every network and grid under random transformations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from framework.study import Study
from plugins.equivariant.equivariance import equivariance_error, random_cloud
from plugins.equivariant.figures_equivariance import error_figure, resolution_figure
from plugins.equivariant.geometry import make_grid, random_orthogonal
from plugins.equivariant.models import EGNN, PONITA, SteerableNet
from plugins.equivariant.studies.straightforward import StraightforwardPONITA

TRANSFORMATIONS = ("translation", "permutation", "rotation", "reflection", "grid_rotation", "grid_turned_too")
GRIDS = {
    "icosahedral12": ("icosahedral", 12),
    "dodecahedral20": ("dodecahedral", 20),
    "repulsion16": ("repulsion", 16),
    "repulsion20": ("repulsion", 20),
    "fibonacci20": ("fibonacci", 20),
    "fibonacci64": ("fibonacci", 64),
}


class Equivariance(Study):
    """Relative errors, in float64, of calibrated networks with random weights: medians over `trials`.

    Fixed grids are measured in the reference's form (`ponita_<grid>`: distances across as norms) and in ours
    (`smooth_<grid>`: their squares, and quadrature weights; `zonal_<grid>`: kernels in zonal harmonics, and quadrature
    weights).

    Args:
        hidden, layers, atoms, graphs: sizes.
        zonal_degree: of `zonal_<grid>`.
        trials: random weights, clouds and transformations.
        counts: numbers of orientations for the figure of the error against them.
        seed: of everything.
        fast: one trial of small networks.

    Metrics: `error/<model>/<transformation>`, the larger of scalar and vector; transformations translation,
    permutation, rotation, reflection and, with a grid, grid_rotation (an element of its own symmetry group) and
    grid_turned_too. `rotation_scalar/<model>` and `rotation_vector/<model>` tell the two apart.
    """

    def __init__(
        self,
        hidden: int = 64,
        layers: int = 5,
        atoms: int = 9,
        graphs: int = 4,
        zonal_degree: int = 2,
        trials: int = 3,
        counts: Sequence[int] = (12, 20, 32, 64, 162),
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if fast:
            hidden, layers, trials, counts = 8, 1, 1, (12, 20)
        self.hidden, self.layers, self.sizes = hidden, layers, [atoms] * graphs
        self.trials, self.counts, self.seed = trials, list(counts), seed
        self.zonal_degree, self.fast = zonal_degree, fast

    def build(self, name: str) -> nn.Module:
        options = {
            "in_scalars": 3, "in_vectors": 1, "out_scalars": 1, "out_vectors": 1,
            "hidden": self.hidden, "layers": self.layers,
        }  # fmt: skip
        kind, _, grid = name.partition("_")
        if kind == "egnn":
            return EGNN(**options)
        if kind == "steerable":
            return SteerableNet(**options | {"hidden": self.hidden // 2})
        if kind == "edges":
            return PONITA(orientations="edges", attributes="universal", **options)
        if kind == "pnita":
            return PONITA(orientations=0, **options)
        if kind == "frames":
            return PONITA(orientations=12, frames="graph", **options)
        shape, count = GRIDS.get(grid, (grid.rstrip("0123456789"), int(grid.lstrip("abcdefghijklmnopqrstuvwxyz"))))
        if kind == "straightforward":
            return StraightforwardPONITA(make_grid(shape, count), basis_dim=self.hidden, **options)
        better = {
            "smooth": {"smooth": True, "quadrature": True},
            "zonal": {"zonal_degree": self.zonal_degree, "quadrature": True},
        }.get(kind, {})
        return PONITA(grid=shape, orientations=count, **better, **options)

    def study(self) -> dict[str, float]:
        names = ["egnn", "steerable", "pnita", "edges", "frames_icosahedral12", "straightforward_icosahedral12"]
        grids = list(GRIDS)[:2] if self.fast else list(GRIDS)
        names += [f"{kind}_{grid}" for grid in grids for kind in ("ponita", "smooth", "zonal")]
        found: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for name in tqdm(names, desc="equivariance", disable=self.fast):
            found[name] = self.measure(name)
        metrics: dict[str, float] = {}
        for name, errors in found.items():
            for transformation, pairs in errors.items():
                metrics[f"error/{name}/{transformation}"] = _median([max(pair) for pair in pairs])
            for k, kind in enumerate(("scalar", "vector")):
                metrics[f"rotation_{kind}/{name}"] = _median([pair[k] for pair in errors["rotation"]])
        self.save_figure("errors", error_figure({k: v for k, v in metrics.items() if k.startswith("error/")}))
        curves = {
            label: {
                count: self._rotation(f"{kind}_{'fibonacci' if count != 12 else 'icosahedral'}{count}")
                for count in self.counts
            }
            for kind, label in (
                ("ponita", "as in the reference"),
                ("smooth", "smooth attributes, quadrature weights"),
                ("zonal", "zonal kernels, quadrature weights"),
            )
        }  # fmt: skip
        self.save_figure("resolution", resolution_figure(curves))
        return metrics

    def _rotation(self, name: str) -> float:
        return _median([max(pair) for pair in self.measure(name, ("rotation",))["rotation"]])

    def measure(
        self, name: str, transformations: Sequence[str] = TRANSFORMATIONS
    ) -> dict[str, list[tuple[float, float]]]:
        """Transformation → (scalar, vector) errors of each trial."""
        errors: dict[str, list[tuple[float, float]]] = {}
        for trial in range(self.trials):
            torch.manual_seed(self.seed + trial)
            network = self.build(name).double()
            graph = random_cloud(self.sizes, 3, 1, seed=self.seed + trial, dtype=torch.float64)
            if isinstance(network, PONITA):
                network.calibrate_(graph)
            turn = random_orthogonal(1, graph.pos, proper=True)[0]
            for transformation in transformations:
                if (call := self._call(network, graph, transformation, turn)) is not None:
                    errors.setdefault(transformation, []).append(tuple(call))
        return errors

    def _call(self, network: nn.Module, graph, transformation: str, turn: Tensor):  # type: ignore[no-untyped-def]
        grid = getattr(network, "grid", None)
        if transformation == "translation":
            return equivariance_error(network, graph, translation=torch.randn(3).double())
        if transformation == "permutation":
            within = [torch.randperm(size) + sum(self.sizes[:k]) for k, size in enumerate(self.sizes)]
            return equivariance_error(network, graph, permutation=torch.cat(within))
        if transformation == "rotation":
            return equivariance_error(network, graph, turn)
        if transformation == "reflection":
            return equivariance_error(network, graph, -turn)
        if not isinstance(network, PONITA) or grid is None or network.frames != "fixed":
            return None
        if transformation == "grid_turned_too":
            frames = turn.expand(graph.num_graphs, 3, 3)
            return equivariance_error(network, graph, turn, turned=lambda g: network(g, frames))
        symmetry = _fivefold(grid.points) if len(grid.points) == 12 else None
        return None if symmetry is None else equivariance_error(network, graph, symmetry)


def _fivefold(points: Tensor) -> Tensor:
    """A rotation by 72° about a vertex of the icosahedron."""
    x, y, z = (points[0] / points[0].norm()).tolist()
    c, s = math.cos(2 * math.pi / 5), math.sin(2 * math.pi / 5)
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=points.dtype)
    axis = torch.tensor([x, y, z], dtype=points.dtype)
    return c * torch.eye(3, dtype=points.dtype) + s * cross + (1 - c) * torch.outer(axis, axis)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
