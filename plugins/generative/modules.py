"""LightningModules of the generative experiments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from framework.figures import save_figure
from plugins.generative.figures import quality_against_nfe, sample_sheet
from plugins.generative.metrics import Reference, matched_subsets
from plugins.generative.objectives import flow_matching_loss, stratified_times
from plugins.generative.parameterizations import ClassifierFreeGuidance, NetworkDenoiser
from plugins.generative.schedules import Flow
from plugins.generative.solvers import Denoiser, Solver


class FlowMatching(LightningModule):
    """Class-conditional flow matching on images, with a classifier of the same images trained beside it.

    Training: the network learns the velocity, with labels dropped at `label_dropout` for classifier-free guidance;
    the classifier, which shares no weights with it, learns the labels of the clean images.

    Testing: every solver draws as many samples as there are held-out images, with their labels and from the same
    noise, at every number of evaluations. Each gives `<metric>/<solver>/nfe<k>`: `sliced_wasserstein` (pixels) and
    `frechet_distance` (classifier features, standardised on the training images; it is no FID) from the held-out
    images, and what the classifier says, `classifier_confidence`, `class_accuracy`, `class_coverage` and
    `class_min_share`. `<metric>/floor` is the same for real images: distances of equally many training images, by
    class, from the held-out ones, and the classifier's word on those. The data module must offer `train_set` and
    `heldout_set`, TensorDatasets of images and labels.

    Args:
        network: network(x, t, c) -> velocity, with `num_classes` labels and the null class after them.
        classifier: classifier(x) -> logits, with `features(x)` and as many classes.
        optimizer: Called with the parameters.
        solvers: Samplers by the name they have in metrics and figures.
        grid: grid(steps) -> noise levels from the prior's down, float64 (steps + 1,).
        nfe: Numbers of network evaluations, each a multiple of what a step of every solver costs.
        scheduler: Called with the optimizer and `total_steps`; stepped after every training step. None for a constant
            rate.
        label_dropout: Share of the labels replaced by the null class.
        guidance_scale: 0 samples without labels, 1 with labels, more with classifier-free guidance
            D_null + scale * (D_label - D_null).
        sample_seed: Of the noise that samples start from.
        fast: Evaluate on a few images at the smallest number of evaluations.
    """

    def __init__(
        self,
        network: nn.Module,
        classifier: nn.Module,
        optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
        solvers: Mapping[str, Solver],
        grid: Callable[[int], Tensor],
        nfe: Sequence[int] = (6, 10, 20, 50),
        scheduler: Callable[..., Any] | None = None,
        label_dropout: float = 0.1,
        guidance_scale: float = 1.0,
        sample_seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if network.num_classes != classifier.num_classes:
            raise ValueError(
                f"network.num_classes is {network.num_classes} and classifier.num_classes {classifier.num_classes}: "
                "they label the same images and must agree"
            )
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout is a share between 0 and 1; got {label_dropout}")
        if guidance_scale < 0:
            raise ValueError(f"guidance_scale must not be negative (0 ignores the labels); got {guidance_scale}")
        if guidance_scale != 1 and label_dropout == 0:
            raise ValueError("guidance_scale other than 1 needs the null class: set label_dropout above 0")
        self.network = network
        self.classifier = classifier
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.solvers = dict(solvers)
        self.grid = grid
        self.nfe = sorted(nfe)[:1] if fast else sorted(nfe)
        self.label_dropout = label_dropout
        self.guidance_scale = guidance_scale
        self.sample_seed = sample_seed
        self.fast = fast
        for solver in self.solvers.values():
            for evaluations in self.nfe:
                self.levels(solver, evaluations)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        schedule = self.scheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        dropped = torch.rand(len(labels), device=labels.device) < self.label_dropout
        t = stratified_times(len(images), device=images.device)
        seen = labels.masked_fill(dropped, self.network.num_classes)
        loss = flow_matching_loss(self.network, images, t, torch.randn_like(images), seen)
        classifier_loss = F.cross_entropy(self.classifier(images), labels)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/classifier_loss", classifier_loss)
        return loss + classifier_loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate_step("val", batch, batch_idx)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate_step("test", batch, batch_idx)

    def _evaluate_step(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        # the same noise in every epoch: the curve shows the network, not the draw
        generator = torch.Generator().manual_seed(batch_idx)
        t = stratified_times(len(images), generator).to(images)
        noise = torch.randn(images.shape, generator=generator).to(images)
        loss = flow_matching_loss(self.network, images, t, noise, labels)
        accuracy = (self.classifier(images).argmax(dim=1) == labels).float().mean()
        size = len(images)
        self.log(f"{stage}/loss", loss, prog_bar=stage == "val", batch_size=size, sync_dist=True)
        self.log(f"{stage}/classifier_accuracy", accuracy, batch_size=size, sync_dist=True)

    def denoiser(
        self, labels: Tensor | None, guidance_scale: float | None = None, network: nn.Module | None = None
    ) -> Denoiser:
        """What solvers call: denoiser(y, sigma) -> E[x0 | y] for y (B, C, H, W).

        Args:
            labels: (B,) classes; None for the null class.
            guidance_scale: In place of the module's own.
            network: In place of the module's own, with the same arguments.
        """
        network = self.network if network is None else network
        scale = self.guidance_scale if guidance_scale is None else guidance_scale

        def given(c: Tensor | None) -> Denoiser:
            return NetworkDenoiser(lambda x, t: network(x, t, c), Flow(), "flow", dtype=self.dtype)

        if labels is None or scale == 0:
            return given(None)
        return given(labels) if scale == 1 else ClassifierFreeGuidance(given(labels), given(None), scale)

    @torch.no_grad()
    def generate(
        self, solver: Solver, labels: Tensor, nfe: int, size: Sequence[int], guidance_scale: float | None = None
    ) -> Tensor:
        """Samples (B, *size) in [-1, 1], one for each of labels (B,), from the noise of `sample_seed`.

        Args:
            solver: Any of `plugins.generative.solvers`.
            labels: (B,) classes in 0..num_classes - 1.
            nfe: Evaluations to spend.
            size: (C, H, W).
            guidance_scale: In place of the module's own.

        Raises:
            ValueError: the solver cannot spend exactly `nfe` evaluations on the module's grid.
        """
        sigmas = self.levels(solver, nfe)
        generator = torch.Generator(self.device).manual_seed(self.sample_seed)
        noise = torch.randn((len(labels), *size), generator=generator, device=self.device)
        denoiser = self.denoiser(labels, guidance_scale)
        return solver.sample(denoiser, float(sigmas[0]) * noise, sigmas, generator=generator).clamp(-1, 1)

    def levels(self, solver: Solver, nfe: int) -> Tensor:
        """The grid on which `solver` spends exactly `nfe` evaluations."""
        sigmas = self.grid(solver.steps_for(nfe))
        if (spent := solver.nfe(sigmas)) != nfe:
            raise ValueError(
                f"{type(solver).__name__} spends {spent} evaluations on a grid for {nfe}; "
                f"choose an nfe divisible by {solver.evaluations}"
            )
        return sigmas

    def on_test_start(self) -> None:
        if not all(hasattr(self.trainer.datamodule, name) for name in ("train_set", "heldout_set")):
            raise ValueError("testing compares samples with the train_set and heldout_set of a data module: set `data`")

    def on_test_epoch_end(self) -> None:
        data = self.trainer.datamodule
        real, labels = (tensor[: 64 if self.fast else None].to(self.device) for tensor in data.heldout_set.tensors)
        train, train_labels = (tensor.to(self.device) for tensor in data.train_set.tensors)
        reference = Reference(self.classifier, real, train)
        # the classifier knows its training images by heart: the floor is what it says about held-out ones
        floors = reference.classification(real, labels)
        subsets = [reference.distances(train[subset]) for subset in matched_subsets(train_labels, labels)]
        floors |= {metric: sum(scores[metric] for scores in subsets) / len(subsets) for metric in subsets[0]}

        asked = labels if self.guidance_scale > 0 else None
        samples: dict[tuple[str, int], Tensor] = {}
        scores: dict[str, dict[str, dict[int, float]]] = {metric: {} for metric in floors}
        bar = tqdm([(name, nfe) for name in self.solvers for nfe in self.nfe], "sampling", disable=self.global_rank > 0)
        for name, nfe in bar:
            bar.set_postfix_str(f"{name}, NFE {nfe}")
            images = samples[name, nfe] = self.generate(self.solvers[name], labels, nfe, real.shape[1:])
            for metric, value in (reference.distances(images) | reference.classification(images, asked)).items():
                scores[metric].setdefault(name, {})[nfe] = value
                self.log(f"{metric}/{name}/nfe{nfe}", value, sync_dist=True)
        self.log_dict({f"{metric}/floor": value for metric, value in floors.items()}, sync_dist=True)

        how = "without labels" if asked is None else f"class-conditional, guidance scale {self.guidance_scale:g}"
        grey = {key: images[:, 0].cpu() for key, images in samples.items()}
        columns = None if asked is None else labels.cpu()
        save_figure(self, "samples", sample_sheet(grey, columns, real[:, 0].cpu(), labels.cpu(), f"Digits, {how}"))
        panels = {name: scores[name] for name in ("sliced_wasserstein", "frechet_distance", "classifier_confidence")}
        title = f"{len(real)} samples against {len(real)} held-out digits, {how}"
        save_figure(self, "quality_against_nfe", quality_against_nfe(panels, floors, title))
