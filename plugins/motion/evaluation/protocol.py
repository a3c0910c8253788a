"""One protocol for all generators: same prompts, same lengths, same frozen judge, and the rows that keep it honest.

Generators are asked with held-out sentences for the labels and lengths of the test clips, once for each seed. The row
``real`` is the floor of the Fréchet distance: training clips with the same labels against the test clips; its other
metrics are those of the test clips. The degenerate rows are treated alike.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from plugins.motion.evaluation import rows as degenerate
from plugins.motion.evaluation.clips import LabelledClips, cell_numbers
from plugins.motion.evaluation.network import MotionEvaluator
from plugins.motion.evaluation.table import EvaluationTable, Sample
from plugins.motion.evaluation.training import EvaluatorSettings, cached_evaluator, fingerprint, held_out_scores
from plugins.motion.metrics import (
    PhysicalChecks,
    acceleration_rms,
    accuracy,
    bone_drift,
    confidence_interval,
    distinct_pools,
    diversity,
    foot_skating,
    frechet_distance,
    matching_distance,
    multimodality,
    r_precision,
)
from plugins.motion.networks import length_mask

Sampler = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""``sampler(text_emb (B, E), lengths (B,), generator) -> motion (B, T, D)``, normalised, zero on padding."""

POOL = 32
POOLS = 50


class Judge:
    """Everything that is the same for all rows of a table.

    Args:
        data: a set-up motion data module: train_set, test_set, representation, normalizer, skeleton, fps, contents.
        evaluator: trained on ``data.train_set``; the cached one when omitted.
        settings: of the evaluator, if it is to be trained here.
        progress: show progress bars.
    """

    def __init__(
        self,
        data: Any,
        evaluator: MotionEvaluator | None = None,
        settings: EvaluatorSettings | None = None,
        progress: bool = True,
    ) -> None:
        self.data, self.skeleton, self.fps = data, data.skeleton, data.fps
        self.skeleton.require("face_joints", "feet", "hands")
        self.train, self.test = LabelledClips.of(data.train_set), LabelledClips.of(data.test_set)
        if len(self.test) < 2:
            raise ValueError(f"an evaluation needs at least two test clips; the data has {len(self.test)}")
        essential = 4 + 3 * (len(self.skeleton) - 1)
        self.evaluator = evaluator or cached_evaluator(
            data.train_set, len(data.contents), len(data.styles), essential, settings, progress=progress
        )
        self.checks = PhysicalChecks(
            tuple(data.contents), self.skeleton.face_joints, self.skeleton.hands, data.fps
        ).calibrated(self.positions(self.train.motion), self.train.mask, self.train.content)
        self.reference = self.embed(self.test.motion, self.test.lengths)
        self.texts = self.evaluator.embed_text(self.test.text_emb)
        self.cells = cell_numbers(self.test.content, self.test.style)
        self.order = stratified_order(self.test.content, self.test.style)

    @torch.no_grad()
    def embed(self, motion: Tensor, lengths: Tensor) -> Tensor:
        return self.evaluator.embed(motion, length_mask(lengths, motion.shape[1]))

    def positions(self, motion: Tensor) -> Tensor:
        """Joint positions (N, T, J, 3) in metres of normalised features."""
        return self.data.representation.decode(self.data.normalizer.denormalize(motion.double()))

    @torch.no_grad()
    def score(
        self,
        motion: Tensor,
        lengths: Tensor,
        which: Tensor,
        generator: torch.Generator,
        compared: Tensor | None = None,
    ) -> dict[str, float]:
        """All metrics of motions (N, T, D) made for the test clips ``which`` (N,).

        Args:
            compared: (M, E) embeddings for the Fréchet distance, where they are not those of ``motion``.
        """
        mask = length_mask(lengths, motion.shape[1])
        content, cells = self.test.content[which], self.cells[which]
        out = self.evaluator(motion, mask)
        positions = self.positions(motion)
        passed, checked = self.checks(positions, mask, content)
        sided = self.checks.sides(content)
        text = self.texts[which]
        pools = distinct_pools(cells, min(POOL, len(cells.unique())), POOLS, generator)
        toes = (self.skeleton.feet[1], self.skeleton.feet[3])
        found = {
            "frechet_distance": frechet_distance(out.embedding if compared is None else compared, self.reference),
            "accuracy_content": accuracy(out.content, content),
            "accuracy_style": accuracy(out.style, self.test.style[which]),
            **{f"r_precision_{k}": v for k, v in r_precision(text, out.embedding, pools).items()},
            "matching": matching_distance(text, out.embedding),
            "diversity": diversity(out.embedding, 300, generator),
            "multimodality": multimodality(out.embedding, cells, 10, generator),
            "skating": float(foot_skating(positions, mask, toes, self.fps).mean()),
            "acceleration_rms": float(acceleration_rms(positions, mask, self.fps).mean()),
            "bone_drift": 100 * float(bone_drift(positions, mask, self.skeleton.parents).mean()),
        }
        if bool(checked.any()):
            found["physical"] = float(passed[checked].double().mean())
        if bool(sided.any()):
            found["left_right"] = float(passed[sided].double().mean())
        return found

    def check_shares(self, motion: Tensor, lengths: Tensor, which: Tensor) -> dict[str, float]:
        """Share of motions that pass, for every content label that claims something checkable."""
        content = self.test.content[which]
        passed, checked = self.checks(self.positions(motion), length_mask(lengths, motion.shape[1]), content)
        return {
            label: float(passed[own].double().mean())
            for i, label in enumerate(self.data.contents)
            if bool((own := checked & (content == i)).any())
        }


