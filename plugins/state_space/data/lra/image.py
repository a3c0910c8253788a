"""CIFAR-10 in grey, pixel by pixel."""

from __future__ import annotations

import tarfile

import numpy as np
import torch
from torch import Tensor

from framework.data import fetch
from plugins.state_space.data.cache import cached
from plugins.state_space.data.loading import SequenceData, Sequences

ARCHIVE, MD5 = "cifar/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
URLS = ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]
MEAN, STD = 122.6, 61.0
RECORD = 1 + 3 * 32 * 32
LUMA = np.array([0.2989, 0.5870, 0.1140])  # ITU-R 601


def read_records(content: bytes) -> tuple[Tensor, Tensor]:
    """Grey images (M, 1024) uint8 and labels (M,) of CIFAR's binary records.

    Raises:
        ValueError: not a whole number of records.
    """
    if len(content) % RECORD:
        raise ValueError(f"{len(content)} bytes are not a whole number of CIFAR-10 records of {RECORD} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    grey = np.round(np.einsum("c,mcp->mp", LUMA, records[:, 1:].reshape(-1, 3, 1024))).astype(np.uint8)
    return torch.from_numpy(grey), torch.from_numpy(records[:, 0].astype(np.int64))


class GreyCIFARData(SequenceData):
    """Sequences (1024, 1), (x − 122.6)/61.0.

    Args:
        batch_size, workers, fast: as ``SequenceData``.
        train_size, test_size: use only the first so many images; all when omitted.
        val_size: the last so many training images validate instead.
    """

    def __init__(
        self,
        batch_size: int = 50,
        train_size: int | None = None,
        test_size: int | None = None,
        val_size: int = 5000,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, workers, fast)
        if not 0 <= val_size < 50_000:
            raise ValueError(f"val_size must lie in 0 … 49999, not {val_size}")
        self.train_size, self.test_size, self.val_size = train_size, test_size, val_size

    def prepare_data(self) -> None:
        fetch(ARCHIVE, URLS, md5=MD5)

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        stored = cached("cifar-grey", {"md5": MD5, "version": 1}, self._read)
        x, y = stored["train_x"], stored["train_y"]
        split = len(y) - self.val_size
        self.sets["train"] = self._set(x[:split][: self.train_size], y[:split][: self.train_size])
        if self.val_size:
            self.sets["val"] = self._set(x[split:], y[split:])
        self.sets["test"] = self._set(stored["test_x"][: self.test_size], stored["test_y"][: self.test_size])

    @staticmethod
    def _set(x: Tensor, y: Tensor) -> Sequences:
        return Sequences(x[..., None], y, scale=1 / STD, shift=MEAN)

    @staticmethod
    def _read() -> dict[str, Tensor]:
        parts: dict[str, tuple[Tensor, Tensor]] = {}
        with tarfile.open(fetch(ARCHIVE, URLS, md5=MD5)) as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if member.isfile() and name.endswith(".bin"):
                    file = archive.extractfile(member)
                    if file is not None:
                        parts[name] = read_records(file.read())
        names = [f"data_batch_{k}.bin" for k in range(1, 6)]
        return {
            "train_x": torch.cat([parts[name][0] for name in names]),
            "train_y": torch.cat([parts[name][1] for name in names]),
            "test_x": parts["test_batch.bin"][0],
            "test_y": parts["test_batch.bin"][1],
        }
