"""The data module behind all labelled motion: features, splits, statistics, sentences and their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from plugins.motion.data.cache import cached
from plugins.motion.data.clips import Clips, MotionSet, collate, join, tail_split
from plugins.motion.representation import Essential, HumanML3D, Normalizer
from plugins.motion.skeletons import Skeleton
from plugins.motion.text import Clip, Hashing, LabelEmbedding, MiniLM, Prompts, Standardized, TextEncoder, prompts_for
from plugins.motion.text.encoders import statistics

REPRESENTATIONS = {"essential": Essential, "humanml3d": HumanML3D}
ENCODERS = ("minilm", "clip", "labels", "hashing")


class MotionData(pl.LightningDataModule):
    """Labelled clips as batches of normalised features with sentences; subclasses write ``load``.

    Training reads random crops and random sentences; testing the middle of every clip and the held-out sentence.
    After ``setup``: ``train_set``, ``test_set`` and ``normalizer``; from the start: ``skeleton``, ``representation``,
    ``fps``, ``contents``, ``styles``, ``prompts``, ``text_dim``, ``encode_text``.

    Args:
        skeleton, fps, contents, styles: of the clips.
        representation: ``essential`` (4 + 3(J − 1) numbers a frame) or ``humanml3d`` (12J − 1).
        text: ``minilm``, ``clip``, ``labels`` or ``hashing``.
        frames: clips are cropped and padded to so many.
        unit_length: lengths are cut to multiples of it.
        batch_size: clips in a batch.
        test_fraction: share of the clips of every (content, style) cell kept for testing, the last by name.
        mirror: training also sees every clip in a mirror, with left and right exchanged in its label.
        workers: loader processes.
        fast: a few clips of every cell, and the hashing encoder in place of a language model.

    Raises:
        ValueError: an unknown representation or encoder, or a number out of range.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        fps: float,
        contents: Sequence[str],
        styles: Sequence[str],
        representation: str = "essential",
        text: str = "minilm",
        frames: int = 64,
        unit_length: int = 4,
        batch_size: int = 64,
        test_fraction: float = 0.2,
        mirror: bool = False,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if representation not in REPRESENTATIONS:
            raise ValueError(f"representation {representation!r} must be one of {', '.join(REPRESENTATIONS)}")
        if text not in ENCODERS:
            raise ValueError(f"text {text!r} must be one of {', '.join(ENCODERS)}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if unit_length < 1 or frames < unit_length or frames % unit_length:
            raise ValueError(f"frames={frames} must be a positive multiple of unit_length={unit_length}")
        self.skeleton, self.fps = skeleton, fps
        self.contents, self.styles = tuple(contents), tuple(styles)
        self.prompts: Prompts = prompts_for(self.contents, self.styles)
        # the published quirks serve published data; the heading is smoothed over one second, as there
        self.representation: Essential = REPRESENTATIONS[representation](skeleton, compatible=False, smooth=fps)
        self.text, self.frames, self.unit_length = text, frames, unit_length
        self.batch_size, self.test_fraction, self.mirror = batch_size, test_fraction, mirror
        self.workers, self.fast = workers, fast
        self._encoder: TextEncoder | None = None
        self._known: dict[str, Tensor] = {}
        self.train_set: MotionSet
        self.test_set: MotionSet
        self.normalizer: Normalizer

    def load(self) -> tuple[dict[str, Any], Clips]:
        """What tells the clips from others (for the cache), and the joint positions (T, J, 3) of all clips, y up."""
        raise NotImplementedError(f"{type(self).__name__} must define load()")

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "train_set"):
            return
        key, positions = self.load()
        features = self._features(key, positions)
        train, test = tail_split(features, self.test_fraction)
        kept, held_out = features.subset(train), features.subset(test)
        if self.mirror:
            kept = self._with_mirrored(kept)
        self.normalizer = Normalizer.fit(kept.frames, self.representation.groups)
        self.train_set = self._set(kept, testing=False)
        self.test_set = self._set(held_out, testing=True)

    def _features(self, key: dict[str, Any], positions: Clips) -> Clips:
        def make() -> dict[str, Any]:
            rows = [
                self.representation.encode(positions[i].double()).float()
                for i in tqdm(range(len(positions)), desc="motion features", leave=False)
                if len(positions[i]) > self.unit_length
            ]
            long = [i for i in range(len(positions)) if len(positions[i]) > self.unit_length]
            names = [positions.names[i] for i in long]
            return join(rows, names, positions.content[long], positions.style[long]).as_dict()

        representation = self.representation
        settings = {
            **key,
            "representation": type(representation).__name__,
            "compatible": representation.compatible,
            "smooth": representation.smooth,
            "unit_length": self.unit_length,
        }
        return Clips(**cached("features", settings, make))

    def _with_mirrored(self, clips: Clips) -> Clips:
        mirrored = [self.contents.index(m) if (m := _exchanged(c)) in self.contents else -1 for c in self.contents]
        which = [i for i in range(len(clips)) if mirrored[int(clips.content[i])] >= 0]
        content = torch.tensor([mirrored[int(clips.content[i])] for i in which], dtype=torch.long)
        return join(
            [clips[i] for i in range(len(clips))] + [self.representation.mirror(clips[i]) for i in which],
            clips.names + [f"{clips.names[i]}-mirrored" for i in which],
            torch.cat([clips.content, content]),
            torch.cat([clips.style, clips.style[which]]),
        )

    def _set(self, clips: Clips, testing: bool) -> MotionSet:
        normalised = Clips(
            self.normalizer.normalize(clips.frames), clips.starts, clips.names, clips.content, clips.style
        )
        sentences: list[str] = []
        known: dict[tuple[int, int], list[int]] = {}
        cells = list(zip(clips.content.tolist(), clips.style.tolist(), strict=True))
        for cell in sorted(set(cells)):
            names = self.contents[cell[0]], self.styles[cell[1]]
            own = [self.prompts.held_out(*names)] if testing else self.prompts.train(*names)
            known[cell] = list(range(len(sentences), len(sentences) + len(own)))
            sentences += own
        texts = [known[cell] for cell in cells]
        return MotionSet(
            normalised,
            sentences,
            self.encode_text(sentences),
            texts,
            self.frames,
            self.unit_length,
            random=not testing,
        )

    # text

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder, standardised over all training prompts (label embeddings are not)."""
        if self._encoder is None:
            self._encoder = self._make_encoder()
        return self._encoder

    @property
    def text_dim(self) -> int:
        """Width of ``encode_text``."""
        return len(self.contents) + len(self.styles) if self.text == "labels" else self._raw_encoder().dim

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Vectors (B, ``text_dim``) of any sentences; those of the labels from the cache. Needs no motion data.

        Raises:
            ValueError: a free sentence, with the label encoder.
        """
        encoder = self.encoder
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, encoder.encode(new), strict=True))
        return torch.stack([self._known[t] for t in texts]) if len(texts) else torch.zeros(0, encoder.dim)

    def _raw_encoder(self) -> TextEncoder:
        if self.text == "clip":
            return Hashing(512) if self.fast else Clip()
        if self.text == "minilm" and not self.fast:
            return MiniLM()
        return Hashing(384)

    def _make_encoder(self) -> TextEncoder:
        cells = [(c, s) for c in range(len(self.contents)) for s in range(len(self.styles))]
        names = [(self.contents[c], self.styles[s]) for c, s in cells]
        if self.text == "labels":
            labels = {}
            for cell, name in zip(cells, names, strict=True):
                for sentence in [*self.prompts.train(*name), self.prompts.held_out(*name)]:
                    labels[sentence] = cell
            return LabelEmbedding(labels, (len(self.contents), len(self.styles)))
        raw = self._raw_encoder()
        train = list(dict.fromkeys(sentence for name in names for sentence in self.prompts.train(*name)))
        held_out = [self.prompts.held_out(*name) for name in names]
        sentences = list(dict.fromkeys([*train, *held_out]))
        vectors = cached(
            "text", {"encoder": raw.name, "sentences": sentences}, lambda: {"vectors": raw.encode(sentences)}
        )["vectors"]
        mean, std = statistics(vectors[: len(train)])
        self._known.update(zip(sentences, (vectors - mean) / std, strict=True))
        return Standardized(raw, mean=mean, std=std)

    # loaders

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            self.train_set,
            self.batch_size,
            shuffle=True,
            drop_last=len(self.train_set) >= self.batch_size,
            num_workers=self.workers,
            collate_fn=collate,
        )

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test_set, self.batch_size, num_workers=self.workers, collate_fn=collate)


def _exchanged(label: str) -> str:
    return label.replace("left", "\0").replace("right", "left").replace("\0", "right")
