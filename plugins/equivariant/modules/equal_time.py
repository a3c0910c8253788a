"""Several networks in one run, each trained for the same time, or for the same number of steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from framework.budget import Budget
from plugins.equivariant.models import PONITA
from plugins.generative.ema import power_exponent
from plugins.generative.rates import warm_cosine


class EqualTime(pl.LightningModule):
    """Trains every network until its budget is used up; a subclass says what the loss is.

    With ``seconds`` each batch goes to the network that has trained least (see ``framework.budget``); what counts is
    forward, backward, optimiser and averaging. Such a run depends on the machine: with ``steps`` instead, every batch
    trains every network and the run is reproducible bit for bit. Under DDP use
    ``strategy=ddp_find_unused_parameters_true``.

    The learning rate rises linearly, then falls to zero like a cosine, over the network's own budget. Evaluation uses
    averaged weights (the power-function profile of Karras et al. 2024).

    Args:
        networks: name → constructor; each is built from the same seed.
        seconds: training seconds of each network.
        steps: optimiser steps of each network; exactly one of the two is given.
        lr: peak learning rate, for all networks or by name.
        weight_decay: decoupled, on matrices only.
        warmup: fraction of the budget with a rising rate, in [0, 1).
        clip: largest gradient norm of a network, or None.
        ema_width: width of the averaging window relative to the training so far, or None for the last weights.
        seed: of the initial weights.
        fast: two steps of each network in place of the budget.

    Logs ``train/loss/<name>``, ``train/steps/<name>`` and ``train/seconds/<name>``.
    """

    def __init__(
        self,
        networks: Mapping[str, Callable[[], nn.Module]],
        seconds: float | None = None,
        steps: int | None = None,
        lr: float | Mapping[str, float] = 1e-3,
        weight_decay: float = 0.0,
        warmup: float = 0.02,
        clip: float | None = 0.5,
        ema_width: float | None = 0.05,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if not networks:
            raise ValueError("networks must name at least one network")
        self.budget = Budget(list(networks), seconds, steps, fast)
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1), not {warmup}")
        rates = dict(lr) if isinstance(lr, Mapping) else dict.fromkeys(networks, lr)
        if missing := set(networks) - set(rates):
            raise ValueError(f"lr names no rate for {', '.join(sorted(missing))}")
        self.names = list(networks)
        self.networks = nn.ModuleDict()
        for name, build in networks.items():
            if "." in name or "/" in name:
                raise ValueError(f"the name of a network must not hold '.' or '/': {name!r}")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.networks[name] = self.wrap(build())
        self.exponent = None if ema_width is None else power_exponent(ema_width)
        self.averages = nn.ModuleDict() if self.exponent is None else copy.deepcopy(self.networks)
        self.averages.requires_grad_(False)
        self.rates, self.weight_decay, self.warmup, self.clip = rates, weight_decay, warmup, clip

    def wrap(self, network: nn.Module) -> nn.Module:
        """What is trained, given a network as configured."""
        return network

    def augment(self, batch: Any) -> Any:
        """A random transformation of a training batch; not counted as training time."""
        return batch

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """The training loss of one network, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define loss()")

    def trained(self, name: str | None = None) -> nn.Module:
        """The network to use, with averaged weights if there are any; the first when no name is given.

        Raises:
            ValueError: no network of that name.
        """
        name = name or self.names[0]
        if name not in self.names:
            raise ValueError(f"there is no network {name!r}; the run has {', '.join(self.names)}")
        return (self.averages or self.networks)[name]

    def forward(self, batch: Any, name: str | None = None) -> Any:
        return self.trained(name)(batch)

    def on_train_start(self) -> None:
        # walking through the modules at every step would take as long as the small networks' arithmetic
        self._weights = {name: list(network.parameters()) for name, network in self.networks.items()}
        self._buffers_of = {name: list(network.buffers()) for name, network in self.networks.items()}
        self._averaged = {
            name: (list(average.parameters()), list(average.buffers())) for name, average in self.averages.items()
        }

    def training_step(self, batch: Any, batch_idx: int) -> None:
        batch = self.augment(batch)
        for name in self.budget.turn():
            if self.budget.taken[name] == 0:
                self._calibrate(self.networks[name], batch)
            with self.budget.spend(name, self):
                self._train(name, batch)
        self.log("train/done", self.budget.used, prog_bar=True, batch_size=1)
        if self.budget.used >= 1:
            self.trainer.should_stop = True

    def _train(self, name: str, batch: Any) -> None:
        network = self.networks[name]
        optimizer = self.optimizers()
        optimizer = optimizer[self.names.index(name)] if isinstance(optimizer, list) else optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.rates[name] * warm_cosine(self.budget.share(name), self.warmup)
        loss = self.loss(network, batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self._weights[name], self.clip)
        optimizer.step()
        self._average(name, self.budget.taken[name] + 1)
        self.log(f"train/loss/{name}", loss.detach(), batch_size=1)

    @torch.no_grad()
    def _calibrate(self, network: nn.Module, batch: Any) -> None:
        """Networks that set their scale by a first batch do so; all processes take the first one's."""
        read = network.inputs(batch) if hasattr(network, "inputs") else batch
        for module in network.modules():
            if isinstance(module, PONITA):
                module.calibrate_(read)
        if self.trainer.world_size > 1:
            for tensor in [*network.parameters(), *network.buffers()]:
                torch.distributed.broadcast(tensor, 0)

    @torch.no_grad()
    def _average(self, name: str, n: int) -> None:
        if self.exponent is None:
            return
        weight = 1 - (1 - 1 / n) ** (self.exponent + 1)
        weights, buffers = self._averaged[name]
        torch._foreach_lerp_(weights, self._weights[name], weight)
        for mine, theirs in zip(buffers, self._buffers_of[name], strict=True):
            mine.copy_(theirs)

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.budget.metrics("train/"))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = []
        for name, network in self.networks.items():
            weights = [p for p in network.parameters() if p.requires_grad]
            groups = [
                {"params": [p for p in weights if p.ndim >= 2], "weight_decay": self.weight_decay},
                {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
            ]
            optimizers.append(torch.optim.AdamW(groups, lr=self.rates[name], fused=True))
        return optimizers
