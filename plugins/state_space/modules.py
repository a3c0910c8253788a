"""The LightningModules: one run trains any number of networks side by side on the same batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from framework.figures import save_figure
from plugins.state_space import figures
from plugins.state_space.disturbance import fourier_disturbance
from plugins.state_space.layers import StateSpaceLayer, parameter_groups
from plugins.state_space.networks import PairClassifier, SequenceModel


class SequenceClassifiers(pl.LightningModule):
    """Classifiers that differ in their layer, or in their seed, trained on the same batches and compared.

    The networks share no parameter: the sum of their losses trains each as if it were alone, and gradients are clipped
    network by network.

    Args:
        layers: name → constructor of a layer, called with ``d_model``.
        network: constructor of a ``SequenceModel``, called with ``layer``.
        replicas: each layer is trained once for each of these seeds (initial weights and dropout; the order of the
            data is the run's).
        pairs: compare two sequences (the retrieval task).
        lr, weight_decay, ssm_lr, policy, dt_global, overrides, frozen: of ``parameter_groups``.
        warmup: fraction of the schedule with a linearly rising rate; a cosine to zero follows.
        schedule_steps: optimiser steps of the schedule, which may outlast the training; the training's own number
            when omitted.
        clip: largest gradient norm of each network, or None.
        fast: one block of width 8 and the first seed only.

    Batches are dicts: ``x``, ``y`` and, where lengths vary, ``lengths``.

    Logs ``test_accuracy/<layer>`` (mean over replicas), ``…/seed<k>`` and, with several replicas, ``…/std``; shows
    all of them in one figure.
    """

    def __init__(
        self,
        layers: Mapping[str, Callable[..., StateSpaceLayer]],
        network: Callable[..., SequenceModel],
        replicas: Iterable[int] = (0,),
        pairs: bool = False,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        ssm_lr: float | None = None,
        policy: str = "standard",
        dt_global: bool = False,
        overrides: Mapping[str, Mapping[str, float]] | None = None,
        frozen: Iterable[str] = (),
        warmup: float = 0.0,
        schedule_steps: int | None = None,
        clip: float | None = 1.0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if not layers:
            raise ValueError("layers must name at least one layer")
        if schedule_steps is not None and schedule_steps < 1:
            raise ValueError(f"schedule_steps must be at least 1, not {schedule_steps}")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1), not {warmup}")
        self.replicas = list(replicas)[:1] if fast else list(replicas)
        size = {"d_model": 8, "n_layers": 1} if fast else {}
        if not self.replicas:
            raise ValueError("replicas must hold at least one seed")
        self.layer_names = list(layers)
        self.networks = nn.ModuleDict()
        for name, layer in layers.items():
            if "." in name or "/" in name:
                raise ValueError(f"the name of a layer must not hold '.' or '/': {name!r}")
            for seed in self.replicas:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    built = network(layer=layer, **size)
                    self.networks[_key(name, seed)] = PairClassifier(built) if pairs else built
        self.optimisation: dict[str, Any] = {
            "lr": lr,
            "weight_decay": weight_decay,
            "ssm_lr": ssm_lr,
            "policy": policy,
            "dt_global": dt_global,
            "overrides": overrides,
            "frozen": tuple(frozen),
        }
        # what does not train is frozen here: a distributed strategy looks at it before optimisers exist
        parameter_groups(self.networks, **self.optimisation)
        self.warmup, self.schedule_steps, self.clip = warmup, schedule_steps, clip

    def forward(self, x: Tensor, lengths: Tensor | None = None, name: str | None = None) -> Tensor:
        """Logits of one network, ``<layer>_seed<k>``; of the first when no name is given."""
        return self.networks[name or next(iter(self.networks))](x, lengths)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        losses = {key: self._loss(net, batch)[0] for key, net in self.networks.items()}
        self.log_dict(
            {f"train/loss/{key}": loss.detach() for key, loss in losses.items()},
            on_step=False,
            on_epoch=True,
            batch_size=len(batch["y"]),
        )
        total = torch.stack(list(losses.values())).sum()
        self.log("train/loss", total.detach() / len(losses), prog_bar=True, batch_size=len(batch["y"]))
        return total

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        accuracies = []
        for key, net in self.networks.items():
            loss, accuracy = self._loss(net, batch)
            self.log(f"val/accuracy/{key}", accuracy, batch_size=len(batch["y"]), sync_dist=True)
            self.log(f"val/loss/{key}", loss, batch_size=len(batch["y"]), sync_dist=True)
            accuracies.append(accuracy)
        mean = torch.stack(accuracies).mean()
        self.log("val/accuracy", mean, prog_bar=True, batch_size=len(batch["y"]), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self._correct = {key: torch.zeros((), device=self.device) for key in self.networks}
        self._seen = torch.zeros((), device=self.device)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        for key, net in self.networks.items():
            self._correct[key] += (self._logits(net, batch).argmax(-1) == batch["y"]).sum()
        self._seen += len(batch["y"])

    def on_test_epoch_end(self) -> None:
        seen = self.all_gather(self._seen).sum()
        accuracy = {key: self.all_gather(count).sum() / seen for key, count in self._correct.items()}
        table: dict[str, Tensor] = {}
        for name in self.layer_names:
            table[name] = torch.stack([accuracy[_key(name, seed)] for seed in self.replicas])
            self._log_replicas(f"test_accuracy/{name}", table[name])
        save_figure(self, "test_accuracy", figures.comparison({name: v.tolist() for name, v in table.items()}))

    def _log_replicas(self, name: str, values: Tensor) -> None:
        self.log(name, values.mean())
        if len(self.replicas) > 1:
            for seed, value in zip(self.replicas, values, strict=True):
                self.log(f"{name}/seed{seed}", value)
            self.log(f"{name}/std", values.std())

    def _logits(self, net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return net(batch["x"], batch.get("lengths"))

    def _loss(self, net: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = self._logits(net, batch)
        loss = nn.functional.cross_entropy(logits, batch["y"])
        return loss, (logits.argmax(-1) == batch["y"]).float().mean()

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        if self.clip is not None:
            for net in self.networks.values():
                nn.utils.clip_grad_norm_(net.parameters(), self.clip)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(parameter_groups(self.networks, **self.optimisation))
        steps = self.schedule_steps or max(1, int(self.trainer.estimated_stepping_batches))
        rising = int(self.warmup * steps)

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class RobustClassifiers(SequenceClassifiers):
    """``SequenceClassifiers`` tested under Fourier-mode noise at the input of every layer.

    Args:
        omegas: angular frequencies of the noise in the layers' own time.
        amplitudes: sizes of the noise.
        The rest as ``SequenceClassifiers``.

    Logs ``accuracy/<layer>/clean`` and ``accuracy/<layer>/omega<w>/amplitude<a>``, over replicas as there.
    """

    def __init__(
        self,
        layers: Mapping[str, Callable[..., StateSpaceLayer]],
        network: Callable[..., SequenceModel],
        omegas: Iterable[float],
        amplitudes: Iterable[float],
        replicas: Iterable[int] = (0,),
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        ssm_lr: float | None = None,
        policy: str = "standard",
        dt_global: bool = False,
        overrides: Mapping[str, Mapping[str, float]] | None = None,
        frozen: Iterable[str] = (),
        warmup: float = 0.0,
        schedule_steps: int | None = None,
        clip: float | None = 1.0,
        fast: bool = False,
    ) -> None:
        super().__init__(
            layers,
            network,
            replicas,
            False,
            lr,
            weight_decay,
            ssm_lr,
            policy,
            dt_global,
            overrides,
            frozen,
            warmup,
            schedule_steps,
            clip,
            fast,
        )
        self.conditions = [None, *((float(w), float(a)) for w in omegas for a in amplitudes)]

    def on_test_epoch_start(self) -> None:
        self._counts = {key: torch.zeros(len(self.conditions), device=self.device) for key in self.networks}
        self._seen = torch.zeros((), device=self.device)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        for key, net in self.networks.items():
            for i, condition in enumerate(self.conditions):
                with fourier_disturbance(net, condition):
                    self._counts[key][i] += (self._logits(net, batch).argmax(-1) == batch["y"]).sum()
        self._seen += len(batch["y"])

    def on_test_epoch_end(self) -> None:
        seen = self.all_gather(self._seen).sum()
        table: dict[str, Tensor] = {}
        for name in self.layer_names:
            counts = [self.all_gather(self._counts[_key(name, seed)]) for seed in self.replicas]
            table[name] = torch.stack([c.reshape(-1, len(self.conditions)).sum(0) for c in counts]) / seen
            for i, condition in enumerate(self.conditions):
                label = "clean" if condition is None else f"omega{condition[0]:g}/amplitude{condition[1]:g}"
                self._log_replicas(f"accuracy/{name}/{label}", table[name][:, i])
        rows = {name: values.cpu() for name, values in table.items()}
        save_figure(self, "accuracy_under_fourier_noise", figures.robustness(rows, self.conditions))


def _key(layer: str, seed: int) -> str:
    return f"{layer}_seed{seed}"
