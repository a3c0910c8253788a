"""Data modules: charged particles, frames of molecules with energies and forces, QM9, small molecules."""

from .frames import ExtXYZData, FramesData, RMD17Data
from .nbody import NBodyData
from .qm9 import QM9Data
from .small_molecules import SmallMoleculesData

__all__ = ["ExtXYZData", "FramesData", "NBodyData", "QM9Data", "RMD17Data", "SmallMoleculesData"]
