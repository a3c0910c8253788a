"""Molecules to learn to generate: the G2 set that ASE carries, or QM9."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from plugins.equivariant.data.loading import GraphData
from plugins.equivariant.data.qm9 import qm9_order, read_qm9
from plugins.equivariant.graphs import Graph, end_to_end
from plugins.equivariant.molecules import Frame
from plugins.equivariant.molecules.graphs import frame_graph

SOURCES = ("g2", "qm9")


def g2_molecules() -> list[Frame]:
    """The closed-shell molecules of two or more atoms H, C, N, O, F in the G2 set (Curtiss et al. 1991, 1997).

    Geometries are optimised with MP2(full)/6-31G*; ASE carries them.

    Raises:
        ImportError: ASE is missing.
    """
    try:
        from ase.collections import g2
    except ImportError:
        raise ImportError("the G2 molecules need ASE: pip install 'framework[equivariant]'") from None
    found = []
    for name in sorted(g2.names):
        atoms = g2[name]
        closed = not atoms.get_initial_magnetic_moments().any()
        if len(atoms) > 1 and set(atoms.numbers.tolist()) <= {1, 6, 7, 8, 9} and closed:
            found.append(Frame(atoms.numbers.astype(np.int64), atoms.positions.copy(), info={"name": name}))
    return found


class Geometries(Dataset):
    """Molecules without targets, each ``repeats`` times, so that a small set fills an epoch."""

    def __init__(self, frames: Sequence[Frame], repeats: int = 1) -> None:
        self.frames, self.repeats = list(frames), repeats
        bare = [Frame(frame.numbers, frame.pos) for frame in self.frames]
        self.graphs = [frame_graph(frame) for frame in bare]

    def __len__(self) -> int:
        return len(self.frames) * self.repeats

    def __getitem__(self, index: int) -> Graph:
        return self.graphs[index % len(self.graphs)]

    def __getitems__(self, indices: list[int]) -> Graph:
        return end_to_end([self[i] for i in indices])


class SmallMoleculesData(GraphData):
    """Geometries to train a generator on; the test batch only starts the sampling.

    Args:
        source: "g2" (73 molecules, from ASE) or "qm9" (its 110,000 training molecules, with the download).
        batch_size, workers: of the loaders.
        repeats: times that each molecule comes in an epoch.
        fast: a few molecules.
    """

    def __init__(
        self, source: str = "g2", batch_size: int = 64, repeats: int = 1, workers: int = 0, fast: bool = False
    ) -> None:
        super().__init__(batch_size, 1, workers)
        if source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, not {source!r}")
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, not {repeats}")
        self.source, self.repeats, self.fast = source, repeats, fast

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        if self.source == "g2":
            frames = g2_molecules()
        else:
            frames = read_qm9(limit=100 if self.fast else None)
            frames = [frames[i] for i in qm9_order(len(frames))[:110_000]]
        frames = frames[:16] if self.fast else frames
        self.sets = {"train": Geometries(frames, self.repeats), "test": Geometries(frames[:1])}

    @property
    def train_frames(self) -> list[Frame]:
        """The molecules, for their sizes and for novelty."""
        self.setup()
        return self.sets["train"].frames  # type: ignore[attr-defined]
