"""How long a training step takes, against the straightforward form of the same network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from tqdm import tqdm

from framework.study import Study
from plugins.equivariant.equivariance import random_cloud
from plugins.equivariant.figures_equivariance import ATOMS_OF_EDGES, COST_AXES, cost_figure
from plugins.equivariant.geometry import make_grid
from plugins.equivariant.graphs import Graph
from plugins.equivariant.models import EGNN, PONITA
from plugins.equivariant.readout import energy_and_forces, pool
from plugins.equivariant.studies.straightforward import StraightforwardPONITA, copy_weights


class Speed(Study):
    """Times training steps of PONITA, its straightforward form, PNITA and EGNN on the same batches, taking turns.

    PONITA twice: `ponita` is the straightforward network, digit by digit; `zonal` has kernels in zonal harmonics.

    A step is forward and backward to the parameters: of the energies' squares (`forces=False`), or of the forces'
    squares, which are a derivative themselves. The fast and the straightforward network hold the same weights and must
    agree before anything is timed.

    Args:
        batch, atoms: graphs in a batch, all pairs connected, and atoms of each.
        hidden, basis_dim, layers, orientations: of the networks.
        zonal_degree: of `zonal`.
        repeats: timed steps of each network, one after the other in turns; medians are reported.
        sweep: numbers of `atoms`, of `orientations`, and of directed `edges` of a graph of 21 atoms, for the figure of
            how cost grows.
        seed: of weights and batches.
        fast: two small steps.

    Metrics: `step_ms/<model>` (with forces) and `step_ms_without_forces/<model>`;
    `ratio_to_straightforward/<model>`, of the steps with forces, and `ratio_to_straightforward/<model>_without_forces`,
    for `ponita` and `zonal`;
    `largest_difference`, relative, between the two networks' forces.
    """

    def __init__(
        self,
        batch: int = 16,
        atoms: int = 9,
        hidden: int = 64,
        basis_dim: int = 64,
        layers: int = 3,
        orientations: int = 12,
        zonal_degree: int = 2,
        repeats: int = 15,
        sweep: Mapping[str, Sequence[int]] | None = None,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if fast:
            batch, atoms, hidden, basis_dim, layers, repeats, sweep = 2, 4, 8, 8, 1, 2, {"atoms": [3, 4]}
        self.batch, self.atoms, self.hidden, self.basis_dim = batch, atoms, hidden, basis_dim
        self.layers, self.orientations, self.repeats, self.seed = layers, orientations, repeats, seed
        self.zonal_degree, self.sweep = zonal_degree, dict(sweep or {})
        if unknown := set(self.sweep) - set(COST_AXES):
            raise ValueError(f"sweep must name {', '.join(COST_AXES)}, not {', '.join(sorted(unknown))}")

    def networks(self, orientations: int) -> dict[str, nn.Module]:
        torch.manual_seed(self.seed)
        size = {"in_scalars": 4, "hidden": self.hidden, "layers": self.layers}
        grid = make_grid("auto", orientations)
        sized = size | {"basis_dim": self.basis_dim}
        networks: dict[str, nn.Module] = {
            "straightforward": StraightforwardPONITA(grid, **sized),
            "ponita": PONITA(orientations=orientations, **sized),
            "zonal": PONITA(orientations=orientations, zonal_degree=self.zonal_degree, **sized),
            "pnita": PONITA(orientations=0, **sized),
            "egnn": EGNN(**size),
        }
        copy_weights(networks["straightforward"], networks["ponita"])
        return {name: network.to(self.device) for name, network in networks.items()}

    def study(self) -> dict[str, float]:
        graph = random_cloud([self.atoms] * self.batch, 4, seed=self.seed).to(self.device)
        networks = self.networks(self.orientations)
        fast, plain = (energy_and_forces(networks[name], graph)[1] for name in ("ponita", "straightforward"))
        difference = float((fast - plain).norm() / plain.norm())
        if difference > 1e-3:
            raise RuntimeError(f"the fast and the straightforward networks differ by {difference:.2g}")
        metrics = {"largest_difference": difference}
        for forces, name in ((True, "step_ms"), (False, "step_ms_without_forces")):
            for model, ms in self.times(networks, graph, forces, self.repeats).items():
                metrics[f"{name}/{model}"] = ms
        for name, suffix in (("step_ms", ""), ("step_ms_without_forces", "_without_forces")):
            for model in ("ponita", "zonal"):
                ratio = metrics[f"{name}/{model}"] / metrics[f"{name}/straightforward"]
                metrics[f"ratio_to_straightforward/{model}{suffix}"] = ratio
        curves = {}
        for axis, values in self.sweep.items():
            curves[axis] = {value: self._at(axis, value) for value in tqdm(values, desc=f"cost by {axis}", leave=False)}
        if curves:
            self.save_figure("cost", cost_figure(curves))
        return metrics

    def _at(self, axis: str, value: int) -> dict[str, float]:
        atoms = {"atoms": value, "edges": ATOMS_OF_EDGES}.get(axis, self.atoms)
        orientations = value if axis == "orientations" else self.orientations
        graph = random_cloud([atoms] * self.batch, 4, seed=self.seed)
        if axis == "edges":
            graph = some_edges(graph, value, self.seed)
        graph = graph.to(self.device)
        return self.times(self.networks(orientations), graph, True, max(2, self.repeats // 3))

    def times(self, networks: Mapping[str, nn.Module], graph: Graph, forces: bool, repeats: int) -> dict[str, float]:
        """Median milliseconds of a step of each network; before each timed step an untimed one of the same network
        leaves memory and caches as its own training would."""
        step = force_step if forces else energy_step
        seconds: dict[str, list[float]] = {name: [] for name in networks}
        for _ in range(repeats):
            for name, network in networks.items():
                step(network, graph)
                seconds[name].append(self._timed(lambda network=network: step(network, graph)))
        return {name: 1000 * sorted(found)[len(found) // 2] for name, found in seconds.items()}

    def _timed(self, call: Callable[[], None]) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        call()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


def some_edges(graph: Graph, count: int, seed: int) -> Graph:
    """Of each of a batch's equally large, fully connected graphs, `count` directed edges: random pairs, both ways."""
    pairs = graph.edge_index.shape[1] // (2 * graph.num_graphs)
    if count % 2 or not 0 < count <= 2 * pairs:
        raise ValueError(f"edges must be an even number up to {2 * pairs}, not {count}")
    g = torch.Generator().manual_seed(seed)
    kept = torch.stack([torch.randperm(pairs, generator=g)[: count // 2] + k * pairs for k in range(graph.num_graphs)])
    both = torch.stack([2 * kept.flatten(), 2 * kept.flatten() + 1], -1).flatten()
    return graph.replace(edge_index=graph.edge_index[:, both])


def force_step(network: nn.Module, graph: Graph) -> None:
    with torch.enable_grad():
        energy, forces = energy_and_forces(network, graph, create_graph=True)
        (energy.square().mean() + forces.square().mean()).backward()
    network.zero_grad(set_to_none=True)


def energy_step(network: nn.Module, graph: Graph) -> None:
    with torch.enable_grad():
        pool(network(graph)[0][:, 0], graph.batch, graph.num_graphs).square().mean().backward()
    network.zero_grad(set_to_none=True)
