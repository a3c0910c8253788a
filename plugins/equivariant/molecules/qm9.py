"""The file format of QM9 (Ramakrishnan et al. 2014, Sci. Data 1, 140022): 133,885 small molecules, B3LYP properties."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .elements import atomic_number
from .frame import Frame

HARTREE = 27.211386245988
"""One hartree in eV (CODATA 2018)."""

PROPERTIES = {
    "A": 1.0,
    "B": 1.0,
    "C": 1.0,
    "mu": 1.0,
    "alpha": 1.0,
    "homo": HARTREE,
    "lumo": HARTREE,
    "gap": HARTREE,
    "r2": 1.0,
    "zpve": HARTREE,
    "U0": HARTREE,
    "U": HARTREE,
    "H": HARTREE,
    "G": HARTREE,
    "cv": 1.0,
}
"""Name → factor from the file's unit to ours, in the order of the file.

A, B, C in GHz, mu in debye, alpha in bohr^3, r2 in bohr^2, cv in cal/(mol K), all energies in eV.
"""

ATOMISED = ("U0", "U", "H", "G")
"""Properties that are learnt as atomisation energies, less the free atoms' own."""

FREE_ATOMS = {
    "U0": {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730},
    "U": {1: -0.498857, 6: -37.845355, 7: -54.582445, 8: -75.063163, 9: -99.717314},
    "H": {1: -0.497912, 6: -37.844411, 7: -54.581501, 8: -75.062219, 9: -99.716370},
    "G": {1: -0.510927, 6: -37.861317, 7: -54.598897, 8: -75.079532, 9: -99.733544},
}
"""Property of ``ATOMISED`` → atomic number → hartree, at the data set's level of theory (its file atomref.txt)."""


def read_qm9_xyz(lines: Sequence[str], source: str) -> Frame:
    """One molecule from the lines of its file; the properties stand in ``info``, with ``index`` (1-based).

    Args:
        lines: of the file.
        source: its name, for messages.

    Raises:
        ValueError: naming the source and the line.
    """
    try:
        count = int(lines[0])
    except (ValueError, IndexError):
        raise ValueError(f"{source}, line 1: expected the number of atoms") from None
    if len(lines) < count + 2:
        raise ValueError(f"{source}, line 1: announces {count} atoms but the file has {len(lines)} lines")
    words = lines[1].split()
    if len(words) != 2 + len(PROPERTIES) or words[0] != "gdb":
        raise ValueError(f"{source}, line 2: expected 'gdb', an index and {len(PROPERTIES)} properties")
    numbers, pos = np.empty(count, dtype=np.int64), np.empty((count, 3))
    try:
        line = 2
        info: dict[str, float | int] = {"index": int(words[1])}
        for (name, factor), word in zip(PROPERTIES.items(), words[2:], strict=True):
            info[name] = _number(word) * factor
        for i in range(count):
            line = 3 + i
            symbol, *coordinates = lines[line - 1].split()
            numbers[i] = atomic_number(symbol)
            # a fifth column holds Mulliken charges
            pos[i] = [_number(word) for word in coordinates[:3]]
    except ValueError as error:
        raise ValueError(f"{source}, line {line}: {error}") from None
    return Frame(numbers, pos, info=info)


def _number(word: str) -> float:
    # some numbers of the distribution are written as Mathematica prints them: 1.2345*^-6
    return float(word.replace("*^", "e"))


def read_uncharacterized(path: str | Path) -> set[int]:
    """1-based indices of the molecules whose geometries failed the consistency check (3,054 of them)."""
    first_words = [line.split()[0] for line in Path(path).read_text().splitlines() if line.strip()]
    found = {int(word) for word in first_words if word.isdigit()}
    if not found:
        raise ValueError(f"{path} lists no molecule")
    return found


def atomisation(frame: Frame, name: str) -> float:
    """A property of ``ATOMISED`` less the same of the free atoms, in eV (negative for a bound molecule).

    Raises:
        ValueError: an element without reference, i.e. other than H, C, N, O, F.
    """
    free = FREE_ATOMS[name]
    if strange := sorted(set(frame.numbers.tolist()) - set(free)):
        raise ValueError(f"no free-atom energies for atomic numbers {strange}: QM9 knows {sorted(free)}")
    return frame.info[name] - sum(free[number] for number in frame.numbers.tolist()) * HARTREE
