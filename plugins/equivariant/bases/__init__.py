"""Functions of invariants in which kernels are expanded."""

from plugins.equivariant.bases.mlp import KernelMLP
from plugins.equivariant.bases.polynomial import PolynomialFeatures
from plugins.equivariant.bases.zonal import ZonalBasis, zonal_polynomials

__all__ = ["KernelMLP", "PolynomialFeatures", "ZonalBasis", "zonal_polynomials"]
