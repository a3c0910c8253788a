"""Equivariant layers between images and fields on a group."""

from plugins.liegroups.layers.base import GroupLayer
from plugins.liegroups.layers.grid import WINDOWS, kernel_offsets, window
from plugins.liegroups.layers.group_conv import GroupConv
from plugins.liegroups.layers.lifting import LiftingConv, ProjectionConv
from plugins.liegroups.layers.pooling import FieldNorm, GroupPool
from plugins.liegroups.layers.separable import DepthwiseGroupConv, SeparableGroupConv

__all__ = [
    "DepthwiseGroupConv",
    "FieldNorm",
    "GroupConv",
    "GroupLayer",
    "GroupPool",
    "LiftingConv",
    "ProjectionConv",
    "SeparableGroupConv",
    "WINDOWS",
    "kernel_offsets",
    "window",
]
