"""The scaling law of floating-point training: what the published one implies, and a fit to runs made here."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from framework.study import Study
from plugins.generative.figures_quantization import critical_data_figure, scaling_fit_figure
from plugins.generative.mixtures import digits_mixture
from plugins.generative.quantization import FPFormat, parse_formats
from plugins.generative.scaling_law import (
    PUBLISHED,
    TARGETS,
    DenoisingTask,
    FitResult,
    ScalingLaw,
    TrainingRun,
    fit,
    fit_penalty,
    paired_penalties,
    train_runs,
)


def published_consequences(law: ScalingLaw = PUBLISHED) -> dict[str, float]:
    """Critical data sizes of a billion parameters at B = 128 with the relative slope left there, and best layouts."""
    metrics = {}
    for bits in (16, 8, 4):
        layout = law.optimal_format(bits)
        setting = (layout.exponent_bits, layout.mantissa_bits, 128)
        critical = float(law.critical_tokens(1e9, *setting))
        slope = critical * law.loss_gradient_in_tokens(1e9, critical, *setting)
        metrics[f"published/critical_tokens/{layout.name}"] = critical
        metrics[f"published/slope_at_critical/{layout.name}"] = abs(float(slope)) / (
            law.beta * law.d / critical**law.beta
        )
        metrics[f"published/optimal_exponent_bits/{bits}bit"] = layout.exponent_bits
    return metrics


def recovered(law: ScalingLaw = PUBLISHED) -> float:
    """Largest relative error of a constant when the law is fitted to its own losses at the paper's sizes."""
    sizes, tokens = (41e6, 85e6, 154e6, 679e6), (1e10, 2e10, 5e10, 1e11)
    settings = [*product((1, 2, 4), (1, 3), (32, 512)), (8, 23, 1)]
    runs = [
        TrainingRun(n, d, *setting, float(law.loss(n, d, *setting)))
        for n, d, setting in product(sizes, tokens, settings)
    ]
    found = fit(runs).law
    return max(abs(getattr(found, name) / getattr(law, name) - 1) for name in law.__dataclass_fields__)


