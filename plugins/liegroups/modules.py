"""The LightningModule of the classification experiments: several classifiers, one protocol, one table."""

from __future__ import annotations

import time

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from framework.figures import save_figure
from plugins.liegroups.equivariance import equivariance_error
from plugins.liegroups.figures import accuracy_figure
from plugins.liegroups.groups import GeneralLinear, LieGroup
from plugins.liegroups.networks import escnn_classifier


class ClassifierComparison(pl.LightningModule):
    """Trains every classifier of ``models`` on the same batches and tests them on the same sets.

    The models share no parameters, so the summed loss trains each as if alone. AdamW with a one-cycle schedule; the
    peak learning rate is ``learning_rate``, or that given for a model in ``learning_rates``. At the end of every
    validation ``equivariance/<model>`` is the relative change of the logits under random elements of ``group``
    (default GL+(2)). ``peers=True`` adds escnn's regular C8. Test metrics: ``accuracy/<model>/<set>`` in percent,
    ``gl2_ratio/<model>`` where both sets are tested, ``forward_seconds/<model>`` (training forward
    passes) and ``parameters/<model>``.
    """

    def __init__(
        self, models: dict[str, nn.Module], learning_rate: float = 3e-3, learning_rates: dict[str, float] | None = None,
        weight_decay: float = 1e-3, warmup: float = 0.2, group: LieGroup | None = None, label_smoothing: float = 0.0,
        equivariance_images: int = 32, peers: bool = False,
    ):  # fmt: skip
        super().__init__()
        unknown = set(learning_rates or {}) - set(models)
        if unknown:
            raise ValueError(f"learning_rates names {sorted(unknown)}, but the models are {sorted(models)}")
        if not 0 < warmup < 1:
            raise ValueError(f"warmup={warmup}: the share of steps with a rising learning rate lies between 0 and 1")
        self.models = nn.ModuleDict(models)
        if peers:
            self.models["escnn_c8"] = escnn_classifier(8)
        self.learning_rates = {name: (learning_rates or {}).get(name, learning_rate) for name in self.models}
        self.weight_decay, self.warmup = weight_decay, warmup
        self.group = group or GeneralLinear(2)
        self.equivariance_images = equivariance_images
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.register_buffer("seconds", torch.zeros(len(self.models), dtype=torch.float64))
        self._counts: dict[tuple[str, str], Tensor] = {}
        self._probe: Tensor | None = None

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits [B, classes] of every model."""
        return {name: model(images) for name, model in self.models.items()}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        total = images.new_zeros(())
        for k, (name, model) in enumerate(self.models.items()):
            start = time.perf_counter()
            loss = self.loss(model(images), labels)
            self.log(f"train/loss/{name}", loss.detach(), on_step=False, on_epoch=True, sync_dist=True)
            total = total + loss
            self.seconds[k] += time.perf_counter() - start
        return total

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images, labels = batch
        if batch_idx == 0:
            self._probe = images[: self.equivariance_images]
        for name, logits in self(images).items():
            accuracy = 100 * (logits.argmax(1) == labels).float().mean()
            self.log(f"val/accuracy/{name}", accuracy, batch_size=len(labels), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        if self._probe is None or len(self._probe) < 2:
            return
        for name, model in self.models.items():
            error = equivariance_error(model, self.group, self._probe, elements=2)
            self.log(f"equivariance/{name}", error, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self._counts = {}

    def test_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        images, labels = batch
        test_set = self.trainer.datamodule.test_sets[dataloader_idx]
        for name, logits in self(images).items():
            correct = (logits.argmax(1) == labels).sum()
            count = torch.stack([correct, torch.full_like(correct, len(labels))]).double()
            self._counts[name, test_set] = self._counts.get((name, test_set), 0) + count

    def on_test_epoch_end(self) -> None:
        table: dict[str, dict[str, float]] = {}
        for (name, test_set), count in self._counts.items():
            correct, seen = self.all_gather(count).reshape(-1, 2).sum(0).tolist()
            table.setdefault(name, {})[test_set] = 100 * correct / seen
            self.log(f"accuracy/{name}/{test_set}", 100 * correct / seen, rank_zero_only=True)
        for k, (name, model) in enumerate(self.models.items()):
            row = table[name]
            if row.get("padded") and "gl2" in row:
                self.log(f"gl2_ratio/{name}", row["gl2"] / row["padded"], rank_zero_only=True)
            self.log(f"forward_seconds/{name}", float(self.seconds[k]), rank_zero_only=True)
            self.log(f"parameters/{name}", float(sum(p.numel() for p in model.parameters())), rank_zero_only=True)
        save_figure(self, "accuracy", accuracy_figure(table))

    def configure_optimizers(self) -> dict:
        groups = [
            {"params": list(model.parameters()), "lr": self.learning_rates[name]} for name, model in self.models.items()
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        steps = max(int(self.trainer.estimated_stepping_batches), 2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=self.warmup
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
