"""Figures of the generative experiments."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor


def tile(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Images (n, H, W) laid out in rows of `columns`, `gap` pixels of NaN between them (drawn as background)."""
    count, height, width = images.shape
    rows = -(-count // columns)
    sheet = images.new_full((rows * (height + gap) - gap, columns * (width + gap) - gap), float("nan"))
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def sample_sheet(
    samples: Mapping[tuple[str, int], Tensor],
    labels: Tensor | None,
    real: Tensor,
    real_labels: Tensor,
    title: str,
) -> Figure:
    """A row of samples for each solver and number of evaluations, a column for each class, real images beside them.

    Args:
        samples: (solver, evaluations) -> images (n, H, W) in [-1, 1].
        labels: (n,) the classes the samples were asked for; None shows the first samples instead.
        real: (m, H, W) real images.
        real_labels: (m,) their classes.
        title: Of the figure.
    """
    classes = real_labels.unique().tolist()
    rows, columns = len(samples), len(classes)
    members = [torch.nonzero(real_labels == label).flatten() for label in classes]
    beside = [real[which[row % len(which)]] for row in range(rows) for which in members]
    if labels is None:
        shown = torch.arange(columns)
    else:
        shown = torch.stack([torch.nonzero(labels == label)[0, 0] for label in classes])
    generated = tile(torch.cat([images[shown] for images in samples.values()]), columns)

    figure = Figure(figsize=(0.9 * columns + 1.5, 0.42 * rows + 1.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    height, width = (size + 1 for size in real.shape[-2:])
    names = [str(label) for label in classes]
    for axis, name, sheet, top in (
        (left, "generated", generated, names if labels is not None else [""] * columns),
        (right, "real, held out", tile(torch.stack(beside), columns), names),
    ):
        axis.imshow(sheet.numpy(), cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(name)
        axis.xaxis.tick_top()
        axis.set_xticks([(column + 0.5) * width - 1 for column in range(columns)], top)
        axis.set_yticks([])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    left.set_yticks(
        [(row + 0.5) * height - 1 for row in range(rows)], [f"{solver}, NFE {nfe}" for solver, nfe in samples]
    )
    figure.suptitle(title)
    return figure


def quality_against_nfe(
    values: Mapping[str, Mapping[str, Mapping[int, float]]], floors: Mapping[str, float], title: str
) -> Figure:
    """One panel for each metric: a line for each solver over its numbers of evaluations, the floor dashed.

    Args:
        values: metric -> solver -> evaluations -> value.
        floors: metric -> what real images score.
        title: Of the figure.
    """
    figure = Figure(figsize=(4.3 * len(values), 3.8), layout="constrained")
    for axis, (metric, solvers) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        for marker, (solver, points) in zip("osD^vP*X<>" * len(solvers), solvers.items(), strict=False):
            axis.plot(list(points), list(points.values()), marker=marker, label=solver)
        axis.axhline(floors[metric], color="black", linestyle="--", linewidth=1, label="real digits (floor)")
        evaluations = sorted({nfe for points in solvers.values() for nfe in points})
        axis.set_xscale("log")
        axis.set_xticks(evaluations, [str(nfe) for nfe in evaluations])
        axis.set_xticks([], minor=True)
        axis.set_xlabel("network evaluations (NFE)")
        axis.set_title(metric.replace("_", " "))
        axis.grid(alpha=0.3)
        if "confidence" not in metric:
            axis.set_ylim(bottom=0)
    axis.legend()
    figure.suptitle(title)
    return figure


def encoder_propagation_figure(metrics: Mapping[str, float], samples: Mapping[str, Tensor]) -> Figure:
    """Time saved against error for each policy, serial and parallel, and the first samples of each.

    Args:
        metrics: `time_saved/<policy>` and `error/<policy>`, each also with the suffix `_parallel`.
        samples: Policy -> images (n, H, W) in [-1, 1], "plain" among them.
    """
    policies = [name for name in samples if name != "plain"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for suffix, marker, label in (
        ("", "o", "serial"),
        ("_parallel", "s", "parallel"),
    ):
        saved = [100 * metrics[f"time_saved/{name}{suffix}"] for name in policies]
        errors = [metrics[f"error/{name}{suffix}"] for name in policies]
        left.plot(saved, errors, marker, label=label, alpha=0.8)
        if not suffix:
            for name, x, y in zip(policies, saved, errors, strict=True):
                left.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
    left.set_xlabel("time saved, %")
    left.set_ylabel("RMS error against the plain sampler")
    left.set_title("Time against error")
    left.grid(alpha=0.3)
    left.legend()
    columns, height = len(samples["plain"]), samples["plain"].shape[1] + 1
    sheet = tile(torch.cat(list(samples.values())), columns)
    right.imshow(sheet.numpy(), cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    right.set_xticks([])
    right.set_yticks([(row + 0.5) * height - 1 for row in range(len(samples))], list(samples))
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    right.set_title("Samples from the same noise")
    return figure
