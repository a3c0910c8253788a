"""One geometry of a molecule or a crystal, with what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Frame:
    """A frame.

    Attributes:
        numbers: (n,) atomic numbers, int64.
        pos: (n, 3) positions in angstrom, float64.
        energy: in eV, or None.
        forces: (n, 3) in eV / angstrom, or None.
        cell: (3, 3) rows of lattice vectors in angstrom, or None.
        pbc: which of the lattice vectors repeat.
        info: anything else, by name.
    """

    numbers: np.ndarray
    pos: np.ndarray
    energy: float | None = None
    forces: np.ndarray | None = None
    cell: np.ndarray | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)


def reference_energies(frames: Sequence[Frame], species: Sequence[int]) -> np.ndarray:
    """One energy for each species such that their sums come closest to the frames' energies (least squares).

    Where the compositions do not tell species apart, the solution of least norm: for frames of one molecule the sum
    is the mean energy.

    Args:
        frames: with energies.
        species: atomic numbers, each of which may occur.

    Returns:
        (len(species),) in eV.

    Raises:
        ValueError: a frame without energy, or with an element that is not among the species.
    """
    counts = np.zeros((len(frames), len(species)))
    energies = np.zeros(len(frames))
    for row, frame in enumerate(frames):
        if frame.energy is None:
            raise ValueError(f"frame {row} has no energy")
        if strange := sorted(set(frame.numbers.tolist()) - set(species)):
            raise ValueError(f"frame {row} holds atomic numbers {strange}, which are not among species {list(species)}")
        counts[row] = [(frame.numbers == number).sum() for number in species]
        energies[row] = frame.energy
    return np.linalg.lstsq(counts, energies, rcond=None)[0]
