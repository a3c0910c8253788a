"""What an evaluation of motion generators shows: tables, figures, and a page that plays the motions."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from framework.figures import run_dir, save_figure
from plugins.motion.evaluation import EvaluationTable
from plugins.motion.evaluation.table import Sample
from plugins.motion.viewers import Clip, sides, write_html, write_mp4

REFERENCE = ("real", "frozen_frame", "mean_motion", "shuffled_labels", "jittered_real")
GENERATOR_COLOUR, REFERENCE_COLOUR = "#1d6fd1", "#9aa5b1"
NAMES = {
    "emdm": "EMDM, 10 steps",
    "mardm": "MARDM",
    "mdm1000": "MDM, 1000 steps",
    "mdm50": "MDM, 50 steps",
    "mdm_ddim10": "MDM, 10-step DDIM",
    "real": "real",
    "frozen_frame": "frozen frame",
    "mean_motion": "mean motion",
    "shuffled_labels": "shuffled labels",
    "jittered_real": "jittered real",
}


def publish(module: Any, table: EvaluationTable, skeleton: Any, fps: float, video: bool = False) -> dict[str, float]:
    """Write a table, its figures and its page into the run folder and to wandb; return the metrics to log.

    Files: ``table.md``, ``table.json``, ``evaluator.json``, ``motions.html`` and ``figures/*.png``.

    Args:
        module: the LightningModule of the run.
        skeleton, fps: of the samples.
        video: also write ``motions.mp4``.
    """
    metrics = table.metrics()
    if not module.trainer.is_global_zero:
        return metrics
    folder = run_dir(module)
    (folder / "table.md").write_text(table.markdown(), encoding="utf-8")
    (folder / "table.json").write_text(json.dumps(table.as_dict(), indent=2) + "\n", encoding="utf-8")
    evaluator = {"sha256": table.sha256, **table.notes}
    (folder / "evaluator.json").write_text(json.dumps(evaluator, indent=2) + "\n", encoding="utf-8")
    save_figure(module, "scores", scores_figure(table))
    if figure := speed_figure(table):
        save_figure(module, "quality_against_time", figure)
    save_figure(module, "physical_checks", checks_figure(table))
    save_figure(module, "poses", poses_figure(table.samples, skeleton))
    clips = sample_clips(table.samples, skeleton, fps)
    note = f"Sentences no generator was trained on. Evaluator {table.sha256[:12]}. Drag to turn, scroll to zoom."
    show_page(module, "motions", clips, "Generated motions", note)
    if video:
        show_video(module, "motions", [clip for clip in clips if clip.group == clips[0].group])
    return metrics


def show_page(module: Any, name: str, clips: Sequence[Clip], heading: str, note: str = "") -> Path:
    """Write ``<run>/<name>.html``, and send it to wandb where that is the logger."""
    path = write_html(run_dir(module) / f"{name}.html", clips, heading, note)
    for logger in module.trainer.loggers:
        if type(logger).__name__ == "WandbLogger":
            import wandb

            logger.experiment.log({name: wandb.Html(str(path))})
    return path


def show_video(module: Any, name: str, clips: Sequence[Clip]) -> Path:
    """Write ``<run>/<name>.mp4``, and send it to wandb where that is the logger."""
    path = write_mp4(run_dir(module) / f"{name}.mp4", clips)
    for logger in module.trainer.loggers:
        if type(logger).__name__ == "WandbLogger":
            import wandb

            logger.experiment.log({f"{name}_video": wandb.Video(str(path), format="mp4")})
    return path


def sample_clips(samples: Sequence[Sample], skeleton: Any, fps: float) -> list[Clip]:
    """The samples as clips to play: a group for each text, in it every row."""
    left, right = sides(skeleton.names)
    texts = list(dict.fromkeys(sample.text for sample in samples))
    return [
        Clip(s.positions, skeleton.parents, s.text, NAMES.get(s.row, s.row), s.text, fps, left, right)
        for s in sorted(samples, key=lambda s: texts.index(s.text))
    ]


def scores_figure(table: EvaluationTable) -> Figure:
    """Fréchet distance, label and physical accuracy, and acceleration of every row, with 95 % intervals."""
    rows = list(table.rows)
    figure = Figure(figsize=(12.5, 0.42 * len(rows) + 1.6), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    at = np.arange(len(rows))
    colours = [REFERENCE_COLOUR if row in REFERENCE else GENERATOR_COLOUR for row in rows]

    def values(metric: str) -> tuple[list[float], list[float]]:
        cells = [table.rows[row].get(metric) for row in rows]
        return [c.mean if c else math.nan for c in cells], [c.half_width if c else 0.0 for c in cells]

    for panel, metric, label in (
        (panels[0], "frechet_distance", "Fréchet distance (lower is better)"),
        (panels[3], "acceleration_rms", "acceleration RMS in m/s² (near real is better)"),
    ):
        mean, width = values(metric)
        panel.barh(at, mean, xerr=width, color=colours, height=0.62, error_kw={"lw": 1})
        panel.set_xlabel(label, fontsize=9)
        real = table.rows.get("real", {}).get(metric)
        if real:
            panel.axvline(real.mean, color="#39434f", lw=1, ls=":")
    positive = [v for v in values("frechet_distance")[0] if v > 0]
    if positive and max(positive) > 20 * min(positive):
        panels[0].set_xscale("log")
    for panel, parts in (
        (panels[1], (("accuracy_content", "content", "o"), ("accuracy_style", "style", "s"))),
        (panels[2], (("physical", "all checks", "o"), ("left_right", "left or right", "s"))),
    ):
        for k, (metric, label, marker) in enumerate(parts):
            mean, width = values(metric)
            panel.errorbar(mean, at + 0.24 * (k - 0.5), xerr=width, fmt=marker, ms=5, lw=1, label=label)
        panel.set_xlim(-0.03, 1.03)
        panel.grid(axis="x", alpha=0.3)
        panel.legend(fontsize=8, loc="best")
    panels[1].set_xlabel("label accuracy", fontsize=9)
    panels[2].set_xlabel("physical checks passed", fontsize=9)
    panels[0].set_yticks(at, [NAMES.get(row, row) for row in rows])
    panels[0].invert_yaxis()
    figure.suptitle("Held-out sentences, judged by a frozen evaluator and by physics", fontsize=11)
    return figure


def speed_figure(table: EvaluationTable) -> Figure | None:
    """Fréchet distance against the seconds one clip takes; None without a generator."""
    rows = [r for r, cells in table.rows.items() if r not in REFERENCE and "frechet_distance" in cells]
    rows = [r for r in rows if math.isfinite(table.rows[r]["frechet_distance"].mean)]
    if not rows:
        return None
    figure = Figure(figsize=(8.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        cells = table.rows[row]
        distance, seconds = cells["frechet_distance"], cells["seconds_per_clip"].mean
        label = f"{NAMES.get(row, row)} ({table.clips[row]} clips)"
        axes.errorbar(seconds, distance.mean, yerr=distance.half_width, fmt="o", ms=7, lw=1, label=label)
    for row, style in (("real", ":"), ("frozen_frame", "--"), ("mean_motion", "-.")):
        if row in table.rows:
            level = table.rows[row]["frechet_distance"].mean
            axes.axhline(level, color=REFERENCE_COLOUR, ls=style, label=NAMES[row])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("seconds for one clip")
    axes.set_ylabel("Fréchet distance")
    axes.set_title("Quality against inference time", fontsize=11)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def checks_figure(table: EvaluationTable) -> Figure:
    """Share of motions that pass their label's physical check, for every row and label."""
    rows = list(table.rows)
    labels = list(dict.fromkeys(label for checks in table.checks.values() for label in checks))
    figure = Figure(figsize=(1.6 + 0.85 * max(len(labels), 2), 1.7 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    shares = np.array([[table.checks[row].get(label, math.nan) for label in labels] for row in rows], dtype=float)
    if labels:
        image = axes.imshow(shares, vmin=0, vmax=1, cmap="RdYlBu", aspect="auto")
        figure.colorbar(image, ax=axes, label="share that passes")
    for i, j in np.ndindex(*shares.shape):
        if math.isfinite(shares[i, j]):
            dark = abs(shares[i, j] - 0.5) > 0.38
            axes.text(j, i, f"{shares[i, j]:.2f}", ha="center", va="center", fontsize=8, color="w" if dark else "k")
    axes.set_xticks(range(len(labels)), [label.replace("-", "\n") for label in labels], fontsize=8)
    axes.set_yticks(range(len(rows)), [NAMES.get(row, row) for row in rows], fontsize=9)
    axes.set_title("Physical checks by label", fontsize=11)
    return figure


def poses_figure(samples: Sequence[Sample], skeleton: Any, prompts: int = 5, poses: int = 5) -> Figure:
    """A still of the samples: for every row and prompt a few poses in time, from the front, spread out to the right."""
    texts = list(dict.fromkeys(sample.text for sample in samples))[:prompts]
    rows = list(dict.fromkeys(sample.row for sample in samples))
    figure = Figure(figsize=(2.7 * max(len(texts), 1), 1.35 * max(len(rows), 1) + 0.5), layout="constrained")
    grid = figure.subplots(max(len(rows), 1), max(len(texts), 1), squeeze=False)
    left, right = (set(side) for side in sides(skeleton.names))
    found = {(s.row, s.text): s for s in samples}
    for i, row in enumerate(rows):
        for j, text in enumerate(texts):
            axes = grid[i][j]
            axes.set_aspect("equal")
            axes.set(xticks=[], yticks=[], ylim=(-0.1, 2.2), xlim=(-0.7, 1.1 * (poses - 1) + 0.7))
            for spine in axes.spines.values():
                spine.set_visible(False)
            if i == 0:
                axes.set_title(text, fontsize=8, wrap=True)
            if j == 0:
                name = NAMES.get(row, row).replace(", ", "\n")
                axes.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
            if (row, text) not in found:
                continue
            x = found[row, text].positions.double().numpy()
            x = x - [0, x[..., 1].min(), 0]
            for k, t in enumerate(np.linspace(0, len(x) - 1, poses).round().astype(int)):
                for child, parent in enumerate(skeleton.parents):
                    if parent < 0:
                        continue
                    colour = "#d9480f" if child in left else "#1d6fd1" if child in right else "#39434f"
                    ends = x[t, [parent, child]]
                    axes.plot(ends[:, 0] - x[t, 0, 0] + 1.1 * k, ends[:, 1], color=colour, lw=1.3)
    return figure
