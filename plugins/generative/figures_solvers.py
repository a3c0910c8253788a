"""Figures of the solver studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from .studies.convergence_orders import Convergence


def order_figure(results: Mapping[str, Convergence]) -> Figure:
    """Left: error against N on logarithmic axes, coloured by order; right: measured against claimed order."""
    figure = Figure(figsize=(15, max(5.0, 0.17 * len(results) + 1)), layout="constrained")
    errors, orders = figure.subplots(1, 2, width_ratios=(1.15, 1))
    palette = matplotlib.colormaps["viridis"]
    claimed = sorted({result.expected for result in results.values()})
    colour = {order: palette(0.9 * i / max(1, len(claimed) - 1)) for i, order in enumerate(claimed)}
    labelled = set()
    for result in results.values():
        label = None if result.expected in labelled else f"order {result.expected:g}"
        labelled.add(result.expected)
        style = {"color": colour[result.expected], "label": label, "ms": 3, "lw": 1, "alpha": 0.7}
        errors.loglog(result.steps, result.errors, "o-", **style)
    handles, labels = errors.get_legend_handles_labels()
    ordered = sorted(zip(labels, handles, strict=True))
    errors.legend([h for _, h in ordered], [label for label, _ in ordered], title="claimed")
    counts = sorted({n for result in results.values() for n in result.steps})
    errors.set_xticks(counts, [str(n) for n in counts])
    errors.minorticks_off()
    errors.set_xlabel("steps N")
    errors.set_ylabel("root mean square error")
    errors.set_title("Planar mixture, exact start values")
    errors.grid(alpha=0.3, which="both", lw=0.4)

    ranked = sorted(results.items(), key=lambda item: (item[1].expected, item[0]), reverse=True)
    for row, (_, result) in enumerate(ranked):
        orders.plot([result.expected, result.order], [row, row], color="0.6", lw=1)
        orders.plot(result.expected, row, "|", ms=9, color="black")
        orders.plot(result.order, row, "o", ms=5, color=colour[result.expected])
    orders.set_yticks(range(len(ranked)), [name for name, _ in ranked], fontsize=7)
    orders.set_ylim(-1, len(ranked))
    orders.set_xlabel("order: measured (dot), claimed (bar)")
    orders.set_title("Least-squares slope over all N")
    orders.grid(axis="x", alpha=0.3)
    return figure


def benchmark_figure(
    ours: Mapping[str, Mapping[int, float]],
    peers: Mapping[str, Mapping[int, float]],
    highlight: Sequence[str],
) -> Figure:
    """RMS error against evaluations on logarithmic axes.

    Args:
        ours, peers: solver -> NFE -> RMS.
        highlight: our solvers to draw in colour; the rest are thin grey lines.
    """
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.subplots()
    palette = matplotlib.colormaps["tab10"]
    for name, row in ours.items():
        if name not in highlight:
            axes.loglog(list(row), list(row.values()), color="0.8", lw=0.8, zorder=1)
    for i, row in enumerate(peers.values()):
        label = "diffusers" if i == 0 else None
        axes.loglog(list(row), list(row.values()), "--", color="0.35", lw=1, zorder=2, label=label)
    for i, name in enumerate(highlight):
        row = ours[name]
        axes.loglog(list(row), list(row.values()), "o-", color=palette(i % 10), lw=2, zorder=3, label=name)
    values = [v for row in (*ours.values(), *peers.values()) for v in row.values()]
    nfes = sorted({k for row in ours.values() for k in row})
    axes.set_xticks(nfes, [str(k) for k in nfes])
    axes.minorticks_off()
    axes.set_ylim(min(values) / 1.5, min(max(values), 3.0))
    axes.set_xlabel("denoiser evaluations")
    axes.set_ylabel("RMS error of the sample")
    axes.set_title("Digits mixture, noise level 80 to 0.002, best grid of each solver")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    return figure
