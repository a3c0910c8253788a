"""Convolutions over positions and orientations, and the blocks made of them."""

from plugins.equivariant.layers.activation import GELU, gelu_linear, without_parameter_gradients
from plugins.equivariant.layers.conv import PositionOrientationConv
from plugins.equivariant.layers.convnext import ConvNextBlock
from plugins.equivariant.layers.gather import gather_scale_sum
from plugins.equivariant.layers.messages import Messages

__all__ = [
    "GELU",
    "ConvNextBlock",
    "Messages",
    "PositionOrientationConv",
    "gather_scale_sum",
    "gelu_linear",
    "without_parameter_gradients",
]
