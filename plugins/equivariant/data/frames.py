"""Energies and forces of molecules: any extended-XYZ file, or a revised-MD17 trajectory with its official splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from framework.data import fetch
from plugins.equivariant.data.loading import GraphData
from plugins.equivariant.graphs import Graph, end_to_end
from plugins.equivariant.molecules import Frame, read_extxyz, read_rmd17
from plugins.equivariant.molecules.graphs import frame_graph


class Frames(Dataset):
    """Frames as graphs, made once; a list of indices gives one batch.

    Args:
        frames: with energies and forces.
        radius: of the neighbourhood in angstrom; None joins all pairs of a molecule.

    Raises:
        ValueError: a frame that lacks its energy or its forces.
    """

    def __init__(self, frames: Sequence[Frame], radius: float | None = None) -> None:
        for number, frame in enumerate(frames):
            if frame.energy is None or frame.forces is None:
                raise ValueError(f"frame {number} lacks its {'energy' if frame.energy is None else 'forces'}")
        self.frames = list(frames)
        self.graphs = [frame_graph(frame, radius) for frame in frames]

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, index: int) -> Graph:
        return self.graphs[index]

    def __getitems__(self, indices: list[int]) -> Graph:
        return end_to_end([self.graphs[i] for i in indices])


class FramesData(GraphData):
    """Training, validation and test frames; a subclass says where they come from.

    Args:
        batch_size, eval_batch_size, workers: of the loaders.
        radius: of the neighbourhood in angstrom; None joins all pairs.
        train, val, test: numbers of frames, None for all there are (of the rest).
        split_seed: of the choice of validation frames.
        fast: a few frames.
    """

    def __init__(
        self,
        batch_size: int = 5,
        eval_batch_size: int = 50,
        radius: float | None = None,
        train: int | None = 950,
        val: int = 50,
        test: int | None = None,
        split_seed: int = 0,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, workers)
        for name, count in (("train", train), ("test", test)):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        if val < 0:
            raise ValueError(f"val must not be negative, not {val}")
        if fast:
            train, val, test, self.batch_size, self.eval_batch_size = 8, 4, 4, min(batch_size, 4), 4
        self.radius, self.train, self.val, self.test = radius, train, val, test
        self.split_seed, self.fast = split_seed, fast

    def read(self) -> tuple[list[Frame], list[Frame]]:
        """The frames that may be trained or validated on, and those of the test (empty: split off from the former)."""
        raise NotImplementedError(f"{type(self).__name__} must define read()")

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        pool, test = self.read()
        order = np.random.default_rng(self.split_seed).permutation(len(pool)).tolist()
        if not test:
            wanted = len(pool) // 5 if self.test is None else self.test
            test, order = [pool[i] for i in order[:wanted]], order[wanted:]
        else:
            test = test[: self.test]
        left = len(order) - self.val
        count = left if self.train is None else self.train
        if not 0 < count <= left:
            raise ValueError(
                f"{len(order)} frames cannot give train = {self.train} after val = {self.val}; lower one of them"
            )
        parts = {"train": [pool[i] for i in order[self.val : self.val + count]], "test": test}
        if self.val:
            parts["val"] = [pool[i] for i in order[: self.val]]
        self.sets = {name: Frames(frames, self.radius) for name, frames in parts.items()}

    @property
    def train_frames(self) -> list[Frame]:
        """The training frames, from which a potential takes its units."""
        self.setup()
        return self.sets["train"].frames  # type: ignore[attr-defined]


class ExtXYZData(FramesData):
    """Frames of extended-XYZ files, in eV and angstrom.

    Args:
        train_file, test_file: paths below the data folder, or anywhere if absolute; without ``test_file`` the test
            frames are split off from the training file.
        energy_key, forces_key: of ``read_extxyz``.
        batch_size, eval_batch_size, radius, train, val, test, split_seed, workers, fast: of ``FramesData``.
    """

    def __init__(
        self,
        train_file: str,
        test_file: str | None = None,
        energy_key: str = "energy",
        forces_key: str = "forces",
        batch_size: int = 5,
        eval_batch_size: int = 50,
        radius: float | None = None,
        train: int | None = 950,
        val: int = 50,
        test: int | None = None,
        split_seed: int = 0,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, radius, train, val, test, split_seed, workers, fast)
        self.train_file, self.test_file = train_file, test_file
        self.keys = (energy_key, forces_key)

    def read(self) -> tuple[list[Frame], list[Frame]]:
        limit = 32 if self.fast else None
        pool, test = (
            read_extxyz(path if (path := Path(name)).is_absolute() else fetch(name), *self.keys, limit) if name else []
            for name in (self.train_file, self.test_file)
        )
        return pool, test


RMD17_FILES = {
    "aspirin": (62265757, "17fd6fb69066888613f7e16b358a7553"),
    "azobenzene": (62265754, "be79df918468eb3579aa73a0becf7390"),
    "benzene": (62265739, "18c9242bc90fbf28215f6dd81e650f16"),
    "ethanol": (62265733, "eb837fb8deb27d4e0d52f71a03aff776"),
    "malonaldehyde": (62265736, "cdc1d70c0c34062ddde6e5071eb6fe21"),
    "naphthalene": (62265751, "0efba19c9907e3852318b1e6008b3b9e"),
    "paracetamol": (62265760, "ba10784f7b67635427085f6d7ec2dd97"),
    "salicylic": (62265748, "900fedf242da438400fa4293348d7dd1"),
    "toluene": (62265742, "0f2913d51f8149c90ab28d697a076f64"),
    "uracil": (62265745, "992a4479c28a07e0cce6da964805be31"),
}
"""Molecule → file number and md5 of figshare's article 12672038, "Revised MD17 dataset (rMD17)"."""

