"""The data module of every classification experiment: MNIST on a canvas, and its transformed test sets."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from plugins.liegroups.data.affnist import affnist_files, load_affnist
from plugins.liegroups.data.idx import load_mnist
from plugins.liegroups.data.recipes import RECIPES, make_set
from plugins.liegroups.data.warp import CANVAS, pad_to_canvas


class CanvasMNIST(pl.LightningDataModule):
    """Trains on centred, padded MNIST; tests on any of the recipes in ``data.recipes`` and on the official affNIST.

    Images are float [1, 40/pool, 40/pool] in [0, 1], background exactly zero. ``train_images`` of the official
    training images are drawn without replacement; ``val_images`` others make the validation set; None takes all that
    are left. ``test_images`` of the test images are put through each recipe of ``test_sets``; the name "affnist" stands
    for the official set (all of it, or its first ``test_images``). ``train_recipe`` transforms the training images
    once. ``seed`` fixes every choice. ``fast`` takes a few images in batches of 4, for debugging.
    """

    def __init__(
        self, train_images: int | None = 1500, val_images: int = 500, test_images: int | None = 1000,
        test_sets: Sequence[str] = ("padded", "affnist_like", "rot180", "gl2"), train_recipe: str = "padded",
        pool: int = 2, batch_size: int = 50, test_batch_size: int = 250, workers: int = 0, seed: int = 0,
        fast: bool = False,
    ):  # fmt: skip
        super().__init__()
        if pool < 1 or CANVAS % pool:
            raise ValueError(f"pool={pool} must divide the canvas of {CANVAS} pixels")
        unknown = [name for name in (*test_sets, train_recipe) if name not in RECIPES and name != "affnist"]
        if unknown or train_recipe == "affnist":
            raise ValueError(
                f"no recipe for {unknown or ['affnist as train_recipe']}; choose from {', '.join(RECIPES)}"
            )
        if not test_sets:
            raise ValueError("test_sets is empty: name at least one set")
        self.train_images, self.val_images, self.test_images = train_images, val_images, test_images
        self.test_sets, self.train_recipe, self.pool, self.seed = list(test_sets), train_recipe, pool, seed
        self.batch_size, self.test_batch_size, self.workers = batch_size, test_batch_size, workers
        if fast:
            self.batch_size, self.test_batch_size, self.workers = min(batch_size, 4), min(test_batch_size, 4), 0
            self.train_images, self.val_images, self.test_images = 64, min(val_images, 16), 16
        self.train_set: TensorDataset | None = None
        self.val_set: TensorDataset | None = None
        self.tests: list[TensorDataset] = []

    def _shrink(self, images: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images, self.pool) if self.pool > 1 else images

    def setup(self, stage: str) -> None:
        if "affnist" in self.test_sets:
            affnist_files("test")  # a missing test set must be known before the training, not after
        if stage in ("fit", "validate") and self.train_set is None:
            images, labels = load_mnist(train=True)
            wanted = (self.train_images or 0) + self.val_images
            if wanted > len(images) or self.val_images < 1 or (self.train_images or 1) < 1:
                raise ValueError(
                    f"train_images={self.train_images} and val_images={self.val_images}: need at least one of each and "
                    f"at most {len(images)} together"
                )
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
            val = order[: self.val_images]
            rest = order[self.val_images :]
            train = rest if self.train_images is None else rest[: self.train_images]
            moved = make_set(self.train_recipe, pad_to_canvas(images[train]), self.seed)
            self.train_set = TensorDataset(self._shrink(moved), labels[train])
            self.val_set = TensorDataset(self._shrink(pad_to_canvas(images[val])), labels[val])
        if stage in ("test", "predict") and not self.tests:
            images, labels = load_mnist(train=False)
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
            chosen = order[: self.test_images]
            padded = pad_to_canvas(images[chosen])
            for k, name in enumerate(self.test_sets):
                if name == "affnist":
                    x, y = load_affnist("test", self.test_images)
                else:
                    x, y = make_set(name, padded, self.seed + 1 + k), labels[chosen]
                self.tests.append(TensorDataset(self._shrink(x), y))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.train_set, self.batch_size, shuffle=True, drop_last=True, num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_set, self.test_batch_size, num_workers=self.workers)

    def test_dataloader(self) -> list[DataLoader]:
        return [DataLoader(data, self.test_batch_size, num_workers=self.workers) for data in self.tests]

    def predict_dataloader(self) -> list[DataLoader]:
        return self.test_dataloader()
