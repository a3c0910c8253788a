"""Learning one property of a molecule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from framework.figures import save_figure
from plugins.equivariant import figures_molecules
from plugins.equivariant.graphs import Graph
from plugins.equivariant.modules.equal_time import EqualTime
from plugins.equivariant.molecules.graphs import check_species, one_hot
from plugins.equivariant.readout import pool


class Regressor(nn.Module):
    """A sum over atoms of a network's first scalar, standardised by the training targets.

    Args:
        network: called with a ``Graph`` whose ``x`` are indicators of the species.
        species: atomic numbers that occur.
    """

    def __init__(self, network: nn.Module, species: list[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("table", torch.tensor(species))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("std", torch.ones((), dtype=torch.float64))

    def inputs(self, graph: Graph) -> Graph:
        """The graph with indicators of the species, as the network reads it."""
        return graph.replace(x=one_hot(graph.x, self.table), y={})

    def scaled(self, graph: Graph) -> Tensor:
        """(G,) (property - mean) / std."""
        scalars, _ = self.network(self.inputs(graph))
        return pool(scalars[:, 0], graph.batch, graph.num_graphs)

    def forward(self, graph: Graph) -> Tensor:
        """(G,) the property in its own unit, float64."""
        return self.scaled(graph).double() * self.std + self.mean


class PropertyRegressors(EqualTime):
    """Networks that learn a scalar property of whole molecules, side by side, under the L1 loss.

    Args:
        networks, seconds, steps, lr, weight_decay, warmup, clip, ema_width, seed, fast: of ``EqualTime``.
        species: atomic numbers that occur.
        unit: factor by which errors are multiplied for the metrics, e.g. 1000 for eV to meV.

    Logs ``val_mae/<name>`` and ``test_mae/<name>``.
    """

    def __init__(
        self,
        networks: Any,
        species: list[int],
        unit: float = 1.0,
        seconds: float | None = None,
        steps: int | None = None,
        lr: Any = 5e-4,
        weight_decay: float = 0.0,
        warmup: float = 0.01,
        clip: float | None = 0.5,
        ema_width: float | None = 0.05,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        self.species, self.unit = list(species), unit
        super().__init__(networks, seconds, steps, lr, weight_decay, warmup, clip, ema_width, seed, fast)

    def wrap(self, network: nn.Module) -> nn.Module:
        return Regressor(network, self.species)

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        targets = self.trainer.datamodule.sets["train"].targets  # type: ignore[attr-defined]
        if not float(targets.std()) > 0:
            raise ValueError("the training targets are all equal: there is nothing to learn")
        for regressor in (*self.networks.values(), *self.averages.values()):
            regressor.mean.copy_(targets.mean())
            regressor.std.copy_(targets.std())

    def loss(self, network: nn.Module, batch: Graph) -> Tensor:
        target = ((batch.y["target"] - network.mean) / network.std).to(batch.pos.dtype)
        return (network.scaled(batch) - target).abs().mean()

    def validation_step(self, batch: Graph, batch_idx: int) -> None:
        self._errors("val_mae", batch)

    def test_step(self, batch: Graph, batch_idx: int) -> None:
        check_species(batch.x, self.species)
        self._errors("test_mae", batch)

    def on_test_epoch_end(self) -> None:
        metrics = {k: float(v) for k, v in self.trainer.callback_metrics.items() if k.startswith("test_mae/")}
        save_figure(self, "test_mae", figures_molecules.property_errors(metrics))

    def _errors(self, kind: str, batch: Graph) -> None:
        for name in self.names:
            error = (self.trained(name)(batch) - batch.y["target"]).abs().mean() * self.unit
            self.log(f"{kind}/{name}", error, batch_size=batch.num_graphs, sync_dist=True)