RMD17_SPLITS = {
    ("train", 1): (62265793, "22264dcf2e42d6133362411abbbe4ce8"),
    ("train", 2): (62265772, "28dbc9a3d5e7c47e653b1cc01809df35"),
    ("train", 3): (62265775, "8de68b1b288c790e633c9d05ff5f04dd"),
    ("train", 4): (62265766, "3764257abf8121a0905f364468ba83da"),
    ("train", 5): (62265778, "4670362bd554c9c22581c936432236b3"),
    ("test", 1): (62265781, "124c8a0849e84e244d6ce8424e1c05cf"),
    ("test", 2): (62265769, "9dc098724c1680daca038b785ee4f602"),
    ("test", 3): (62265787, "fd96f4623291dc23dd80b24dd634ca0b"),
    ("test", 4): (62265790, "f0acce759fa4fe46b3a0b2a450e7e260"),
    ("test", 5): (62265784, "4892da12e88a3c30c9a15f1f95e6eaac"),
}


class RMD17Data(FramesData):
    """A molecule of the revised MD17 set with one of its five official splits of 1,000 and 1,000 frames.

    Args:
        molecule: one of ``RMD17_FILES``.
        split: 1 to 5; validation frames are taken from the training half.
        batch_size, eval_batch_size, radius, train, val, test, split_seed, workers, fast: of ``FramesData``.
    """

    def __init__(
        self,
        molecule: str = "aspirin",
        split: int = 1,
        batch_size: int = 5,
        eval_batch_size: int = 50,
        radius: float | None = None,
        train: int | None = 950,
        val: int = 50,
        test: int | None = None,
        split_seed: int = 0,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, radius, train, val, test, split_seed, workers, fast)
        if molecule not in RMD17_FILES:
            raise ValueError(f"molecule must be one of {', '.join(RMD17_FILES)}, not {molecule!r}")
        if ("train", split) not in RMD17_SPLITS:
            raise ValueError(f"split must lie in 1..5, not {split}")
        self.molecule, self.split = molecule, split

    def read(self) -> tuple[list[Frame], list[Frame]]:
        path = _figshare(f"molecules/rmd17/rmd17_{self.molecule}.npz", *RMD17_FILES[self.molecule])
        halves = []
        for part in ("train", "test"):
            name = f"molecules/rmd17/index_{part}_{self.split:02d}.csv"
            text = _figshare(name, *RMD17_SPLITS[part, self.split]).read_text()
            halves.append(read_rmd17(path, [int(word) for word in text.split()]))
        return halves[0], halves[1]


def _figshare(name: str, number: int, md5: str) -> Path:
    return fetch(name, urls=[f"https://ndownloader.figshare.com/files/{number}"], md5=md5)
