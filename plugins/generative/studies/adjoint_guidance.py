"""AdjointDPM on digits: steer a trained model towards a class by gradients that pass through the whole sampler."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from tqdm import tqdm

from framework import load_run
from framework.study import Study
from plugins.generative.data import DigitsDataModule
from plugins.generative.figures_adjoint import adjoint_guidance_figure
from plugins.generative.grids import karras
from plugins.generative.mixtures import toy_mixture
from plugins.generative.objectives import fit_flow_matching
from plugins.generative.parameterizations import NetworkDenoiser
from plugins.generative.schedules import Flow
from plugins.generative.solvers import Denoiser
from plugins.generative.solvers.adjoint import GRADIENTS, METHODS, adjoint_sample
from plugins.generative.studies.memory import peak_allocation

EMBEDDING = "class_embedding.weight"


def fit_classifier(
    classifier: nn.Module, images: Tensor, labels: Tensor, steps: int, seed: int, batch_size: int = 128
) -> nn.Module:
    """Train `classifier`, in place, with AdamW under a one-cycle rate; returned in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(classifier.parameters(), 1e-2, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=max(steps, 2), cycle_momentum=False)
    classifier.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch_size,), generator=generator).to(images.device)
        optimizer.zero_grad()
        F.cross_entropy(classifier(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


class DigitSampler:
    """The model as a function from unit noise (and its embedding table) to images, differentiable in both.

    Args:
        network: Flow-matching network(x, t, c) with a `class_embedding`.
        steps: Of the Runge-Kutta method.
        method, gradient: Of `adjoint_sample`.
        sigma_max, sigma_min: Ends of the Karras grid.
    """

    def __init__(
        self,
        network: nn.Module,
        steps: int,
        method: str,
        gradient: str,
        sigma_max: float = 80.0,
        sigma_min: float = 0.01,
    ) -> None:
        self.network, self.method, self.gradient = network, method, gradient
        self.sigmas = karras(steps, sigma_max, sigma_min)

    def denoiser(self, labels: Tensor, embedding: Tensor) -> Denoiser:
        """E[x0 | y] given labels (B,), with `embedding` in place of the network's own table."""

        def network(x: Tensor, t: Tensor) -> Tensor:
            return functional_call(self.network, {EMBEDDING: embedding}, (x, t, labels))

        return NetworkDenoiser(network, Flow(), "flow", dtype=embedding.dtype)

    def __call__(
        self, noise: Tensor, labels: Tensor, embedding: Tensor, parameters: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Images (B, C, H, W) from unit noise; `parameters` limits the adjoint's gradients."""
        return adjoint_sample(
            self.denoiser(labels, embedding),
            float(self.sigmas[0]) * noise,
            self.sigmas,
            method=self.method,
            gradient=self.gradient,
            parameters=parameters if self.gradient == "adjoint" else None,
        )


class AdjointGuidance(Study):
    """Steers unlabelled samples of a digits model towards one class of a classifier, through the sampler.

    "noise" moves each sample's starting noise, kept at its norm; "conditioning" moves one embedding vector, shared by
    the batch, that starts as the null class's. Nothing else changes: no guidance acts inside the sampler. A second
    classifier, trained on the held-out digits, judges whether the steered images are that digit or merely fool the
    first one.

    Metrics: `probability/before`, `probability/noise_<mode>`, `probability/conditioning_adjoint`: mean probability of
    the target class by the steering classifier; `judged/...`: by the other one; `judge/accuracy`: of that one on the
    training digits. For the numbers of steps in `sweep`, with <what> one of noise, conditioning (the embedding table)
    and weights (all others together), in float64:
    `gradient_gap/<what>/n<n>`, the relative difference of the adjoint's gradient of the steering loss from that of
    autograd through the same n steps;
    `gradient_error/adjoint|discrete/<what>/n<n>`, the relative error of either against autograd through
    `reference_steps` steps, which also holds what the sampler itself is off by;
    `mixture_error/<method>/n<n>`, the adjoint's error against the same on a planar mixture with closed-form denoiser.
    `peak_mib/<mode>/n<n>` is the peak memory of one forward and backward pass, in float32, `seconds/<mode>/n<n>` its
    time, and `peak_growth/<mode>` the peak at the largest n over that at the smallest.

    Args:
        network: Trained here on the digits' training images when there is no `run`.
        classifier: Steers; trained here, or that of the `run`. The judge is another of its kind.
        run: Folder of a finished run of generative/digits whose network and classifier to use instead.
        target: Class to steer to, 0 to 9.
        samples: Images steered.
        steps, method: Runge-Kutta steps and method of the sampler that is steered.
        iterations, learning_rate: Of Adam, on the noise or the embedding.
        modes: Gradient modes to steer the noise with, of "adjoint", "checkpoint", "backprop".
        sweep: Numbers of steps for errors and memory.
        reference_steps: Of the exact gradient.
        train_steps: Of the network's training.
        seed: Of training and noise.
        fast: Tiny numbers everywhere.
    """

    def __init__(
        self,
        classifier: nn.Module | None = None,
        network: nn.Module | None = None,
        run: str | None = None,
        target: int = 3,
        samples: int = 20,
        steps: int = 8,
        method: str = "rk4",
        iterations: int = 20,
        learning_rate: float = 0.1,
        modes: Sequence[str] = GRADIENTS,
        sweep: Sequence[int] = (5, 10, 20, 40),
        reference_steps: int = 400,
        train_steps: int = 400,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if (network is None) == (run is None) or (classifier is None) == (run is None):
            raise ValueError("give either run, the folder of a generative/digits run, or network and classifier")
        unknown = [mode for mode in modes if mode not in GRADIENTS]
        if unknown or method not in METHODS:
            raise ValueError(
                f"modes must be of {', '.join(GRADIENTS)} and method of {', '.join(METHODS)}; got {list(modes)}, "
                f"{method!r}"
            )
        if not 0 <= target <= 9:
            raise ValueError(f"target is a digit, 0 to 9; got {target}")
        self.trained = run is not None
        if run is not None:
            model = load_run(Path(run)).model
            network, classifier = model.network, model.classifier
        self.network, self.classifier = network.eval(), classifier
        self.judge = copy.deepcopy(classifier)
        for module in self.judge.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        self.target, self.seed = target, seed
        self.samples = 2 if fast else samples
        self.steps, self.method = (2 if fast else steps), method
        self.iterations, self.learning_rate = (2 if fast else iterations), learning_rate
        self.modes = tuple(modes)
        self.sweep = (1, 2) if fast else tuple(sweep)
        self.reference_steps = 4 if fast else reference_steps
        self.train_steps = 5 if fast else train_steps

    def study(self) -> dict[str, float]:
        # a test stage runs in inference mode, whose tensors autograd refuses
        with torch.inference_mode(False), torch.enable_grad():
            return self._study()

    def _study(self) -> dict[str, float]:
        data = DigitsDataModule()
        train, train_labels = (tensor.to(self.device) for tensor in data.train_set.tensors)
        heldout, heldout_labels = (tensor.to(self.device) for tensor in data.heldout_set.tensors)
        if not self.trained:
            fit_flow_matching(self.network, train, train_labels, self.train_steps, seed=self.seed)
            fit_classifier(self.classifier, train, train_labels, self.train_steps, self.seed)
        fit_classifier(self.judge, heldout, heldout_labels, self.train_steps, self.seed + 1)
        for parameter in (*self.classifier.parameters(), *self.judge.parameters(), *self.network.parameters()):
            parameter.requires_grad_(False)
        self.classifier.eval()
        judged = (self.judge(train).argmax(1) == train_labels).float().mean().item()

        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn((self.samples, *train.shape[1:]), generator=generator).to(self.device)
        null = torch.full((self.samples,), self.network.num_classes, device=self.device)
        images = {"before": self._images(noise, null, self.network.get_parameter(EMBEDDING))}
        for mode in self.modes:
            images[f"noise_{mode}"] = self._steer_noise(noise, null, mode)
        images["conditioning_adjoint"] = self._steer_conditioning(noise, null)

        metrics = {"judge/accuracy": judged}
        for name, batch in images.items():
            for key, judge in (("probability", self.classifier), ("judged", self.judge)):
                metrics[f"{key}/{name}"] = judge(batch).softmax(1)[:, self.target].mean().item()
        metrics |= self._gradient_errors(noise[:4], null[:4])
        metrics |= self._mixture_errors()
        metrics |= self._memory(noise, null)
        shown = {name: batch[:12, 0].cpu() for name, batch in images.items()}
        self.save_figure("adjoint_guidance", adjoint_guidance_figure(metrics, shown, self.target))
        return metrics

    def _loss(self, images: Tensor, classifier: nn.Module | None = None) -> Tensor:
        """Negative log-probability of the target, summed over the batch: samples do not share their gradients."""
        logits = (self.classifier if classifier is None else classifier)(images)
        return -logits.log_softmax(1)[:, self.target].sum()

    @torch.no_grad()
    def _images(self, noise: Tensor, labels: Tensor, embedding: Tensor) -> Tensor:
        return DigitSampler(self.network, self.steps, self.method, "backprop")(noise, labels, embedding).clamp(-1, 1)

    def _steer_noise(self, noise: Tensor, labels: Tensor, mode: str) -> Tensor:
        sampler = DigitSampler(self.network, self.steps, self.method, mode)
        embedding = self.network.get_parameter(EMBEDDING)
        norm = noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        moved = noise.clone().requires_grad_()
        optimizer = torch.optim.Adam([moved], self.learning_rate)
        for _ in tqdm(range(self.iterations), f"steering the noise, {mode}"):
            optimizer.zero_grad()
            self._loss(sampler(moved, labels, embedding)).backward()
            optimizer.step()
            with torch.no_grad():
                # Gaussian noise lives near a sphere; off it the model has never been
                moved.mul_(norm / moved.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        return self._images(moved.detach(), labels, embedding)

    def _steer_conditioning(self, noise: Tensor, labels: Tensor) -> Tensor:
        sampler = DigitSampler(self.network, self.steps, self.method, "adjoint")
        table = self.network.get_parameter(EMBEDDING)
        vector = table[self.network.num_classes].clone().requires_grad_()
        optimizer = torch.optim.Adam([vector], self.learning_rate)

        def embedding() -> Tensor:
            return torch.cat([table[: self.network.num_classes], vector[None]])

        for _ in tqdm(range(self.iterations), "steering the conditioning, adjoint"):
            optimizer.zero_grad()
            current = embedding()
            self._loss(sampler(noise, labels, current, parameters=[current])).backward()
            optimizer.step()
        return self._images(noise, labels, embedding().detach())

    def _gradient_errors(self, noise: Tensor, labels: Tensor) -> dict[str, float]:
        network, classifier = (copy.deepcopy(module).double() for module in (self.network, self.classifier))
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        embedding = network.get_parameter(EMBEDDING)
        weights = [parameter for parameter in network.parameters() if parameter is not embedding]
        noise = noise.double().requires_grad_()

        def gradients(steps: int, mode: str) -> dict[str, Tensor]:
            sampler = DigitSampler(network, steps, self.method, mode)
            loss = self._loss(sampler(noise, labels, embedding), classifier)
            found = torch.autograd.grad(loss, [noise, embedding, *weights], allow_unused=True)
            rest = torch.cat([grad.flatten() for grad in found[2:] if grad is not None])
            return {"noise": found[0], "conditioning": found[1], "weights": rest}

        def distance(one: Tensor, other: Tensor) -> float:
            return ((one - other).norm() / other.norm()).item()

        exact = gradients(self.reference_steps, "checkpoint")
        errors = {}
        for steps in tqdm(self.sweep, "gradient errors"):
            # checkpointing has the gradients of backpropagation, at less memory
            adjoint, discrete = gradients(steps, "adjoint"), gradients(steps, "checkpoint")
            for what, reference in exact.items():
                errors[f"gradient_gap/{what}/n{steps}"] = distance(adjoint[what], discrete[what])
                errors[f"gradient_error/adjoint/{what}/n{steps}"] = distance(adjoint[what], reference)
                errors[f"gradient_error/discrete/{what}/n{steps}"] = distance(discrete[what], reference)
        return errors

    def _mixture_errors(self) -> dict[str, float]:
        """Where the denoiser is smooth: errors of the adjoint with respect to the starting noise."""
        mixture = toy_mixture()
        start = 80.0 * torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(self.seed))

        def gradient(steps: int, method: str, mode: str) -> Tensor:
            y = start.clone().requires_grad_()
            sample = adjoint_sample(mixture, y, karras(steps, 80.0, 0.01), method=method, gradient=mode)
            return torch.autograd.grad((sample - mixture.means[0]).square().sum(), y)[0]

        exact = gradient(self.reference_steps, "rk4", "backprop")
        return {
            f"mixture_error/{method}/n{steps}": (
                (gradient(steps, method, "adjoint") - exact).norm() / exact.norm()
            ).item()
            for method in ("euler", "midpoint", "rk4")
            for steps in self.sweep
        }

    def _memory(self, noise: Tensor, labels: Tensor) -> dict[str, float]:
        metrics: dict[str, float] = {}
        embedding = self.network.get_parameter(EMBEDDING)

        def one_pass(sampler: DigitSampler) -> Callable[[], None]:
            def work() -> None:
                start = noise.clone().requires_grad_()
                self._loss(sampler(start, labels, embedding)).backward()

            return work

        for mode in self.modes:
            for steps in tqdm(self.sweep, f"memory, {mode}"):
                work = one_pass(DigitSampler(self.network, steps, self.method, mode))
                began = time.perf_counter()
                work()
                metrics[f"seconds/{mode}/n{steps}"] = time.perf_counter() - began
                metrics[f"peak_mib/{mode}/n{steps}"] = peak_allocation(work, self.device) / 2**20
            few, many = (metrics[f"peak_mib/{mode}/n{n}"] for n in (min(self.sweep), max(self.sweep)))
            metrics[f"peak_growth/{mode}"] = many / few
        return metrics
