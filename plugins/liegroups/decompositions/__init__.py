"""Factorisations of GL+(n) and SL(n) that reach every element; the semidirect one lives with its group."""

from plugins.liegroups.decompositions.factorisations import KAK, QR, CartanPolar, Decomposition
from plugins.liegroups.groups.semidirect import SemidirectProduct

__all__ = ["KAK", "QR", "CartanPolar", "Decomposition", "SemidirectProduct"]
