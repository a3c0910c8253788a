"""Post-training quantization of a digits network: quality by number format, floating point against integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from framework import load_run
from framework.study import Study
from plugins.generative.data import DigitsDataModule
from plugins.generative.figures_quantization import format_quality_figure, sample_rows_figure
from plugins.generative.grids import karras
from plugins.generative.metrics import Reference, frechet_distance, matched_subsets
from plugins.generative.networks import ConvClassifier
from plugins.generative.objectives import fit_flow_matching
from plugins.generative.parameterizations import NetworkDenoiser
from plugins.generative.quantization import (
    E2M1,
    E4M3FN,
    E5M2,
    Moments,
    QuantizationConfig,
    fp_splits,
    learn_rounding,
    noisy_batches,
    parse_format,
    quantized,
    search_clip,
)
from plugins.generative.schedules import Flow
from plugins.generative.solvers import Solver


def cast_mismatches(count: int = 1_000_000, seed: int = 0) -> dict[str, float]:
    """Values among ``count`` on which our FP8 rounding and torch's cast differ in any bit."""
    noise = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    scales = torch.tensor([1e-4, 1e-2, 1.0, 30.0, 300.0])[torch.arange(count) % 5]
    metrics = {}
    for format, dtype in ((E4M3FN, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)):
        x = (noise * scales).clamp(-format.max_value, format.max_value)
        ours, theirs = format.quantize(x).view(torch.int32), x.to(dtype).float().view(torch.int32)
        metrics[f"cast_mismatches/{format.name}"] = float((ours != theirs).sum())
    return metrics


def gaussian_errors() -> dict[str, float]:
    """Mean squared error of each 8- and 4-bit format on N(0, 1) at its best clipping value, by quadrature."""
    p = (torch.arange(50_000, dtype=torch.float64) + 0.5) / 50_000
    x = torch.special.ndtri(p)
    formats = [*fp_splits(8, 2)[:4], parse_format("INT8"), *fp_splits(4), parse_format("INT4")]
    return {f"gaussian_mse/{format.name}": float(search_clip(x, format)[1]) for format in formats}


def wiener_rounding(sigma: float = 0.5, steps: int = 1000) -> dict[str, float]:
    """Output error of the digits' linear denoiser with E2M1 weights, rounded to nearest and by learning.

    The layer is the Wiener filter at noise ``sigma``; errors are mean squares an output, on centred noisy digits.
    ``wiener/gain`` is the share of the error that learning removes, ``wiener/gain_without_polish`` that of the gradient
    descent alone.
    """
    data = DigitsDataModule()
    digits = torch.cat([data.train_set.tensors[0], data.heldout_set.tensors[0]]).flatten(1).double()
    centred = digits - digits.mean(0)
    covariance = centred.T @ centred / len(centred)
    noisy = covariance + sigma**2 * torch.eye(len(covariance), dtype=torch.float64)
    weight = (covariance @ torch.linalg.inv(noisy)).float()
    moments = Moments(noisy, noisy, noisy)
    metrics = {}
    for name, format in (("fp4", E2M1), ("int4", parse_format("INT4"))):
        quantizer, _ = search_clip(weight, format)
        plain = learn_rounding(weight, quantizer, moments, steps, polish=False)
        learned = learn_rounding(weight, quantizer, moments, steps)
        metrics[f"wiener/nearest/{name}"] = learned.nearest_error / len(weight)
        metrics[f"wiener/learned/{name}"] = learned.learned_error / len(weight)
        metrics[f"wiener/gain/{name}"] = 1 - learned.learned_error / learned.nearest_error
        metrics[f"wiener/gain_without_polish/{name}"] = 1 - plain.learned_error / plain.nearest_error
    return metrics