def stratified_order(content: Tensor, style: Tensor) -> Tensor:
    """An order of samples whose every beginning covers contents and styles as evenly as can be: one of each pair of
    labels before the second of any, and among those the contents in turn, each with another style."""
    seen: dict[tuple[int, int], int] = {}
    keys = []
    for i, (c, s) in enumerate(zip(content.tolist(), style.tolist(), strict=True)):
        rank = seen[c, s] = seen.get((c, s), -1) + 1
        keys.append((rank, (s - c) % (int(style.max()) + 1), c, i))
    return torch.tensor([key[-1] for key in sorted(keys)], dtype=torch.long)


def evaluate(
    samplers: Mapping[str, Sampler],
    data: Any,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    evaluator: MotionEvaluator | None = None,
    clips: Mapping[str, int] | None = None,
    batch_size: int = 64,
    timed: int = 3,
    shown: int = 10,
    device: torch.device | str = "cpu",
    fast: bool = False,
    progress: bool = True,
) -> EvaluationTable:
    """Judge generators and the rows that every table holds.

    Args:
        samplers: row → generator of motion. One that gives values that are not finite gets a row of nan, with a
            warning.
        data: a motion data module; set up here if it is not yet.
        seeds: of sampling; means and intervals are over these.
        evaluator: of ``data.train_set``; trained, or taken from the cache, when omitted.
        clips: row → test clips asked for with each seed, the same for all seeds, evenly over the labels, where all
            would take too long. A Fréchet distance of few clips is too high; the table also says what training clips
            get when as few (``frechet_floor``).
        batch_size: clips generated at a time.
        timed: single clips generated for ``seconds_per_clip``, after one to warm up. ``seconds_per_clip_batched`` is
            that of the evaluation itself.
        shown: prompts whose motions are kept to look at.
        device: of the texts, lengths and generator that samplers are given.
        fast: a few clips and an untrained judge, to see that all runs.
        progress: show progress bars.

    Raises:
        ValueError: a sampler takes a name of the other rows or is limited to fewer than two clips, seeds are empty, or
            a motion has the wrong shape.
    """
    if not hasattr(data, "train_set"):
        data.setup("test")
    reserved = {"real", "frozen_frame", "mean_motion", "shuffled_labels", "jittered_real"}
    if taken := reserved & set(samplers):
        raise ValueError(f"samplers must not be called {', '.join(sorted(taken))}: the table has such rows already")
    limits = dict(clips or {})
    for row, limit in limits.items():
        if limit < 2:
            raise ValueError(f"clips[{row!r}] = {limit}: a row needs at least two clips")
    if not len(seeds):
        raise ValueError("evaluate needs at least one seed")
    if fast:
        limits = {row: min(8, limits.get(row, 8)) for row in samplers}
        seeds, timed = list(seeds)[:1], 1
    settings = EvaluatorSettings(steps=5, width=16, embedding=8) if fast else None
    judge = Judge(data, evaluator, settings, progress)
    scores: dict[str, list[dict[str, float]]] = {}
    counts: dict[str, int] = {}
    checks: dict[str, dict[str, float]] = {}
    samples: list[Sample] = []

    def record(
        row: str, motion: Tensor, lengths: Tensor, which: Tensor, generator: torch.Generator, **extra: Any
    ) -> None:
        first = row not in scores
        scores.setdefault(row, []).append(judge.score(motion, lengths, which, generator, **extra))
        counts[row] = len(which)
        if first:
            checks[row] = judge.check_shares(motion, lengths, which)
            samples.extend(_samples(judge, row, motion, lengths, which, shown))

    with tqdm(total=len(seeds) * len(samplers), desc="evaluation", disable=not progress, leave=False) as bar:
        for row, sampler in samplers.items():
            which = judge.order[: limits.get(row, len(judge.order))]
            pace = _seconds_per_clip(sampler, judge.test, which, timed, device)
            for seed in seeds:
                bar.set_postfix_str(f"{row}, seed {seed}")
                began = time.perf_counter()
                motion = _generate(row, sampler, judge.test[which], seed, batch_size, device)
                took = (time.perf_counter() - began) / len(which)
                lengths = judge.test.lengths[which]
                generator = torch.Generator().manual_seed(seed)
                if torch.isfinite(motion).all():
                    record(row, motion, lengths, which, generator)
                else:
                    warnings.warn(f"{row} generated values that are not finite: its row is empty", stacklevel=2)
                    scores.setdefault(row, []).append({"frechet_distance": float("nan")})
                    counts[row], checks[row] = len(which), {}
                if len(which) < len(judge.order):
                    few = degenerate.matched(judge.train, judge.test[which], generator)
                    floor = frechet_distance(judge.embed(few.motion, few.lengths), judge.reference)
                    scores[row][-1]["frechet_floor"] = floor
                scores[row][-1] |= {"seconds_per_clip": pace, "seconds_per_clip_batched": took}
                bar.update()

    everything = judge.order
    for seed in seeds:
        twins = degenerate.matched(judge.train, judge.test, torch.Generator().manual_seed(seed))
        for row, treatment in _treatments(judge).items():
            generator = torch.Generator().manual_seed(seed)
            motion, lengths = treatment(judge.test[everything], generator)
            compared = judge.embed(*treatment(twins, generator))
            record(row, motion, lengths, everything, generator, compared=compared)

    return EvaluationTable(
        rows={
            row: {m: confidence_interval([one[m] for one in found if m in one]) for m in found[0]}
            for row, found in scores.items()
        },
        clips=counts,
        checks=checks,
        samples=tuple(samples),
        sha256=fingerprint(judge.evaluator),
        notes={
            **{f"accuracy_{k}": v for k, v in held_out_scores(judge.evaluator, judge.test).items()},
            "train_clips": float(len(judge.train)),
            "test_clips": float(len(judge.test)),
            "pool": float(min(POOL, len(judge.cells.unique()))),
            "run_speed": judge.checks.run_speed,
        },
    )


