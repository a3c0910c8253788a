"""MNIST from its official IDX files, each verified by the MD5 of its unpacked content."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from framework.data import fetch

_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# file -> (MD5 of the official gzip, MD5 of its unpacked content)
_FILES = {
    "train-images-idx3-ubyte.gz": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte.gz": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte.gz": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte.gz": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}


def parse_idx(data: bytes) -> np.ndarray:
    """The uint8 array in IDX ``data``. Raises ValueError for another type, or a size that does not match its header."""
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError("IDX data: the header does not announce unsigned bytes (expected 00 00 08)")
    rank = data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise ValueError("IDX data: the header is cut short")
    shape = struct.unpack(f">{rank}I", data[4:start])
    count = int(np.prod(shape, dtype=np.int64))
    if len(data) - start != count:
        raise ValueError(f"IDX data: shape {shape} needs {count} bytes, found {len(data) - start}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_idx(path: str | Path, md5: str | None = None) -> np.ndarray:
    """Read an IDX file, gzipped if its name ends in .gz. Raises ValueError if its unpacked content has another MD5."""
    path = Path(path)
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if md5 is not None:
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != md5:
            raise ValueError(f"{path.name}: unpacked MD5 {found}, expected {md5}; delete the file and fetch it again")
    return parse_idx(data)


def load_mnist(train: bool) -> tuple[Tensor, Tensor]:
    """-> (images float32 [n, 1, 28, 28] in [0, 1], labels int64 [n]); n is 60,000 or, for the test set, 10,000."""
    prefix = "train" if train else "t10k"
    arrays = []
    for kind in ("images-idx3", "labels-idx1"):
        name = f"{prefix}-{kind}-ubyte.gz"
        packed, unpacked = _FILES[name]
        path = fetch(f"mnist/{name}", urls=[mirror + name for mirror in _MIRRORS], md5=packed)
        arrays.append(torch.from_numpy(read_idx(path, unpacked).copy()))
    images, labels = arrays
    return images[:, None].float() / 255, labels.long()
