"""Batches of sequences, padded where lengths vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Sequences(Dataset):
    """Sequences with labels.

    Args:
        x: (M, L, …) tensor, or a list of tensors of different lengths.
        y: (M,) labels.
        scale, shift: integer sequences are read as (x − shift)·scale in float32, unless scale is 1.
    """

    def __init__(self, x: Tensor | Sequence[Tensor], y: Tensor, scale: float = 1.0, shift: float = 0.0) -> None:
        if len(x) != len(y):
            raise ValueError(f"{len(x)} sequences do not match {len(y)} labels")
        self.x, self.y, self.scale, self.shift = x, y, scale, shift

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.x[index]
        if not x.dtype.is_floating_point and self.scale != 1.0:
            x = (x.float() - self.shift) * self.scale
        return x, self.y[index]


def collate(items: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Stack sequences of one length; pad others with zeros and add their ``lengths``. Pairs (2, …) of sequences are
    lists of two tensors."""
    x, y = [item[0] for item in items], torch.stack([item[1] for item in items])
    if isinstance(x[0], (tuple, list)):
        flat = [sequence for pair in x for sequence in pair]
        padded, lengths = _pad(flat)
        return {"x": padded.unflatten(0, (-1, 2)), "y": y, "lengths": lengths.view(-1, 2)}
    if len({len(sequence) for sequence in x}) == 1:
        return {"x": torch.stack(x), "y": y}
    padded, lengths = _pad(x)
    return {"x": padded, "y": y, "lengths": lengths}


def _pad(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(s) for s in sequences])
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True), lengths


class SequenceData(pl.LightningDataModule):
    """Training, validation and test sets behind ordinary loaders; subclasses fill ``sets`` in ``setup``.

    Args:
        batch_size: sequences in a batch.
        workers: loader processes.
        fast: batches of at most 4 sequences, and small generated sets.
    """

    def __init__(self, batch_size: int, workers: int = 0, fast: bool = False) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size, self.workers, self.fast = min(batch_size, 4) if fast else batch_size, workers, fast
        self.sets: dict[str, Dataset] = {}

    def _loader(self, name: str) -> DataLoader[Any] | list[Any]:
        if name not in self.sets:
            return []
        return DataLoader(
            self.sets[name],
            batch_size=self.batch_size,
            shuffle=name == "train",
            drop_last=name == "train" and len(self.sets[name]) >= self.batch_size,  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=collate,
        )

    def train_dataloader(self) -> Any:
        return self._loader("train")

    def val_dataloader(self) -> Any:
        return self._loader("val")

    def test_dataloader(self) -> Any:
        return self._loader("test")