def fit_classifier(classifier: ConvClassifier, images: Tensor, labels: Tensor, steps: int, seed: int) -> ConvClassifier:
    """Train ``classifier``, in place, with Adam on batches of 128, and return it in evaluation mode."""
    generator = torch.Generator(images.device).manual_seed(seed)
    optimizer = torch.optim.Adam(classifier.parameters(), 2e-3)
    classifier.train()
    with torch.enable_grad():
        for _ in range(steps):
            chosen = torch.randint(len(images), (128,), generator=generator, device=images.device)
            optimizer.zero_grad()
            F.cross_entropy(classifier(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return classifier.eval()


class FPQuantization(Study):
    """Quantizes one flow-matching network in several ways and compares what it computes and what it generates.

    Metrics for each variant, and for the network itself as ``full``: ``output_error`` (relative RMS change of the
    network's output on held-out digits over all noise levels), ``sample_error`` (RMS distance from the network's own
    samples from the same noise, pixels in [-1, 1]), ``sliced_wasserstein`` and ``frechet_distance`` from held-out
    digits (``…/floor``: what training digits score), ``frechet_to_full`` from the network's own samples, and
    ``rounding_gain`` (mean share of a layer's output error removed by learned rounding, where there is any). Also
    ``output_gain/<variant>``, by how much learned rounding lowers the output error of the same variant without it
    (``<variant>`` less ``_learned``); ``cast_mismatches``, ``gaussian_mse`` and ``wiener``: see the functions above.

    Args:
        variants: ways to quantize, by name.
        solver: of the samples.
        network: trained here on the digits when there is no ``run``; network(x, t, c) -> velocity.
        classifier: trained here beside it; its features are the space of the Fréchet distance.
        run: folder of a finished run of generative/digits whose network and classifier to use instead of both.
        keep: layers of the network that every variant leaves in full precision, by name (``*`` matches anything).
        train_steps: optimizer steps of that training.
        nfe: network evaluations a sample.
        calibration_images: training digits in each calibration batch.
        calibration_times: calibration batches, at times evenly spread over (0, 1).
        seed: of training, calibration and sampling.
        fast: few training steps and images, and the first and last variant.
    """

    def __init__(
        self,
        variants: Mapping[str, QuantizationConfig],
        solver: Solver,
        network: nn.Module | None = None,
        classifier: ConvClassifier | None = None,
        run: str | None = None,
        keep: Sequence[str] = (),
        train_steps: int = 600,
        nfe: int = 20,
        calibration_images: int = 128,
        calibration_times: int = 10,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if (run is None) != (network is not None and classifier is not None) or (run and (network or classifier)):
            raise ValueError(
                "give either run, the folder of a generative/digits run, or both network and classifier and no run "
                "(model.run=<folder> model.network=null model.classifier=null)"
            )
        if "full" in variants or not variants:
            raise ValueError("variants must hold at least one way to quantize, and none called 'full'")
        self.data = DigitsDataModule()
        if run is not None:
            finished = load_run(Path(run))
            network, classifier = finished.model.network.eval(), finished.model.classifier.eval()
            self.data = finished.data
        self.network, self.classifier = network, classifier
        self.trained = run is not None
        self.variants = {name: replace(c, skip=(*c.skip, *keep)) for name, c in variants.items()}
        if fast:
            few = dict([list(self.variants.items())[i] for i in (0, -1)])
            self.variants = {name: replace(c, rounding_steps=min(c.rounding_steps, 5)) for name, c in few.items()}
        self.solver = solver
        self.train_steps = 5 if fast else train_steps
        self.sigmas = karras(solver.steps_for(4 if fast else nfe), sigma_max=80.0, sigma_min=0.01)
        self.calibration_images = 16 if fast else calibration_images
        self.calibration_times = 3 if fast else calibration_times
        self.count = 40 if fast else None
        self.seed, self.fast = seed, fast

    @torch.inference_mode(False)
    @torch.no_grad()
    def study(self) -> dict[str, float]:
        images, labels = (tensor.to(self.device) for tensor in self.data.train_set.tensors)
        real, real_labels = (tensor[: self.count].to(self.device) for tensor in self.data.heldout_set.tensors)
        if not self.trained:
            fit_flow_matching(self.network, images, labels, self.train_steps, seed=self.seed)
            fit_classifier(self.classifier, images, labels, self.train_steps, self.seed)
        reference = Reference(self.classifier, real, images)
        metrics = cast_mismatches() | gaussian_errors() | wiener_rounding(steps=50 if self.fast else 1000)
        floors = [reference.distances(images[subset]) for subset in matched_subsets(labels, real_labels)]
        metrics |= {f"{key}/floor": sum(f[key] for f in floors) / len(floors) for key in floors[0]}

        times = (torch.arange(self.calibration_times) + 0.5) / self.calibration_times
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
        chosen = chosen[: self.calibration_images].to(self.device)
        calibration = noisy_batches(images[chosen], times, Flow(), self.seed, (labels[chosen],))
        probes = noisy_batches(real, times, Flow(), self.seed + 1, (real_labels,))

        outputs = self._outputs(probes)
        samples = {"full": self._samples(real_labels)}
        metrics |= {f"{key}/full": value for key, value in reference.distances(samples["full"].clamp(-1, 1)).items()}
        for name, config in (bar := tqdm(self.variants.items(), desc="variants")):
            bar.set_postfix_str(name)
            with quantized(self.network, calibration, config, seed=self.seed) as reports:
                changed, samples[name] = self._outputs(probes), self._samples(real_labels)
            gap = sum((a - b).square().sum() for a, b in zip(changed, outputs, strict=True))
            metrics[f"output_error/{name}"] = float(gap / sum(o.square().sum() for o in outputs)) ** 0.5
            if config.rounding_steps:
                gains = [1 - r.error / r.nearest_error for r in reports if r.nearest_error > 0]
                metrics[f"rounding_gain/{name}"] = sum(gains) / len(gains)
            metrics |= self._compare(name, samples, reference)
        for name in self.variants:
            plain = f"output_error/{name.removesuffix('_learned')}"
            if name.endswith("_learned") and plain in metrics:
                metrics[f"output_gain/{name}"] = 1 - metrics[f"output_error/{name}"] / metrics[plain]
        self._draw(metrics, samples, real_labels)
        return metrics

    def _compare(self, name: str, samples: Mapping[str, Tensor], reference: Reference) -> dict[str, float]:
        ours, full = samples[name].clamp(-1, 1), samples["full"].clamp(-1, 1)
        features = [self.classifier.features(x).double() / reference.scale for x in (ours, full)]
        metrics = {f"{key}/{name}": value for key, value in reference.distances(ours).items()}
        metrics[f"sample_error/{name}"] = float((ours - full).square().mean().sqrt())
        metrics[f"frechet_to_full/{name}"] = frechet_distance(*features)
        return metrics

    def _outputs(self, probes: list[tuple[Tensor, ...]]) -> list[Tensor]:
        return [self.network(*probe) for probe in probes]

    def _samples(self, labels: Tensor) -> Tensor:
        """One image for each label, not clamped, from the same noise at every call."""
        size = self.data.heldout_set.tensors[0].shape[1:]
        noise = torch.randn((len(labels), *size), generator=torch.Generator().manual_seed(self.seed)).to(self.device)
        denoiser = NetworkDenoiser(lambda x, t: self.network(x, t, labels), Flow(), "flow", dtype=noise.dtype)
        return self.solver.sample(denoiser, float(self.sigmas[0]) * noise, self.sigmas)

    def _draw(self, metrics: Mapping[str, float], samples: Mapping[str, Tensor], labels: Tensor) -> None:
        panels = {
            "output_error": "output error\n(relative RMS)",
            "sample_error": "distance of samples\nfrom full precision (RMS)",
            "sliced_wasserstein": "sliced Wasserstein\nfrom held-out digits",
            "frechet_distance": "Fréchet distance\nfrom held-out digits",
        }
        floors = {key: metrics[f"{key}/floor"] for key in ("sliced_wasserstein", "frechet_distance")}
        figure = format_quality_figure(metrics, ["full", *self.variants], panels, floors)
        self.save_figure("quality_by_format", figure)
        shown = torch.stack([torch.nonzero(labels == label)[0, 0] for label in labels.unique()])
        rows = {name: images[shown, 0].clamp(-1, 1).cpu() for name, images in samples.items()}
        self.save_figure("samples_by_format", sample_rows_figure(rows, "The same noise through every variant"))
