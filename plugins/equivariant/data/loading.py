"""What every data module of the family shares: loaders over datasets that build whole batches at once."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset


class GraphData(pl.LightningDataModule):
    """Loaders for datasets whose ``__getitems__`` answers a list of indices with one batched ``Graph``.

    A subclass fills ``self.sets`` ("train", "val", "test") in ``setup``.

    Args:
        batch_size: graphs in a training batch.
        eval_batch_size: graphs in a validation or test batch.
        workers: of the loaders.
    """

    def __init__(self, batch_size: int, eval_batch_size: int | None = None, workers: int = 0) -> None:
        super().__init__()
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        self.batch_size, self.eval_batch_size, self.workers = batch_size, eval_batch_size or batch_size, workers
        self.sets: dict[str, Dataset] = {}

    def train_dataloader(self) -> DataLoader:
        # an incomplete batch would cost the networks of an equal-time run unequally
        return self._loader("train", self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader | list:
        return self._loader("val", self.eval_batch_size) if "val" in self.sets else []

    def test_dataloader(self) -> DataLoader:
        return self._loader("test", self.eval_batch_size)

    def _loader(self, part: str, batch_size: int, shuffle: bool = False, drop_last: bool = False) -> DataLoader:
        data = self.sets[part]
        return DataLoader(
            data,
            min(batch_size, len(data)),  # type: ignore[arg-type]
            shuffle=shuffle,
            drop_last=drop_last,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=_as_it_is,
        )


def _as_it_is(batch: Any) -> Any:
    return batch
