"""Clips of different lengths with labels and sentences: stored end to end, cropped and padded when read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset


@dataclasses.dataclass
class Clips:
    """N clips end to end.

    Args:
        frames: (sum of lengths, …) joint positions or features.
        starts: (N + 1,) where each clip starts; the last entry is the end of the last.
        names: N file names without suffix.
        content, style: (N,) label numbers.
    """

    frames: Tensor
    starts: Tensor
    names: list[str]
    content: Tensor
    style: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """The frames (T, …) of one clip."""
        return self.frames[self.starts[index] : self.starts[index + 1]]

    @property
    def lengths(self) -> Tensor:
        return torch.diff(self.starts)

    def subset(self, which: Sequence[int]) -> Clips:
        """The clips of the given numbers, in their order."""
        return join([self[i] for i in which], [self.names[i] for i in which], self.content[which], self.style[which])

    def as_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def join(clips: Sequence[Tensor], names: list[str], content: Tensor, style: Tensor) -> Clips:
    """Clips of a list of (T, …) tensors.

    Raises:
        ValueError: there are none.
    """
    if not clips:
        raise ValueError("there are no clips")
    starts = torch.tensor([0, *(len(clip) for clip in clips)]).cumsum(0)
    return Clips(torch.cat(list(clips)), starts, names, content.long(), style.long())


def tail_split(clips: Clips, fraction: float) -> tuple[list[int], list[int]]:
    """Numbers of training and test clips: of every (content, style) cell the last by name, at least one, are for tests.

    Takes of one recording stand next to each other by number, so a split of single takes would test on near copies.
    A cell with one clip is for training alone.

    Raises:
        ValueError: the fraction is not in (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1, not {fraction}")
    cells: dict[tuple[int, int], list[int]] = {}
    for i in sorted(range(len(clips)), key=lambda i: clips.names[i]):
        cells.setdefault((int(clips.content[i]), int(clips.style[i])), []).append(i)
    train, test = [], []
    for members in cells.values():
        count = max(1, round(fraction * len(members))) if len(members) > 1 else 0
        train += members[: len(members) - count]
        test += members[len(members) - count :]
    return sorted(train), sorted(test)


class MotionSet(Dataset):
    """Normalised features of clips, cropped to at most ``frames`` and padded with zeros, with a sentence each.

    Reading a list of clips (``__getitems__``, which a DataLoader uses) gives a batch at once: ``motion`` (B, T, D),
    ``lengths`` (B,), ``mask`` (B, T), ``text`` (list of B), ``text_emb`` (B, E), ``content`` (B,), ``style`` (B,).

    Args:
        clips: features.
        sentences: all sentences, each once.
        embeddings: (number of sentences, E).
        texts: for every clip the numbers of its sentences.
        frames: T.
        unit_length: lengths are cut to multiples of it.
        random: draw where to crop, and which sentence, from torch's global generator; else the middle and the first.
        shorten: with this probability a random crop is one unit shorter than it could be (HumanML3D: 1/3).

    Raises:
        ValueError: a clip is shorter than one unit or has no sentence, or ``frames`` is no multiple of the unit.
    """

    def __init__(
        self,
        clips: Clips,
        sentences: Sequence[str],
        embeddings: Tensor,
        texts: Sequence[Sequence[int]],
        frames: int = 64,
        unit_length: int = 4,
        random: bool = False,
        shorten: float = 0.0,
    ) -> None:
        if frames < 1 or unit_length < 1 or frames % unit_length:
            raise ValueError(f"frames={frames} must be a positive multiple of unit_length={unit_length}")
        if not 0 <= shorten <= 1:
            raise ValueError(f"shorten is a probability, not {shorten}")
        if len(texts) != len(clips):
            raise ValueError(f"{len(clips)} clips do not match sentences for {len(texts)}")
        if len(clips) and int(clips.lengths.min()) < unit_length:
            short = int(clips.lengths.argmin())
            raise ValueError(
                f"clip {clips.names[short]!r} has {int(clips.lengths[short])} frames, "
                f"less than unit_length={unit_length}"
            )
        empty = [clips.names[i] for i, own in enumerate(texts) if not len(own)]
        if empty:
            raise ValueError(f"clip {empty[0]!r} has no sentence")
        self.clips, self.sentences, self.embeddings = clips, list(sentences), embeddings
        self.frames, self.unit_length, self.random, self.shorten = frames, unit_length, random, shorten
        self._text_starts = torch.tensor([0, *(len(own) for own in texts)]).cumsum(0)
        self._text_ids = torch.tensor([i for own in texts for i in own], dtype=torch.long)
        self._whole = clips.lengths // unit_length * unit_length

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        return self._read(torch.as_tensor(indices, dtype=torch.long), self.random)

    def _read(self, which: Tensor, random: bool) -> dict[str, Any]:
        lengths = self._whole[which].clamp(max=self.frames)
        if random and self.shorten:
            cut = self.unit_length * (torch.rand(len(which)) < self.shorten)
            lengths = torch.where(lengths > cut, lengths - cut, lengths)
        room = self.clips.lengths[which] - lengths
        skip = (torch.rand(len(which)) * (room + 1)).long() if random else room // 2
        steps = torch.arange(self.frames)
        mask = steps < lengths[:, None]
        at = (self.clips.starts[which] + skip)[:, None] + steps
        motion = self.clips.frames[torch.where(mask, at, torch.zeros_like(at))] * mask[..., None]
        count = torch.diff(self._text_starts)[which]
        pick = (torch.rand(len(which)) * count).long() if random else torch.zeros_like(count)
        text = self._text_ids[self._text_starts[which] + pick]
        return {
            "motion": motion,
            "lengths": lengths,
            "mask": mask,
            "text": [self.sentences[i] for i in text.tolist()],
            "text_emb": self.embeddings[text],
            "content": self.clips.content[which],
            "style": self.clips.style[which],
        }

    @cached_property
    def _all(self) -> dict[str, Any]:
        return self._read(torch.arange(len(self)), random=False)

    @property
    def motion(self) -> Tensor:
        """All clips (N, T, D), the middle of those that are longer."""
        return self._all["motion"]

    @property
    def lengths(self) -> Tensor:
        """(N,) frames of each clip in ``motion``."""
        return self._all["lengths"]

    @property
    def mask(self) -> Tensor:
        """(N, T), true where ``motion`` is a real frame."""
        return self._all["mask"]

    @property
    def content(self) -> Tensor:
        """(N,) label numbers."""
        return self.clips.content

    @property
    def style(self) -> Tensor:
        """(N,) label numbers."""
        return self.clips.style

    @property
    def text(self) -> list[list[str]]:
        """All sentences of every clip."""
        bounds = self._text_starts.tolist()
        return [
            [self.sentences[i] for i in self._text_ids[a:b].tolist()] for a, b in zip(bounds, bounds[1:], strict=False)
        ]

    @property
    def text_emb(self) -> Tensor:
        """(N, E) of the first sentence of every clip."""
        return self._all["text_emb"]


def collate(batch: Any) -> dict[str, Any]:
    """A batch that is one already, or single samples put together."""
    if isinstance(batch, dict):
        return batch
    return {
        name: torch.stack([sample[name] for sample in batch])
        if isinstance(batch[0][name], Tensor)
        else [sample[name] for sample in batch]
        for name in batch[0]
    }
