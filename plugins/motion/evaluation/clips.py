"""Labelled motions as plain arrays: what the judges compare with."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from plugins.motion.networks import length_mask


@dataclasses.dataclass(frozen=True)
class LabelledClips:
    """N motions with their labels and texts.

    Args:
        motion: (N, T, D) normalised features, zero on padding.
        lengths: (N,) real frames.
        content, style: (N,) label numbers.
        text_emb: (N, E) text embeddings.
        text: a sentence for each clip.

    Raises:
        ValueError: the parts do not belong together.
    """

    motion: Tensor
    lengths: Tensor
    content: Tensor
    style: Tensor
    text_emb: Tensor
    text: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.motion)
        for name in ("lengths", "content", "style", "text_emb", "text"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} must have a row for each of the {n} motions, not {len(getattr(self, name))}")
        if n and not 1 <= int(self.lengths.min()) <= int(self.lengths.max()) <= self.motion.shape[1]:
            raise ValueError(f"lengths must lie between 1 and the {self.motion.shape[1]} frames of motion")

    @classmethod
    def of(cls, dataset: Any) -> LabelledClips:
        """All clips of a split of a motion data module, such as ``data.test_set``, with their first sentences."""
        return cls(
            dataset.motion.float(),
            dataset.lengths.long(),
            dataset.content.long(),
            dataset.style.long(),
            dataset.text_emb.float(),
            tuple(text if isinstance(text, str) else text[0] for text in dataset.text),
        )

    def __len__(self) -> int:
        return len(self.motion)

    @property
    def mask(self) -> Tensor:
        """(N, T), True on real frames."""
        return length_mask(self.lengths, self.motion.shape[1])

    def __getitem__(self, index: Tensor) -> LabelledClips:
        picked = {k: getattr(self, k)[index] for k in ("motion", "lengths", "content", "style", "text_emb")}
        return LabelledClips(**picked, text=tuple(self.text[i] for i in index.tolist()))


def cell_numbers(content: Tensor, style: Tensor) -> Tensor:
    """(N,) one number for each pair of labels."""
    return content * (1 << 20) + style
