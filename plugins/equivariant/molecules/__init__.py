"""Molecules in files: frames with energies and forces, and the readers of the common formats."""

from .elements import SYMBOLS, atomic_number
from .extxyz import read_extxyz, write_xyz
from .frame import Frame, reference_energies
from .npz import KCAL_PER_MOL, read_rmd17
from .qm9 import ATOMISED, PROPERTIES, atomisation, read_qm9_xyz, read_uncharacterized

__all__ = [
    "ATOMISED",
    "KCAL_PER_MOL",
    "PROPERTIES",
    "SYMBOLS",
    "Frame",
    "atomic_number",
    "atomisation",
    "read_extxyz",
    "read_qm9_xyz",
    "read_rmd17",
    "read_uncharacterized",
    "reference_energies",
    "write_xyz",
]
