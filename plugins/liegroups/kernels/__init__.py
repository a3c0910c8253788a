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

__all__ = [
    "MLP", "BSpline", "DepthwiseKernel", "KernelFactory", "SeparableKernel", "Siren", "Wire", "cubic_bspline",
]  # fmt: skip