def averaged(runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    """One run for each setting, with the mean loss of its repetitions."""
    groups: dict[tuple[float, ...], list[float]] = {}
    for run in runs:
        groups.setdefault(tuple(run[:-1]), []).append(run.loss)
    return [TrainingRun(*setting, float(np.mean(losses))) for setting, losses in groups.items()]


class FPScalingLaw(Study):
    """Trains denoisers of the digits mixture in many number formats and fits the law to their losses.

    Metrics: ``published/…`` are consequences of the published constants; ``synthetic/largest_error`` is the largest
    relative error of a constant fitted to the published law's own losses. Of the fit to the runs made here:
    ``fit/<constant>`` and ``fit_error/<constant>`` (one standard error), ``fit/r_squared``, ``fit/relative_rms``,
    ``fit/epsilon_over_floor`` (the fitted ε against the exact loss of the best denoiser), ``chinchilla/relative_rms``
    (the best fit without a precision term), ``scatter/relative_rms`` (of repetitions around their mean),
    ``penalty/r_squared`` (share of the variance of the measured penalties, the losses minus those in full precision,
    that the last term of the fitted law explains), ``paired/…`` (the last term fitted to those penalties alone:
    ``tokens_exponent`` and ``parameters_exponent``, for which the law says β and -α, ``delta``, ``nu``,
    ``r_squared``), ``extrapolation/relative_rms`` (of the runs with the most parameters and data, when fitted to the
    others). All runs stand in ``runs.csv``.

    Args:
        widths: of the networks' hidden layers, from small to large.
        steps: optimizer steps; every amount of data is its own run with its own decay of the rate.
        formats: names; the splits of the formats matter, their bias does not.
        block_sizes: elements that share a scale; at most the smallest width and the batch size.
        targets: the quantized operands of the inner layers. Published: weight, weight_backward, input_backward.
        repeats: seeds; losses are averaged over them.
        batch_size: examples a step.
        std: standard deviation of the mixture's components.
        seed: of the first repetition.
        fast: the smallest runs only.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128),
        steps: Sequence[int] = (125, 375, 1125),
        formats: Sequence[str] = ("E1M1", "E2M1", "E1M2", "E3M1", "E1M3", "E2M3", "E4M3"),
        block_sizes: Sequence[int] = (8, 32),
        targets: Sequence[str] = TARGETS,
        repeats: int = 2,
        batch_size: int = 64,
        std: float = 0.3,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        parsed = parse_formats(list(formats))
        if not all(isinstance(f, FPFormat) for f in parsed):
            raise ValueError(f"formats {list(formats)}: the law is about floating-point formats only")
        for name, values in (("widths", widths), ("steps", steps)):
            if len(set(values)) < 3:
                raise ValueError(f"{name}={list(values)}: give at least three, or the fit has no size held out")
        if max(block_sizes) > min(*widths, batch_size) or min(block_sizes) < 2:
            raise ValueError(f"block_sizes={list(block_sizes)}: they must lie in 2..{min(*widths, batch_size)}")
        if repeats < 1:
            raise ValueError(f"repeats={repeats}: it must be at least 1")
        self.widths = [16, 24, 32] if fast else sorted(widths)
        self.steps = [4, 8, 16] if fast else sorted(steps)
        self.formats = parsed
        self.block_sizes = [4, 16] if fast else list(block_sizes)
        self.targets = tuple(targets)
        self.repeats = 1 if fast else repeats
        self.starts = 2 if fast else 16
        self.batch_size, self.std, self.seed, self.fast = batch_size, std, seed, fast

    @torch.inference_mode(False)
    def study(self) -> dict[str, float]:
        mixture = digits_mixture(self.std, torch.float32).to(self.device)
        task = DenoisingTask(mixture, test_size=256 if self.fast else 4096, seed=self.seed)
        runs = self._train_runs(task)
        self._write_runs(runs)
        mean = averaged(runs)
        result = fit(mean, self.starts, self.seed)
        metrics = published_consequences() | {"synthetic/largest_error": recovered()}
        metrics |= self._judge_runs(runs, mean, result, task)
        self.save_figure("fit", scaling_fit_figure(mean, result, fit_penalty(mean)))
        self.save_figure("critical_data", critical_data_figure(PUBLISHED))
        return metrics

    def _train_runs(self, task: DenoisingTask) -> list[TrainingRun]:
        runs: list[TrainingRun] = []
        settings = list(product(range(self.repeats), self.widths, self.steps))
        # Time goes with steps and width, so the bar counts those.
        with tqdm(total=sum(w * s for _, w, s in settings), desc="training runs", unit_scale=True) as bar:
            for repeat, width, steps in settings:
                bar.set_postfix_str(f"width {width}, {steps} steps")
                common = {"batch_size": self.batch_size, "seed": self.seed + repeat}
                runs += train_runs(task, width, steps, None, **common)
                for block in self.block_sizes:
                    runs += train_runs(task, width, steps, self.formats, block, self.targets, **common)
                bar.update(width * steps)
        return runs

    def _write_runs(self, runs: Sequence[TrainingRun]) -> None:
        path = Path(self.run_dir) / "runs.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(TrainingRun._fields)
            writer.writerows(runs)

    def _judge_runs(
        self, runs: Sequence[TrainingRun], mean: Sequence[TrainingRun], result: FitResult, task: DenoisingTask
    ) -> dict[str, float]:
        metrics = {f"fit/{name}": getattr(result.law, name) for name in result.standard_errors}
        metrics |= {f"fit_error/{name}": error for name, error in result.standard_errors.items()}
        by_setting = {run[:-1]: run.loss for run in mean}
        freedom = self.repeats / max(self.repeats - 1, 1)
        scatter = [run.loss / by_setting[run[:-1]] - 1 for run in runs]
        quantized, penalty = paired_penalties(mean)
        predicted = result.law.precision_penalty(*np.array([run[:-1] for run in quantized]).T)
        paired = fit_penalty(mean)
        metrics |= {
            "fit/r_squared": result.r_squared,
            "fit/relative_rms": result.relative_rms,
            "fit/epsilon_over_floor": result.law.epsilon / task.floor,
            "floor": task.floor,
            "chinchilla/relative_rms": result.relative_rms_without_precision,
            "scatter/relative_rms": float(np.sqrt(np.mean(np.square(scatter)) * freedom)),
            "penalty/r_squared": float(
                1 - np.sum((penalty - predicted) ** 2) / np.sum((penalty - penalty.mean()) ** 2)
            ),
            "penalty/largest_relative": float(max(penalty / [run.loss for run in quantized])),
            "penalty/share_positive": float(np.mean(penalty > 0)),
            "paired/tokens_exponent": paired.tokens_exponent,
            "paired/parameters_exponent": paired.parameters_exponent,
            "paired/delta": paired.delta,
            "paired/nu": paired.nu,
            "paired/r_squared": paired.r_squared,
        }
        metrics |= extrapolation(mean, self.starts, self.seed)
        # What the runs do not determine (an infinite error, no positive penalty) is left out.
        return {name: value for name, value in metrics.items() if np.isfinite(value)}


def extrapolation(runs: Sequence[TrainingRun], starts: int, seed: int) -> Mapping[str, float]:
    """Relative RMS error on the runs with the most parameters and the most data, fitted to all others."""
    size, tokens = max(run.parameters for run in runs), max(run.tokens for run in runs)
    held = [run for run in runs if run.parameters == size and run.tokens == tokens]
    law = fit([run for run in runs if run not in held], starts, seed).law
    table = np.array(held)
    error = law.loss(*table[:, :5].T) / table[:, 5] - 1
    return {"extrapolation/relative_rms": float(np.sqrt(np.mean(error**2)))}
