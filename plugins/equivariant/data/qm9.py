"""QM9: one property of 130,831 small molecules, in the split that the field uses."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from framework.data import fetch
from plugins.equivariant.data.loading import GraphData
from plugins.equivariant.graphs import Graph, end_to_end
from plugins.equivariant.molecules import ATOMISED, PROPERTIES, Frame, atomisation, read_qm9_xyz, read_uncharacterized
from plugins.equivariant.molecules.graphs import frame_graph

ARCHIVE = ("molecules/qm9/dsgdb9nsd.xyz.tar.bz2", 3195389, "ad1ebd51ee7f5b3a6e32e974e5d54012")
EXCLUDED = ("molecules/qm9/uncharacterized.txt", 3195404, "a361887bacb427b8a0ce7903d92a53b4")
"""Path below the data folder, file number and md5 of figshare's collection 978904."""


class Properties(Dataset):
    """Molecules with one scalar target ``y["target"]`` (1,), float64.

    Args:
        frames: molecules with their properties in ``info``.
        target: one of ``PROPERTIES``; those of ``ATOMISED`` become atomisation energies.
        radius: of the neighbourhood; None joins all pairs.
    """

    def __init__(self, frames: Sequence[Frame], target: str, radius: float | None = None) -> None:
        self.frames, self.radius = list(frames), radius
        values = [atomisation(f, target) if target in ATOMISED else float(f.info[target]) for f in self.frames]
        self.targets = torch.tensor(values, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Graph:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Graph:
        batch = end_to_end([frame_graph(self.frames[i], self.radius) for i in indices])
        return batch.replace(y={"target": self.targets[indices]})


class QM9Data(GraphData):
    """QM9 without the molecules whose geometries are not certain, split as ``RandomState(42).permutation`` does.

    Args:
        target: one of ``PROPERTIES``, e.g. "alpha" or "U0".
        batch_size, eval_batch_size, workers: of the loaders.
        train, val: numbers of molecules; the rest is the test's.
        radius: of the neighbourhood; None joins all pairs.
        fast: a few molecules.
    """

    def __init__(
        self,
        target: str = "alpha",
        batch_size: int = 96,
        eval_batch_size: int = 500,
        train: int = 110_000,
        val: int = 10_000,
        radius: float | None = None,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, workers)
        if target not in PROPERTIES:
            raise ValueError(f"target must be one of {', '.join(PROPERTIES)}, not {target!r}")
        self.target, self.train, self.val, self.radius, self.fast = target, train, val, radius, fast

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        frames = read_qm9(limit=100 if self.fast else None)
        train, val = (80, 10) if self.fast else (self.train, self.val)
        if train + val >= len(frames):
            raise ValueError(f"{len(frames)} molecules cannot give train = {train} and val = {val} and a test set")
        order = qm9_order(len(frames))
        parts = np.split(order, [train, train + val])
        for name, indices in zip(("train", "val", "test"), parts, strict=True):
            self.sets[name] = Properties([frames[i] for i in indices], self.target, self.radius)


def qm9_order(count: int) -> np.ndarray:
    """The order of the molecules from which the field's splits are cut."""
    return np.random.RandomState(42).permutation(count)


def read_qm9(limit: int | None = None) -> list[Frame]:
    """The molecules of QM9 in the order of their indices, without the uncertain ones.

    Args:
        limit: of the archive's first molecules, read this many.

    Raises:
        DataMissing: the files are neither in the data folder nor to be had.
    """
    archive, excluded = (
        fetch(name, urls=[f"https://ndownloader.figshare.com/files/{number}"], md5=md5)
        for name, number, md5 in (ARCHIVE, EXCLUDED)
    )
    uncertain = read_uncharacterized(excluded)
    frames = []
    with tarfile.open(archive, "r:bz2") as tar:
        for member in tqdm(tar, desc="QM9", unit="molecule", total=133_885, disable=limit is not None):
            if not member.name.endswith(".xyz") or (file := tar.extractfile(member)) is None:
                continue
            frame = read_qm9_xyz(file.read().decode().splitlines(), member.name)
            if frame.info["index"] not in uncertain:
                frames.append(frame)
            if limit is not None and len(frames) >= limit:
                break
    return sorted(frames, key=lambda frame: frame.info["index"])
