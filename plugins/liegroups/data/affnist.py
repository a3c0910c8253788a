"""Reader of the official affNIST files (Tieleman 2013): MATLAB structs of 40 x 40 images with their labels and maps.

The test set holds 320,000 images, 32 affine versions of each MNIST test digit. It is published without a checksum, so
it is not downloaded unattended: fetch ``test_batches.zip`` (and, for their training set,
``training_and_validation_batches.zip``) from https://www.cs.toronto.edu/~tijmen/affNIST/32x/transformed/ and unpack
them into ``affnist/test_batches`` (``affnist/training_and_validation_batches``) of the data folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor
from tqdm import tqdm

from framework.data import data_dir
from framework.errors import DataMissing

_SIDE = 40
_ADDRESS = "https://www.cs.toronto.edu/~tijmen/affNIST/32x/transformed/"


def read_affnist(path: str | Path) -> dict[str, Tensor]:
    """One official .mat file -> ``images`` float32 [n, 1, 40, 40] in [0, 1], ``labels`` int64 [n] and, where present,
    ``transforms`` float64 [n, 6] (rotation in degrees, shear, vertical and horizontal scale, vertical and horizontal
    shift).

    Raises ValueError if the file does not hold the struct ``affNISTdata`` with images of 1600 pixels.
    """
    path = Path(path)
    content = loadmat(path, squeeze_me=True, struct_as_record=False)
    if "affNISTdata" not in content:
        raise ValueError(f"{path.name}: holds {sorted(k for k in content if k[0] != '_')}, not the struct affNISTdata")
    record = content["affNISTdata"]
    pixels = np.asarray(record.image)
    pixels = pixels[:, None] if pixels.ndim == 1 else pixels
    if pixels.shape[0] != _SIDE * _SIDE:
        raise ValueError(f"{path.name}: affNISTdata.image has shape {pixels.shape}, expected 1600 rows, one per pixel")
    # one image a column, its pixels row by row
    images = torch.from_numpy(np.ascontiguousarray(pixels.T).reshape(-1, 1, _SIDE, _SIDE).astype(np.float32) / 255)
    labels = torch.from_numpy(np.atleast_1d(record.label_int).astype(np.int64))
    if len(labels) != len(images):
        raise ValueError(f"{path.name}: {len(images)} images but {len(labels)} labels")
    out = {"images": images, "labels": labels}
    transform = getattr(record, "human_readable_transform", None)
    if transform is not None:
        table = np.asarray(transform, dtype=np.float64).reshape(6, -1)
        out["transforms"] = torch.from_numpy(np.ascontiguousarray(table.T))
    return out


def affnist_files(split: str = "test") -> list[Path]:
    """The official files of ``split`` ("test" or "training_and_validation") in the data folder, in numeric order.

    Raises:
        DataMissing: there are none; the message has the address and the place to put them.
    """
    folder = data_dir() / "affnist" / f"{split}_batches"
    single = data_dir() / "affnist" / f"{split}.mat"
    files = sorted(folder.glob("*.mat"), key=lambda p: (len(p.stem), p.stem))
    if not files and single.is_file():
        files = [single]
    if not files:
        raise DataMissing(
            f"affNIST is not in the data folder: unpack {_ADDRESS}{split}_batches.zip into {folder} (or "
            f"{_ADDRESS}{split}.mat.zip as {single}), or use data=liegroups/affnist_like"
        )
    return files


def load_affnist(split: str = "test", limit: int | None = None) -> tuple[Tensor, Tensor]:
    """-> (images [n, 1, 40, 40], labels [n]) of all files of ``split``, or of as many as give ``limit`` images."""
    images, labels, count = [], [], 0
    for path in tqdm(affnist_files(split), desc=f"affNIST {split}", unit="file"):
        part = read_affnist(path)
        images.append(part["images"])
        labels.append(part["labels"])
        count += len(part["labels"])
        if limit is not None and count >= limit:
            break
    return torch.cat(images)[:limit], torch.cat(labels)[:limit]
