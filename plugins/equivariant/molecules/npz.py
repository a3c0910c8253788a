"""Arrays of frames of one molecule, as the revised MD17 trajectories are distributed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .frame import Frame

KCAL_PER_MOL = 0.0433641153087705
"""One kcal/mol in eV."""


def read_rmd17(path: str | Path, indices: Iterable[int] | None = None, unit: float = KCAL_PER_MOL) -> list[Frame]:
    """Frames of an rMD17 file (Christensen and von Lilienfeld 2020), converted to eV and eV / angstrom.

    Args:
        path: an .npz with ``nuclear_charges`` (n,), ``coords`` (T, n, 3), ``energies`` (T,), ``forces`` (T, n, 3).
        indices: the frames to take, by default all.
        unit: energy unit of the file in eV.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, arrays that do not fit, or an index that is out of range.
    """
    path = Path(path)
    try:
        with np.load(path) as archive:
            data = {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an .npz archive: {error}") from None
    if missing := {"nuclear_charges", "coords", "energies", "forces"} - set(data):
        raise ValueError(f"{path} lacks the arrays {', '.join(sorted(missing))}")
    numbers, coords = data["nuclear_charges"].astype(np.int64), data["coords"].astype(np.float64)
    energies, forces = data["energies"].astype(np.float64).reshape(-1), data["forces"].astype(np.float64)
    shape = (len(energies), len(numbers), 3)
    if coords.shape != shape or forces.shape != shape:
        raise ValueError(f"{path}: coords {coords.shape} and forces {forces.shape} should both have the shape {shape}")
    chosen = range(len(energies)) if indices is None else list(indices)
    for index in chosen:
        if not 0 <= index < len(energies):
            raise ValueError(f"index {index} is out of range: {path} holds {len(energies)} frames")
    return [Frame(numbers, coords[i], float(energies[i]) * unit, forces[i] * unit) for i in chosen]
