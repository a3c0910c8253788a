"""The LightningModule of motion: one run trains any number of generators side by side and judges them together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from framework.budget import Budget
from plugins.motion.evaluation import evaluate
from plugins.motion.figures import publish
from plugins.motion.methods import Method


class MotionGenerators(pl.LightningModule):
    """Text-conditioned generators of motion on the same data, given equal time or equal steps.

    With ``seconds`` each batch goes to the method that has trained least long so far, so that all have trained
    equally long at any moment, on any machine and under any load. With ``steps`` every method takes every batch, and
    the run is reproducible to the last bit. Learning rates follow the used share of the budget. Training ends by
    itself when the budget is used up: set ``trainer.max_epochs`` to -1.

    Testing samples from the averaged weights with held-out sentences, and logs what
    :func:`plugins.motion.evaluation.evaluate` finds: ``<metric>/<row>`` with a table, figures and a page of skeletons.

    Args:
        methods: the generators by name.
        seconds, steps: the budget of each method; exactly one of the two.
        samplers: row of the table → its method (``method``) and options of the method's ``generate``; by default
            a row for each method.
        clips: row → number of test clips, where all would take too long.
        seeds: of sampling.
        clip: largest gradient norm of each optimiser, or None.
        fast: two steps, and a few clips of a few sampling steps.

    Attributes:
        budget: what each has trained so far.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        seconds: float | None = None,
        steps: int | None = None,
        samplers: Mapping[str, Mapping[str, Any]] | None = None,
        clips: Mapping[str, int] | None = None,
        seeds: Sequence[int] = (0, 1, 2),
        clip: float | None = None,
        fast: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if not methods:
            raise ValueError("methods must name at least one generator")
        self.budget = Budget(list(methods), seconds, steps, fast)
        self.methods = nn.ModuleDict(methods)
        self.rows = {row: dict(options) for row, options in (samplers or {m: {"method": m} for m in methods}).items()}
        for row, options in self.rows.items():
            if options.get("method") not in methods:
                raise ValueError(f"samplers.{row}.method is {options.get('method')!r}, not one of {', '.join(methods)}")
        self.clips = {row: count for row, count in (clips or {}).items() if row in self.rows}
        self.seeds, self.clip, self.fast = list(seeds), clip, fast

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise ValueError("MotionGenerators learns from a motion data module: set `data`")

        def decode(features: Tensor) -> Tensor:
            return data.representation.decode(data.normalizer.denormalize(features))

        for method in self.methods.values():
            method.decode = decode
        # the averaged weights are at rest on purpose
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        self._optimizers = {
            (name, kind): optimizer
            for name, method in self.methods.items()
            for kind, optimizer in method.optimizers().items()
        }
        self._full_rates = {
            key: [group["lr"] for group in optimizer.param_groups] for key, optimizer in self._optimizers.items()
        }
        return list(self._optimizers.values())

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        for name in self.budget.turn():
            with self.budget.spend(name, self):
                self._train(name, batch)
        self.log("train/progress", self.budget.used, prog_bar=True)
        if self.budget.used >= 1:
            self.trainer.should_stop = True

    def _train(self, name: str, batch: dict[str, Any]) -> None:
        method, progress = self.methods[name], self.budget.share(name)
        wrapped = dict(zip(self._optimizers, self._listed(), strict=True))
        for update in method.updates(batch, progress):
            key = name, update.optimizer
            factor = method.rate(update.optimizer, progress)
            for group, full in zip(self._optimizers[key].param_groups, self._full_rates[key], strict=True):
                group["lr"] = full * factor
            wrapped[key].zero_grad()
            self.manual_backward(update.loss)
            if self.clip is not None:
                parameters = [p for group in self._optimizers[key].param_groups for p in group["params"]]
                nn.utils.clip_grad_norm_(parameters, self.clip)
            wrapped[key].step()
            method.stepped(update.optimizer)
            self.log_dict({f"train/{name}/{term}": value for term, value in update.logs.items()})

    def _listed(self) -> list[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def sampler(self, row: str) -> Callable[..., Tensor]:
        """``(text_emb, lengths, generator) -> motion`` of a row of the table; further options override the row's."""
        options = {name: value for name, value in self.rows[row].items() if name != "method"}
        method = self.methods[self.rows[row]["method"]]
        if self.fast:
            options |= method.quick

        def sample(text_emb: Tensor, lengths: Tensor, generator: torch.Generator | None = None, **more: Any) -> Tensor:
            return method.generate(text_emb, lengths, generator, **options | more)

        return sample

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The evaluation needs all clips at once: it happens at the end of the epoch."""

    def on_test_epoch_end(self) -> None:
        if not self.trainer.is_global_zero:
            return
        data = self.trainer.datamodule
        with torch.inference_mode(False), torch.no_grad():
            table = evaluate(
                {row: self.sampler(row) for row in self.rows},
                data,
                self.seeds,
                clips=self.clips,
                device=self.device,
                fast=self.fast,
            )
        metrics = publish(self, table, data.skeleton, data.fps)
        self.log_dict(metrics | self.budget.metrics("train_"), rank_zero_only=True)
