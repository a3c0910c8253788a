"""Functions of invariants in which kernels are expanded."""

from plugins.equivariant.bases.mlp import KernelMLP
from plugins.equivariant.bases.polynomial import PolynomialFeatures

__all__ = ["KernelMLP", "PolynomialFeatures"]
