"""MNIST as a sequence of 784 pixels."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from framework.data import fetch
from plugins.state_space.data.loading import SequenceData, Sequences

# md5 of the unpacked files, as published with the data set; then of the packed ones, for a download
FILES = {
    "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
    "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
    "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
}
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")


def read_idx(path: Path, md5: str) -> Tensor:
    """An IDX file of unsigned bytes, gzipped, as a uint8 tensor.

    Raises:
        ValueError: the content is not the official one.
    """
    content = gzip.decompress(path.read_bytes())
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"{path} is not the official file (its unpacked md5 differs): delete it and fetch it again")
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    return torch.from_numpy(data.reshape(tuple(shape)).copy())


def load_mnist(part: str) -> tuple[Tensor, Tensor]:
    """Images (M, 28, 28) uint8 and labels (M,) of ``train`` or ``t10k``."""
    parts = []
    for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        unpacked, packed = FILES[name]
        path = fetch(f"mnist/{name}.gz", [f"{mirror}/{name}.gz" for mirror in MIRRORS], md5=packed)
        parts.append(read_idx(path, unpacked))
    return parts[0], parts[1].long()


class SequentialMNISTData(SequenceData):
    """Pixels in reading order as sequences (784, 1) in [0, 1].

    Args:
        batch_size, workers, fast: as ``SequenceData``.
        permuted: one fixed permutation of the pixels for all images (psMNIST).
        permutation_seed: of that permutation.
        train_size, test_size: use only the first so many images; all when omitted.
        val_size: the last so many training images validate instead.
    """

    def __init__(
        self,
        batch_size: int = 64,
        permuted: bool = False,
        permutation_seed: int = 0,
        train_size: int | None = None,
        test_size: int | None = None,
        val_size: int = 0,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, workers, fast)
        for name, size in (("train_size", train_size), ("test_size", test_size)):
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        if not 0 <= val_size < 60000:
            raise ValueError(f"val_size must lie in 0 … 59999, not {val_size}")
        self.permuted, self.permutation_seed = permuted, permutation_seed
        self.train_size, self.test_size, self.val_size = train_size, test_size, val_size

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        order = torch.arange(784)
        if self.permuted:
            order = torch.randperm(784, generator=torch.Generator().manual_seed(self.permutation_seed))
        images, labels = load_mnist("train")
        images, labels = images.flatten(1)[:, order, None], labels
        split = len(labels) - self.val_size
        self.sets["train"] = self._set(images[:split][: self.train_size], labels[:split][: self.train_size])
        if self.val_size:
            self.sets["val"] = self._set(images[split:], labels[split:])
        images, labels = load_mnist("t10k")
        images = images.flatten(1)[:, order, None]
        self.sets["test"] = self._set(images[: self.test_size], labels[: self.test_size])

    @staticmethod
    def _set(images: Tensor, labels: Tensor) -> Sequences:
        return Sequences(images, labels, scale=1 / 255)