def _treatments(judge: Judge) -> dict[str, degenerate.Treatment]:
    normalizer = judge.data.normalizer
    return {
        "real": degenerate.real,
        "frozen_frame": degenerate.frozen_frame(judge.data.representation.groups, normalizer.mean, normalizer.std),
        "mean_motion": degenerate.mean_motion(judge.train),
        "shuffled_labels": degenerate.shuffled_labels,
        "jittered_real": degenerate.jittered_real,
    }


@torch.no_grad()
def _generate(
    row: str, sampler: Sampler, clips: LabelledClips, seed: int, batch_size: int, device: torch.device | str
) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    frames, parts = clips.motion.shape[1], []
    for start in range(0, len(clips), batch_size):
        text = clips.text_emb[start : start + batch_size].to(device)
        lengths = clips.lengths[start : start + batch_size].to(device)
        motion = sampler(text, lengths, generator).float().cpu()
        if motion.ndim != 3 or len(motion) != len(text) or motion.shape[1] > frames:
            raise ValueError(
                f"{row} gave motion {tuple(motion.shape)} for {len(text)} texts; "
                f"expected ({len(text)}, up to {frames} frames, {clips.motion.shape[2]})"
            )
        motion = torch.nn.functional.pad(motion, (0, 0, 0, frames - motion.shape[1]))
        parts.append(motion * length_mask(lengths.cpu(), frames).unsqueeze(-1))
    return torch.cat(parts)


@torch.no_grad()
def _seconds_per_clip(
    sampler: Sampler, test: LabelledClips, which: Tensor, timed: int, device: torch.device | str
) -> float:
    """Mean seconds of generating one clip alone, from its text's embedding to features on the CPU."""
    generator = torch.Generator(device).manual_seed(0)
    spent = []
    for i in [which[0], *which[:timed]]:
        text, lengths = test.text_emb[i : i + 1].to(device), test.lengths[i : i + 1].to(device)
        began = time.perf_counter()
        sampler(text, lengths, generator).cpu()
        spent.append(time.perf_counter() - began)
    return sum(spent[1:]) / len(spent[1:])


def _samples(
    judge: Judge, row: str, motion: Tensor, lengths: Tensor, which: Tensor, shown: int
) -> list[Sample]:
    positions = judge.positions(motion[:shown])
    return [
        Sample(
            row,
            positions[k, : lengths[k]],
            judge.test.text[i],
            judge.data.contents[int(judge.test.content[i])],
            judge.data.styles[int(judge.test.style[i])],
        )
        for k, i in enumerate(which[:shown].tolist())
    ]
