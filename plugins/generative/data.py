"""Data modules: scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


def load_digits() -> tuple[Tensor, Tensor]:
    """The 1797 scans of handwritten digits that scikit-learn ships (UCI optdigits, its test half).

    Returns:
        images (1797, 1, 8, 8), float32 in [-1, 1] (-1 is paper), and labels (1797,), int64 in 0..9.
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32))[:, None] / 8 - 1
    return images, torch.from_numpy(digits.target.astype(np.int64))


def stratified_split(labels: Tensor, heldout_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (train, held-out) that keep the class shares, each in ascending order; the same for the same seed.

    Args:
        labels: (n,) integers.
        heldout_fraction: In (0, 1). Every class must be left with at least one image on both sides.
        seed: Of the shuffle.
    """
    if not 0 < heldout_fraction < 1:
        raise ValueError(f"heldout_fraction must lie strictly between 0 and 1; got {heldout_fraction}")
    generator = torch.Generator().manual_seed(seed)
    train, heldout = [], []
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        count = round(heldout_fraction * len(members))
        if not 0 < count < len(members):
            raise ValueError(
                f"heldout_fraction {heldout_fraction} leaves class {int(label)} ({len(members)} images) "
                "without images on one side of the split"
            )
        members = members[torch.randperm(len(members), generator=generator)]
        heldout.append(members[:count])
        train.append(members[count:])
    return torch.cat(train).sort().values, torch.cat(heldout).sort().values


class DigitsDataModule(LightningDataModule):
    """Handwritten digits, 8x8, split once into training and held-out images with equal class shares.

    Batches are (images (B, 1, 8, 8) in [-1, 1], labels (B,)). Validation and test both read the held-out images:
    nothing is selected on them. `train_set` and `heldout_set` are there from construction on.

    Args:
        batch_size: Images a step; the last incomplete training batch of an epoch is dropped.
        heldout_fraction: Share of every class that is never trained on.
        split_seed: Of the split, apart from the seed of the run, so that runs of different seeds compare.
        num_workers: Of the loaders.
    """

    def __init__(
        self, batch_size: int = 128, heldout_fraction: float = 0.25, split_seed: int = 0, num_workers: int = 0
    ) -> None:
        super().__init__()
        images, labels = load_digits()
        train, heldout = stratified_split(labels, heldout_fraction, split_seed)
        if not 1 <= batch_size <= len(train):
            raise ValueError(f"batch_size must lie in 1..{len(train)}, the number of training images; got {batch_size}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.train_set = TensorDataset(images[train], labels[train])
        self.heldout_set = TensorDataset(images[heldout], labels[heldout])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.train_set, self.batch_size, shuffle=True, drop_last=True, num_workers=self.num_workers
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.heldout_set, self.batch_size, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()
