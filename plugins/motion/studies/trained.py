"""A trained generator from a run folder, and what is written of its motions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framework import load_run
from framework.errors import DataMissing, UserError
from framework.figures import run_dir
from framework.runs import find
from plugins.motion.bvh import from_positions, write_bvh
from plugins.motion.figures import show_page
from plugins.motion.viewers import Clip, sides, write_gif

TRAINED_BY = ("motion/emdm", "motion/mardm", "motion/mdm", "motion/compare")


@dataclass(frozen=True)
class Trained:
    """A finished run's generators (``model``), its data module set up, and where both come from."""

    path: Path
    model: Any
    data: Any

    def row(self, sampler: str | None) -> str:
        """The sampler asked for, or the run's first.

        Raises:
            UserError: the run has no sampler of that name.
        """
        rows = list(self.model.rows)
        if sampler is not None and sampler not in rows:
            raise UserError(f"model.sampler={sampler}: the run {self.path} has {', '.join(rows)}")
        return sampler or rows[0]

    def positions(self, motion: Tensor) -> Tensor:
        """Joint positions (B, T, J, 3) in metres of normalised features (B, T, D)."""
        return self.data.representation.decode(self.data.normalizer.denormalize(motion.double()))

    def clip(self, positions: Tensor, prompt: str, title: str, generated: Tensor | None = None) -> Clip:
        left, right = sides(self.data.skeleton.names)
        return Clip(positions, self.data.skeleton.parents, prompt, title, prompt, self.data.fps, left, right, generated)


def load_trained(run: str | None, runs: str) -> Trained:
    """The run of that folder, or the newest finished run below ``runs`` that trained a generator of motion.

    Raises:
        DataMissing: no folder is given and none is found.
        UserError: the folder is that of another experiment.
    """
    if run is None:
        found = [r for r in find(Path(runs), "motion/", "finished") if r.record["experiment"] in TRAINED_BY]
        if not found:
            raise DataMissing(
                f"There is no finished run of {', '.join(TRAINED_BY)} below {runs}. Train one first "
                "(python -m framework +experiment=motion/emdm), or name its folder: run=<folder>"
            )
        loaded = found[-1]
    else:
        loaded = load_run(run)
    if loaded.record.get("experiment") not in TRAINED_BY:
        raise UserError(
            f"run={run} ran {loaded.record.get('experiment')}, which trains no generator of motion; "
            f"name the folder of {', '.join(TRAINED_BY)}"
        )
    data = loaded.data
    data.setup("test")
    return Trained(loaded.path, loaded.model, data)


def write_motions(module: Any, clips: Sequence[Clip], skeleton: Any, name: str, heading: str, note: str) -> None:
    """``<run>/<name>.html`` with all clips, and a BVH and a GIF file for each."""
    folder = run_dir(module)
    show_page(module, name, clips, heading, note)
    for number, clip in enumerate(clips):
        words = re.sub(r"[^a-z0-9]+", "-", f"{clip.prompt} {clip.title}".lower()).strip("-")[:60]
        stem = folder / f"{number:02d}-{words}"
        write_bvh(stem.with_suffix(".bvh"), from_positions(clip.positions, skeleton, clip.fps))
        write_gif(stem.with_suffix(".gif"), [clip])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
