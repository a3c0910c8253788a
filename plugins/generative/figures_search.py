"""Figure of the schedule search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

if TYPE_CHECKING:
    from plugins.generative.studies.schedule_search import Judged

PREDICTION_COLOURS = {"noise": "tab:red", "data": "tab:blue", "v3": "tab:green"}


def schedule_search_figure(results: Mapping[str, Mapping[int, Judged]]) -> Figure:
    """Progress of the searches, errors on held-out noise, and the schedules that were found.

    Args:
        results: space -> evaluations -> outcome.
    """
    figure = Figure(figsize=(16, 4.8), layout="constrained")
    progress, errors, schedules = figure.subplots(1, 3, width_ratios=(1, 1.1, 1.3))
    palette = matplotlib.colormaps["tab10"]
    budgets = list(next(iter(results.values())))
    colours = {nfe: palette(i % 10) for i, nfe in enumerate(budgets)}

    for style, (space, found) in zip(("-", "--", ":", "-."), results.items(), strict=False):
        for nfe, judged in found.items():
            history = judged.found.search.history
            progress.plot(range(1, len(history) + 1), history, style, color=colours[nfe], label=f"{space}, NFE {nfe}")
    progress.axvline(next(iter(results.values()))[budgets[0]].found.search.initial, color="0.6", lw=1)
    progress.set_yscale("log")
    progress.set_xlabel("schedules evaluated (fixed ones left of the grey line)")
    progress.set_ylabel("best RMS error so far")
    progress.set_title("Search, held-in noise")
    progress.legend(fontsize=8)

    width = 0.8 / (2 * len(results))
    for index, (space, found) in enumerate(results.items()):
        for side, name in enumerate(("fixed", "searched")):
            samples = [getattr(judged, name).numpy() for judged in found.values()]
            values = [float(np.sqrt((sample**2).mean())) for sample in samples]
            positions = np.arange(len(budgets)) + (2 * index + side - len(results) + 0.5) * width
            label = f"{space}: " + ("best fixed" if name == "fixed" else "searched")
            colour = matplotlib.colormaps["tab20"](2 * index + (1 - side))
            bars = errors.bar(positions, values, 0.92 * width, color=colour, label=label)
            errors.bar_label(bars, [f"{value:.3f}" for value in values], padding=2, fontsize=7)
            errors.plot(positions, [float(np.median(sample)) for sample in samples], "_", ms=12, mew=2, color="black")
    errors.set_xticks(range(len(budgets)), [f"NFE {nfe}" for nfe in budgets])
    errors.set_ylabel("RMS error (black: median sample)")
    errors.set_title("Held-out noise")
    errors.margins(y=0.12)
    errors.legend(fontsize=8)

    rows = [(f"{space}, NFE {nfe}", judged) for space, found in results.items() for nfe, judged in found.items()]
    for row, (_, judged) in enumerate(rows):
        schedule = judged.found.schedule
        schedules.plot(schedule.sigmas, [row] * len(schedule.sigmas), "-", color="0.8", zorder=1)
        schedules.plot(schedule.sigmas[0], row, "|", color="black", ms=12)
        for sigma, genes in zip(schedule.sigmas[1:], schedule.steps, strict=True):
            filled = genes.corrector != "none"
            colour = PREDICTION_COLOURS[genes.prediction]
            schedules.plot(sigma, row, "o", ms=11, color=colour, mfc=colour if filled else "white", mew=1.5, zorder=2)
            ink = "white" if filled else colour
            schedules.text(sigma, row, str(genes.order), ha="center", va="center_baseline", fontsize=7, color=ink)
    schedules.set_xscale("log")
    schedules.invert_xaxis()
    schedules.set_yticks(range(len(rows)), [label for label, _ in rows])
    schedules.set_ylim(-0.6, len(rows) + 0.1)
    schedules.set_xlabel("noise level the step arrives at (number: its order)")
    schedules.set_title("Schedules found")
    marks = [
        Line2D([], [], marker="o", ls="", color=colour, label=f"{name} prediction")
        for name, colour in PREDICTION_COLOURS.items()
    ]
    marks.append(Line2D([], [], marker="o", ls="", color="0.4", mfc="white", label="hollow: not corrected"))
    schedules.legend(handles=marks, ncols=4, fontsize=7, loc="upper center", columnspacing=0.8, handletextpad=0.2)
    return figure
