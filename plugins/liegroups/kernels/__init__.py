"""Continuous kernels on space and group coordinates."""

from plugins.liegroups.kernels.networks import (
    KERNELS,
    MLP,
    BSpline,
    KernelFactory,
    SeparableKernel,
    Siren,
    Wire,
    cubic_bspline,
    make_kernel_factory,
)

__all__ = [
    "KERNELS", "MLP", "BSpline", "KernelFactory", "SeparableKernel", "Siren", "Wire", "cubic_bspline",
    "make_kernel_factory",
]  # fmt: skip
