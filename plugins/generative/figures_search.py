"""Figures of the schedule search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

if TYPE_CHECKING:
    from plugins.generative.studies.schedule_search import Budget

PREDICTION_COLOURS = {"noise": "tab:red", "data": "tab:blue", "v3": "tab:green"}


def schedule_search_figure(budgets: Mapping[int, Budget]) -> Figure:
    """Progress on held-in noise, errors on held-out noise, and the schedules that were found."""
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    progress, errors, schedules = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    palette = matplotlib.colormaps["viridis"]
    colours = {nfe: palette(0.85 * i / max(1, len(budgets) - 1)) for i, nfe in enumerate(budgets)}

    for nfe, budget in budgets.items():
        history = budget.result.history
        progress.plot(range(1, len(history) + 1), history, color=colours[nfe], label=f"NFE {nfe}")
        progress.axhline(budget.fixed_held_in, color=colours[nfe], ls=":", lw=1)
    progress.axvline(next(iter(budgets.values())).result.initial, color="0.6", lw=1)
    progress.set_yscale("log")
    progress.set_xlabel("schedules evaluated (fixed ones left of the grey line)")
    progress.set_ylabel("best RMS error so far")
    progress.set_title("Held-in noise; dotted: best fixed")
    progress.legend()

    positions = np.arange(len(budgets))
    for offset, name in ((-0.18, "fixed"), (0.18, "searched")):
        samples = [getattr(budget, name).numpy() for budget in budgets.values()]
        values = [float(np.sqrt((sample**2).mean())) for sample in samples]
        label = "best fixed schedule" if name == "fixed" else "searched schedule"
        colour = "0.65" if name == "fixed" else "tab:green"
        bars = errors.bar(positions + offset, values, 0.34, color=colour, label=label)
        errors.bar_label(bars, [f"{value:.3f}" for value in values], padding=2, fontsize=8)
        medians = [float(np.median(sample)) for sample in samples]
        errors.plot(
            positions + offset, medians, "_", ms=22, mew=2, color="black", label="median sample" if offset > 0 else None
        )
    errors.set_xticks(positions, [f"NFE {nfe}" for nfe in budgets])
    errors.set_ylabel("RMS error")
    errors.set_title("Held-out noise")
    errors.margins(y=0.12)
    errors.legend()

    for row, (_, budget) in enumerate(budgets.items()):
        schedule = budget.result.schedule
        schedules.plot(schedule.sigmas, [row] * len(schedule.sigmas), "-", color="0.8", zorder=1)
        schedules.plot(schedule.sigmas[0], row, "|", color="black", ms=12)
        for sigma, genes in zip(schedule.sigmas[1:], schedule.steps, strict=True):
            filled = genes.corrector != "none"
            colour = PREDICTION_COLOURS[genes.prediction]
            face = colour if filled else "white"
            schedules.plot(sigma, row, "o", ms=12, color=colour, mfc=face, mew=1.5, zorder=2)
            ink = "white" if filled else colour
            schedules.text(sigma, row, str(genes.order), ha="center", va="center_baseline", fontsize=7, color=ink)
    schedules.set_xscale("log")
    schedules.invert_xaxis()
    schedules.set_yticks(range(len(budgets)), [f"NFE {nfe}" for nfe in budgets])
    schedules.set_ylim(-0.6, len(budgets) - 0.1)
    schedules.set_xlabel("noise level the step arrives at (number: its order)")
    schedules.set_title("Schedules found")
    marks = [Line2D([], [], marker="o", ls="", color=colour, label=f"{name} prediction")
             for name, colour in PREDICTION_COLOURS.items()]
    marks.append(Line2D([], [], marker="o", ls="", color="0.4", mfc="white", label="hollow: not corrected"))
    schedules.legend(handles=marks, ncols=4, fontsize=7, loc="upper center", columnspacing=0.8, handletextpad=0.2)
    return figure
