"""Continuous kernels on space and group coordinates."""

from plugins.liegroups.kernels.networks import (
    MLP,
    BSpline,
    DepthwiseKernel,
    KernelFactory,
    SeparableKernel,
    Siren,
    Wire,
    cubic_bspline,
)
from plugins.liegroups.kernels.polar_spline import PolarSpline, product_kernel

__all__ = [
    "BSpline",
    "DepthwiseKernel",
    "KernelFactory",
    "MLP",
    "PolarSpline",
    "SeparableKernel",
    "Siren",
    "Wire",
    "cubic_bspline",
    "product_kernel",
]
