"""Figures of the experiments; every function returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure


def accuracy_figure(table: Mapping[str, Mapping[str, float]]) -> Figure:
    """Grouped bars: accuracy in percent of every model (key) on every test set (inner key)."""
    models = list(table)
    sets = list(dict.fromkeys(name for row in table.values() for name in row))
    figure = Figure(figsize=(1.6 + 1.9 * len(sets), 4.2))
    axes = figure.subplots()
    width = 0.8 / max(len(models), 1)
    for k, model in enumerate(models):
        x = np.arange(len(sets)) + (k - (len(models) - 1) / 2) * width
        heights = [table[model].get(name, np.nan) for name in sets]
        bars = axes.bar(x, heights, 0.92 * width, label=model)
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.set_xticks(np.arange(len(sets)), sets)
    axes.set_ylim(0, 108)
    axes.set_ylabel("test accuracy (%)")
    axes.set_title("Trained on centred digits, tested on transformed ones")
    axes.legend(ncols=min(len(models), 4), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    return figure


def convergence_figure(curves: Mapping[str, Mapping[str, Mapping[int, float]]]) -> Figure:
    """One panel for each group (outer key): error against number of samples, a line for each layer (inner key)."""
    groups = list(curves)
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for panel in panels.flat[len(groups) :]:
        panel.set_visible(False)
    styles = {}
    for panel, group in zip(panels.flat, groups, strict=False):
        for layer, points in curves[group].items():
            colour = styles.setdefault(layer, f"C{len(styles)}")
            n = sorted(points)
            panel.loglog(n, [max(points[k], 1e-17) for k in n], "o-", color=colour, label=layer, markersize=4)
        n = np.array(sorted(next(iter(curves[group].values()))), dtype=float)
        worst = max(max(points.values()) for points in curves[group].values())
        panel.loglog(n, worst * (n / n[0]) ** -0.5, "k:", label="slope -1/2")
        panel.set_title(group)
        panel.set_xlabel("samples of the group")
        panel.set_ylabel("relative equivariance error")
        panel.grid(True, which="major", alpha=0.3)
    panels.flat[0].legend(fontsize=7)
    return figure


def integral_figure(names: Sequence[str], deviations: Sequence[float]) -> Figure:
    """Monte Carlo estimates minus exact values in units of their standard error, one bar for each integral."""
    figure = Figure(figsize=(7, 0.6 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-3, 3, color="0.92")
    axes.barh(np.arange(len(names)), deviations, color="C0")
    axes.set_yticks(np.arange(len(names)), names, fontsize=8)
    axes.axvline(0, color="k", linewidth=0.8)
    limit = max(3.5, 1.1 * float(np.max(np.abs(deviations), initial=0)))
    axes.set_xlim(-limit, limit)
    axes.invert_yaxis()
    axes.set_xlabel("(Monte Carlo - exact) / standard error; band: 3 standard errors")
    axes.set_title("Haar integrals")
    return figure


def cost_figure(samples: Sequence[int], rows: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Seconds and memory of a training step against the number of samples; rows[layer]["seconds" | "mebibytes"]."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, key, label in zip(
        panels, ("seconds", "mebibytes"), ("seconds", "kept for the backward pass (MiB)"), strict=True
    ):
        for name, row in rows.items():
            panel.loglog(samples, row[key], "o-", label=name, markersize=4)
        panel.set_xticks(list(samples), [str(n) for n in samples])
        panel.minorticks_off()
        panel.set_xlabel("samples of the group")
        panel.set_ylabel(label)
        panel.grid(True, alpha=0.3)
    panels[0].set_title("Training step of one layer")
    panels[1].set_title("Memory")
    panels[0].legend(fontsize=8)
    return figure
