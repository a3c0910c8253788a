"""Forecasting charged particles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from framework.figures import save_figure
from plugins.equivariant import figures_tasks
from plugins.equivariant.geometry import random_orthogonal
from plugins.equivariant.graphs import Graph
from plugins.equivariant.modules.equal_time import EqualTime
from plugins.equivariant.nbody import fitted_time


class Forecaster(nn.Module):
    """Positions after the horizon: a straight line plus the vector that a network answers.

    Args:
        network: called with a ``Graph``; one vector for each node.
        drift: time for which particles move straight before the network corrects; 0 leaves all of it to the network.
    """

    def __init__(self, network: nn.Module, drift: float = 0.0) -> None:
        super().__init__()
        self.network, self.drift = network, drift

    def forward(self, graph: Graph) -> Tensor:
        """(N, n) predicted positions."""
        _, vectors = self.network(graph)
        return graph.pos + self.drift * graph.vec[:, 0] + vectors[:, 0]


class NBodyForecasters(EqualTime):
    """Networks that forecast charged particles, against each other and against straight lines.

    Every network sees the same augmented data: a random rotation or reflection of each system and, with probability
    1/2, all charges flipped (the forces are products of two charges).

    Args:
        networks, seconds, steps, lr, weight_decay, warmup, clip, ema_width, seed, fast: of ``EqualTime``.
        drift: of ``Forecaster``.
        rotations: random rotations over which each network's test forecast is averaged (1: none), to lessen the
            error of a fixed orientation grid; an exactly equivariant network does not change by it.

    Logs ``val_mse/<name>``, ``test_mse/<name>`` and the floors ``test_mse/{staying,straight_line,fitted_time}``.
    """

    def __init__(
        self,
        networks: Any,
        seconds: float | None = None,
        steps: int | None = None,
        lr: Any = 1e-3,
        weight_decay: float = 0.0,
        warmup: float = 0.02,
        clip: float | None = 0.5,
        ema_width: float | None = 0.05,
        seed: int = 0,
        drift: float = 0.0,
        rotations: int = 1,
        fast: bool = False,
    ) -> None:
        self.drift = drift
        super().__init__(networks, seconds, steps, lr, weight_decay, warmup, clip, ema_width, seed, fast)
        if rotations < 1:
            raise ValueError(f"rotations must be at least 1, not {rotations}")
        self.rotations = rotations

    def wrap(self, network: nn.Module) -> nn.Module:
        return Forecaster(network, self.drift)

    def augment(self, batch: Graph) -> Graph:
        return flip_charges(transform(batch, random_orthogonal(batch.num_graphs, batch.pos)))

    def loss(self, network: nn.Module, batch: Graph) -> Tensor:
        return (network(batch) - batch.y["pos"]).square().mean()

    def validation_step(self, batch: Graph, batch_idx: int) -> None:
        for name in self.names:
            error = (self.trained(name)(batch) - batch.y["pos"]).square().mean()
            self.log(f"val_mse/{name}", error, prog_bar=True, batch_size=batch.num_graphs, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self._graphs: list[Graph] = []
        self._forecasts: dict[str, list[Tensor]] = {name: [] for name in self.names}

    def test_step(self, batch: Graph, batch_idx: int) -> None:
        self._graphs.append(batch)
        forecasts = {"staying": batch.pos, "straight_line": batch.pos + batch.vec[:, 0]}
        for name in self.names:
            forecasts[name] = averaged_forecast(self.trained(name), batch, self.rotations)
            self._forecasts[name].append(forecasts[name])
        for name, forecast in forecasts.items():
            error = (forecast - batch.y["pos"]).square().mean()
            self.log(f"test_mse/{name}", error, batch_size=batch.num_graphs, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        pos, vel, target = (
            torch.cat([read(graph) for graph in self._graphs])
            for read in (lambda g: g.pos, lambda g: g.vec[:, 0], lambda g: g.y["pos"])
        )
        time = fitted_time(pos, vel, target)
        self.log("test_mse/fitted_time", (pos + time * vel - target).square().mean(), sync_dist=True)
        self.log_dict(self.budget.metrics("train_"))
        errors = {key.removeprefix("test_mse/"): float(value) for key, value in self._test_errors().items()}
        save_figure(self, "test_mse", figures_tasks.forecast_errors(errors, self.names))
        forecasts = {name: torch.cat(parts).cpu() for name, parts in self._forecasts.items()}
        size = int((self._graphs[0].batch == 0).sum())
        save_figure(self, "forecasts", figures_tasks.forecasts(pos.cpu(), target.cpu(), forecasts, size, systems=4))

    def _test_errors(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.trainer.callback_metrics.items() if k.startswith("test_mse/")}


def transform(graph: Graph, matrices: Tensor) -> Graph:
    """Each system of a batch turned by its own orthogonal matrix (G, n, n), target included."""
    turn = matrices[graph.batch]

    def apply(vectors: Tensor) -> Tensor:
        return torch.einsum("nij,n...j->n...i", turn, vectors)

    y = {**graph.y, "pos": apply(graph.y["pos"])} if graph.y else graph.y
    return graph.replace(pos=apply(graph.pos), vec=apply(graph.vec), y=y)


def flip_charges(graph: Graph) -> Graph:
    """All charges of a system times -1, with probability 1/2."""
    sign = torch.randint(0, 2, (graph.num_graphs, 1), device=graph.x.device).to(graph.x) * 2 - 1
    return graph.replace(x=graph.x * sign[graph.batch])


def averaged_forecast(network: nn.Module, graph: Graph, rotations: int) -> Tensor:
    """Mean forecast over random rotations of the input, turned back; plain for ``rotations = 1``."""
    if rotations == 1:
        return network(graph)
    total = torch.zeros_like(graph.pos)
    for _ in range(rotations):
        matrices = random_orthogonal(graph.num_graphs, graph.pos)
        total += torch.einsum("nji,nj->ni", matrices[graph.batch], network(transform(graph, matrices)))
    return total / rotations
