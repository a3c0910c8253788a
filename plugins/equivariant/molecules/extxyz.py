"""Extended XYZ: plain XYZ whose comment line holds ``key=value`` pairs and names the columns under ``Properties``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .elements import SYMBOLS, atomic_number
from .frame import Frame

_PAIR = re.compile(r"""([^\s=]+)\s*=\s*(?:"([^"]*)"|\{([^}]*)\}|(\S+))|(\S+)""")
_KINDS = {"S": str, "R": float, "I": int, "L": str}


def read_extxyz(
    path: str | Path, energy_key: str = "energy", forces_key: str = "forces", limit: int | None = None
) -> list[Frame]:
    """Every frame of a file, in the units that the file uses (eV and angstrom are expected further on).

    Args:
        path: the file.
        energy_key, forces_key: names of the energy among the pairs and of the forces among the columns.
        limit: read this many frames at most.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that does not parse; the message names the file and the line.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    frames: list[Frame] = []
    at = 0
    while at < len(lines) and (limit is None or len(frames) < limit):
        if not lines[at].strip():
            at += 1
            continue
        try:
            count = int(lines[at])
        except ValueError:
            raise _bad(path, at, f"expected the number of atoms, found {lines[at].strip()[:40]!r}") from None
        if count < 1:
            raise _bad(path, at, f"a frame needs at least one atom, not {count}")
        if at + 2 + count > len(lines):
            raise _bad(path, at, f"the frame announces {count} atoms but the file ends after {len(lines)} lines")
        frames.append(_frame(path, lines, at, count, energy_key, forces_key))
        at += 2 + count
    if not frames:
        raise ValueError(f"{path} holds no frame")
    return frames


def _frame(path: Path, lines: list[str], at: int, count: int, energy_key: str, forces_key: str) -> Frame:
    info = _pairs(lines[at + 1])
    columns = _columns(path, at + 1, info.pop("Properties", "species:S:1:pos:R:3"))
    width = sum(number for _, _, number in columns)
    rows = []
    for offset in range(count):
        row = lines[at + 2 + offset].split()
        if len(row) != width:
            raise _bad(path, at + 2 + offset, f"expected {width} columns, found {len(row)}")
        rows.append(row)
    values: dict[str, np.ndarray] = {}
    first = 0
    for name, kind, number in columns:
        part = [row[first : first + number] for row in rows]
        try:
            values[name] = np.array(part, dtype=_KINDS[kind])
        except ValueError:
            raise _bad_number(path, at + 2, part, name, kind) from None
        first += number
    if "pos" not in values or values["pos"].shape[1] != 3:
        raise _bad(path, at + 1, "Properties must name pos:R:3")
    if forces_key in values and values[forces_key].shape[1] != 3:
        raise _bad(path, at + 1, f"{forces_key} must have 3 columns, not {values[forces_key].shape[1]}")
    for name, array in values.items():
        if array.dtype == float and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0, 0])
            raise _bad(path, at + 2 + row, f"{name} is not finite")
    try:
        if "species" in values:
            numbers = np.array([atomic_number(str(symbol)) for symbol in values["species"][:, 0]])
        else:
            numbers = values["Z"][:, 0]
    except ValueError as error:
        known = [symbol in SYMBOLS for symbol in values["species"][:, 0]]
        raise _bad(path, at + 2 + known.index(False), str(error)) from None
    except KeyError:
        raise _bad(path, at + 1, "Properties names neither species nor Z") from None
    energy = info.pop(energy_key, None)
    if energy is not None and not isinstance(energy, (int, float)):
        raise _bad(path, at + 1, f"{energy_key} is no number: {energy!r}")
    lattice = info.pop("Lattice", None)
    try:
        cell = None if lattice is None else np.array(str(lattice).split(), dtype=float).reshape(3, 3)
    except ValueError:
        raise _bad(path, at + 1, f"Lattice must hold nine numbers: {lattice!r}") from None
    flags = str(info.pop("pbc", "F F F" if cell is None else "T T T")).split()
    if len(flags) != 3 or not set(flags) <= {"T", "F", "True", "False", "1", "0"}:
        raise _bad(path, at + 1, f"pbc must hold three of T and F: {' '.join(flags)!r}")
    repeats = [flag in ("T", "True", "1") for flag in flags]
    extra = {name: array for name, array in values.items() if name not in ("species", "Z", "pos", forces_key)}
    return Frame(
        numbers.astype(np.int64),
        values["pos"],
        None if energy is None else float(energy),
        values.get(forces_key),
        cell,
        (repeats[0], repeats[1], repeats[2]),
        {**info, **extra},
    )


def _pairs(comment: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for match in _PAIR.finditer(comment):
        key, quoted, braced, bare, flag = match.groups()
        if flag is not None:
            found[flag] = True
        else:
            found[key] = quoted if quoted is not None else braced if braced is not None else _value(bare)
    return found


def _value(text: str) -> int | float | bool | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"T": True, "F": False, "True": True, "False": False}.get(text, text)


def _columns(path: Path, line: int, properties: Any) -> list[tuple[str, str, int]]:
    fields = str(properties).split(":")
    try:
        triples = [(fields[i], fields[i + 1], int(fields[i + 2])) for i in range(0, len(fields), 3)]
        if all(kind in _KINDS and number > 0 for _, kind, number in triples):
            return triples
    except (IndexError, ValueError):
        pass
    raise _bad(path, line, f"Properties must be name:kind:columns triples with kinds S, R, I, L: {properties!r}")


def _bad(path: Path, line: int, what: str) -> ValueError:
    return ValueError(f"{path}, line {line + 1}: {what}")


def _bad_number(path: Path, first: int, rows: Sequence[Sequence[str]], name: str, kind: str) -> ValueError:
    for offset, row in enumerate(rows):
        for text in row:
            try:
                _KINDS[kind](text)
            except ValueError:
                return _bad(path, first + offset, f"{name} expects numbers, found {text!r}")
    return _bad(path, first, f"{name} does not parse")


def write_xyz(path: str | Path, frames: Iterable[Frame]) -> Path:
    """Write frames as extended XYZ, with energies, forces and lattices where they have them; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for frame in frames:
            comment = "Properties=species:S:1:pos:R:3" + (":forces:R:3" if frame.forces is not None else "")
            if frame.cell is not None:
                comment = f'Lattice="{" ".join(f"{x:.10g}" for x in frame.cell.ravel())}" ' + comment
            if frame.energy is not None:
                comment += f" energy={frame.energy:.10f}"
            for key, value in frame.info.items():
                if isinstance(value, (int, float, str)):
                    comment += f' {key}="{value}"' if isinstance(value, str) else f" {key}={value}"
            file.write(f'{len(frame)}\n{comment} pbc="{" ".join("T" if p else "F" for p in frame.pbc)}"\n')
            for i, number in enumerate(frame.numbers):
                row = [*frame.pos[i], *(frame.forces[i] if frame.forces is not None else ())]
                file.write(f"{SYMBOLS[number]:<2} " + " ".join(f"{x:15.8f}" for x in row) + "\n")
    return path
