"""Equivariance errors and costs, drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure


def error_figure(errors: Mapping[str, float]) -> Figure:
    """`error/<model>/<transformation>` as a table of colours: exact is pale, approximate is dark."""
    cells = {tuple(name.split("/")[1:]): value for name, value in errors.items()}
    models = list(dict.fromkeys(model for model, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    table = np.array([[cells.get((model, column), np.nan) for column in columns] for model in models])
    figure = Figure(figsize=(2.4 + 1.15 * len(columns), 1 + 0.34 * len(models)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.log10(np.maximum(table, 1e-17)), vmin=-16, vmax=0, cmap="Blues", aspect="auto")
    for i, j in np.argwhere(np.isfinite(table)):
        axes.text(j, i, f"{table[i, j]:.0e}", ha="center", va="center", fontsize=8,
                  color="w" if table[i, j] > 1e-5 else "k")  # fmt: skip
    axes.set_xticks(range(len(columns)), [column.replace("_", "\n") for column in columns], fontsize=8)
    axes.set_yticks(range(len(models)), models, fontsize=8)
    figure.colorbar(image, ax=axes, label="log10 of the relative error, float64")
    return figure


def resolution_figure(curves: Mapping[str, Mapping[int, float]]) -> Figure:
    """Error under random rotations against the number of orientations of a fixed grid."""
    figure = Figure(figsize=(5.6, 3.9), layout="constrained")
    axes = figure.subplots()
    for label, curve in curves.items():
        axes.loglog(list(curve), list(curve.values()), "o-", label=label)
    ticks = sorted({count for curve in curves.values() for count in curve})
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.minorticks_off()
    axes.set_xlabel("orientations of the grid")
    axes.set_ylabel("relative error under random rotations")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


ATOMS_OF_EDGES = 21
"""Atoms of the graphs whose edges are varied."""

COST_AXES = {
    "atoms": "atoms of a graph (edges grow as their square)",
    "edges": f"directed edges of a graph of {ATOMS_OF_EDGES} atoms",
    "orientations": "orientations of the grid",
}


def cost_figure(curves: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Figure:
    """Milliseconds of a training step with forces, by network, against any of `COST_AXES`.

    Args:
        curves: what varies → its value → network → milliseconds.
    """
    figure = Figure(figsize=(5 * len(curves), 3.9), layout="constrained")
    for axes, (axis, points) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for name in next(iter(points.values())):
            axes.loglog(list(points), [point[name] for point in points.values()], "o-", label=name)
        axes.set_xticks(list(points), [str(value) for value in points])
        axes.minorticks_off()
        axes.set_xlabel(COST_AXES[axis])
        axes.set_ylabel("ms of a training step with forces")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
