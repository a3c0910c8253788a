"""Sentences to motion, with a trained generator."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from framework.errors import UserError
from framework.study import Study
from plugins.motion.metrics import acceleration_rms
from plugins.motion.studies.trained import load_trained, seeded, write_motions


class GenerateMotion(Study):
    """Writes ``generated.html``, and a BVH and a GIF file for every motion.

    Args:
        prompt: one sentence, or several.
        run: folder of a finished run that trained a generator; the newest below ``runs`` when omitted.
        runs: where runs are.
        sampler: a row of that run's table, such as ``mdm50``; its first when omitted.
        seconds: length of the motions; the longest that the generator makes when omitted.
        samples: motions for each sentence.
        guidance: in place of the sampler's own.
        seed: of the noise.

    Metrics: ``seconds_per_clip`` (sampling alone) and ``acceleration_rms``.
    """

    def __init__(
        self,
        prompt: str | Sequence[str],
        run: str | None = None,
        runs: str = "runs",
        sampler: str | None = None,
        seconds: float | None = None,
        samples: int = 1,
        guidance: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not self.prompts or not all(text.strip() for text in self.prompts):
            raise ValueError("prompt must be a sentence, or a list of sentences")
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples}")
        if seconds is not None and seconds <= 0:
            raise ValueError(f"seconds must be positive, not {seconds}")
        self.run, self.runs, self.sampler = run, runs, sampler
        self.seconds, self.samples, self.guidance, self.seed = seconds, samples, guidance, seed

    def study(self) -> dict[str, float]:
        trained = load_trained(self.run, self.runs)
        data, row = trained.data, trained.row(self.sampler)
        frames = data.frames if self.seconds is None else round(self.seconds * data.fps)
        if not 1 <= frames <= data.frames:
            raise UserError(f"seconds={self.seconds}: this generator makes up to {data.frames / data.fps:.2f} seconds")
        texts = [text for text in self.prompts for _ in range(self.samples)]
        lengths = torch.full((len(texts),), frames)
        options = {} if self.guidance is None else {"guidance": self.guidance}
        began = time.perf_counter()
        motion = trained.model.sampler(row)(data.encode_text(texts), lengths, seeded(self.seed), **options)
        took = time.perf_counter() - began
        positions = trained.positions(motion)[:, :frames]
        clips = [trained.clip(p, text, row) for p, text in zip(positions, texts, strict=True)]
        write_motions(self, clips, data.skeleton, "generated", "Generated motions", f"{row} of {trained.path.name}")
        mask = torch.ones(positions.shape[:2], dtype=torch.bool)
        return {
            "seconds_per_clip": took / len(texts),
            "acceleration_rms": float(acceleration_rms(positions, mask, data.fps).mean()),
        }
