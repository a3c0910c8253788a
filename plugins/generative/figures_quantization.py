"""Figures of the quantization and scaling-law studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from torch import Tensor

from plugins.generative.figures import tile
from plugins.generative.scaling_law import FitResult, PenaltyFit, ScalingLaw, TrainingRun, paired_penalties


def _layout(run: TrainingRun) -> str:
    return "full precision" if run.block_size == 1 else f"E{run.exponent_bits:.0f}M{run.mantissa_bits:.0f}"


def _colours(names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    palette = matplotlib.colormaps["viridis"]
    return {name: palette(0.95 * i / max(1, len(names) - 1)) for i, name in enumerate(names)}


def scaling_fit_figure(runs: Sequence[TrainingRun], result: FitResult, paired: PenaltyFit) -> Figure:
    """Left: measured losses over data, one line a width, the fitted law dashed. Right: the penalty of each format.

    Args:
        runs: the runs of the fit.
        result: of the fit of the whole law.
        paired: of the fit of the precision term to differences from full precision.
    """
    quantized, penalty = paired_penalties(runs)
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = sorted({_layout(run) for run in quantized}, key=lambda n: (int(n[1]) + 0.5) * (int(n[3]) + 0.5))
    colours = _colours(names) | {"full precision": "crimson"}
    shown: set[str] = set()
    for size in sorted({run.parameters for run in runs}):
        for name in [*names, "full precision"]:
            block = max(run.block_size for run in runs if _layout(run) == name)
            line = sorted(
                (run for run in runs if run.parameters == size and run.block_size == block and _layout(run) == name),
                key=lambda run: run.tokens,
            )
            tokens = np.array([run.tokens for run in line])
            label = None if name in shown else name
            shown.add(name)
            left.plot(tokens, [run.loss for run in line], "o", ms=4, color=colours[name], label=label)
            fine = np.geomspace(tokens[0], tokens[-1], 50)
            run = line[0]
            law = result.law.loss(size, fine, run.exponent_bits, run.mantissa_bits, run.block_size)
            left.plot(fine, law, "--", lw=0.8, color=colours[name])
        left.annotate(f"N = {size / 1000:.0f}k", (tokens[-1], line[-1].loss), xytext=(6, 0), textcoords="offset points")
    left.set_xscale("log")
    left.margins(x=0.2)
    left.set_xlabel("training examples D")
    left.set_ylabel("loss")
    largest = max(run.block_size for run in quantized)
    left.set_title(
        f"Runs (dots, B = {largest:.0f}) and the fitted law (dashes)\nrelative RMS {result.relative_rms:.2%}"
    )
    left.legend(fontsize=8)
    left.grid(alpha=0.3)

    predicted = paired.predicted
    for name in names:
        of = np.array([_layout(run) == name for run in quantized])
        right.plot(predicted[of], penalty[of], "o", ms=4, color=colours[name], label=name)
    limits = [0, 1.05 * max(predicted.max(), penalty.max())]
    right.plot(limits, limits, color="0.5", lw=1)
    right.axhline(0, color="0.8", lw=0.8)
    right.set_xlabel(
        r"$D^b N^a \log_2 B\,/\,\gamma (E+\frac{1}{2})^\delta (M+\frac{1}{2})^\nu$ fitted to these differences"
    )
    right.set_ylabel("measured: loss minus that in full precision")
    right.set_title(
        f"What low precision costs: $R^2$ = {paired.r_squared:.2f}, a = {paired.parameters_exponent:.2f}, "
        f"b = {paired.tokens_exponent:.2f}\n(the law: a = -α = {-result.law.alpha:.2f}, b = β = {result.law.beta:.2f})"
    )
    right.legend(fontsize=8, title="format")
    right.grid(alpha=0.3)
    return figure


def critical_data_figure(law: ScalingLaw, parameters: float = 1e9, block_size: float = 128) -> Figure:
    """Loss against data under a law in several formats, with the critical data sizes marked."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    tokens = np.geomspace(1e10, 1e16, 400)
    layouts = [law.optimal_format(bits) for bits in (4, 6, 8, 16)]
    colours = _colours([layout.name for layout in layouts])
    for layout in layouts:
        setting = (layout.exponent_bits, layout.mantissa_bits, block_size)
        axes.plot(tokens, law.loss(parameters, tokens, *setting), color=colours[layout.name], label=layout.name)
        critical = law.critical_tokens(parameters, *setting)
        axes.plot(critical, law.loss(parameters, critical, *setting), "o", color=colours[layout.name])
    axes.plot(tokens, law.loss(parameters, tokens, 8, 7, 1), "k--", lw=1, label="full precision")
    full = law.loss(parameters, tokens, 8, 7, 1)
    axes.set_ylim(full.min() - 0.02, full.max() + 0.05)
    axes.set_xscale("log")
    axes.set_xlabel("training tokens D (dots: critical size, beyond which more data hurts)")
    axes.set_ylabel("loss")
    axes.set_title(f"Published law, N = {parameters:.0e} parameters, blocks of {block_size:.0f}")
    axes.legend(title="best split of 4, 6, 8, 16 bits", fontsize=8)
    axes.grid(alpha=0.3, which="both", lw=0.4)
    return figure


def format_quality_figure(
    metrics: Mapping[str, float], variants: Sequence[str], panels: Mapping[str, str], floors: Mapping[str, float]
) -> Figure:
    """A panel for each metric, a row for each way to quantize, floating point and integers in their own colours.

    Args:
        metrics: values by ``<metric>/<variant>``.
        variants: in the order of the rows, from the top.
        panels: title of each metric.
        floors: values by metric to mark with a dashed line.
    """
    figure = Figure(figsize=(3.6 * len(panels) + 1.6, 0.27 * len(variants) + 1.6), layout="constrained")
    columns = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    rows = np.arange(len(variants))[::-1]
    styles = {"fp": ("tab:blue", "o"), "int": ("tab:orange", "s"), "": ("black", "D")}

    def kind(variant: str) -> str:
        return next((k for k in ("fp", "int") if k in variant.split("_")), "")

    for axes, (metric, title) in zip(columns, panels.items(), strict=True):
        for row, variant in zip(rows, variants, strict=True):
            value = metrics.get(f"{metric}/{variant}")
            if value is None:
                continue
            colour, marker = styles[kind(variant)]
            filled = colour if "learned" in variant else "white"
            axes.plot(value, row, marker, color=colour, mfc=filled if kind(variant) else colour, ms=6)
        if metric in floors:
            axes.axvline(floors[metric], color="0.4", ls="--", lw=1, label="real images")
            axes.legend(fontsize=7)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3, which="both", lw=0.4)
        axes.set_yticks(rows, [v.replace("_", " ") for v in variants], fontsize=8)
    figure.suptitle("Quality by number format (circles: floating point, squares: integers, filled: learned rounding)")
    return figure


def sample_rows_figure(samples: Mapping[str, Tensor], title: str) -> Figure:
    """A row of images (n, H, W) in [-1, 1] for each entry, all from the same noise."""
    count = len(next(iter(samples.values())))
    figure = Figure(figsize=(0.42 * count + 2, 0.42 * len(samples) + 0.6), layout="constrained")
    for axes, (name, images) in zip(np.atleast_1d(figure.subplots(len(samples), 1)), samples.items(), strict=True):
        axes.imshow(tile(images, count).numpy(), cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(title)
    return figure
