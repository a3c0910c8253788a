"""Figures of molecular properties and of generated molecules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from plugins.equivariant.diffusion import bond_orders
from plugins.equivariant.molecules import Frame

COLOURS = {1: "#d0d0d0", 6: "#404040", 7: "#3060d0", 8: "#d03030", 9: "#30a050"}


def property_errors(metrics: Mapping[str, float]) -> Figure:
    """Mean absolute error of each network."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    names = [key.split("/", 1)[1] for key in metrics]
    bars = axes.barh(names, list(metrics.values()), color="tab:blue")
    axes.bar_label(bars, fmt="%.4g", padding=3)
    axes.set_xlabel("mean absolute test error")
    axes.set_title("One property of whole molecules")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    return figure


def molecules(frames: Sequence[Frame], titles: Sequence[str], columns: int = 4) -> Figure:
    """Molecules in three dimensions, bonds as distances tell them."""
    rows = -(-len(frames) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.7 * rows), layout="constrained")
    for number, (frame, title) in enumerate(zip(frames, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, number + 1, projection="3d")
        pos = frame.pos - frame.pos.mean(0)
        orders = bond_orders(frame.numbers, frame.pos)
        for i, j in np.argwhere(np.triu(orders) > 0):
            axes.plot(*pos[[i, j]].T, color="#808080", linewidth=1.2 * orders[i, j])
        colours = [COLOURS.get(int(z), "#c060c0") for z in frame.numbers]
        sizes = np.where(frame.numbers == 1, 40, 90)
        axes.scatter(*pos.T, c=colours, s=sizes, depthshade=False, edgecolors="black", linewidths=0.5)
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
        axes.set_box_aspect((1, 1, 1))
        reach = max(1.0, float(np.abs(pos).max()))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    figure.suptitle("Generated molecules (grey H, black C, blue N, red O, green F)")
    return figure
