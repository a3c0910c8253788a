"""The block that mixes channels around a depthwise convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.equivariant.layers.activation import gelu_linear


class ConvNextBlock(nn.Module):
    """x + s * Linear(GELU(Linear(LayerNorm(conv(x))))), with the norm over channels (Liu et al., CVPR 2022).

    Args:
        conv: depthwise convolution, called with x and whatever else the block is called with.
        channels: C.
        widening: hidden width over C.
        layer_scale: initial value of the learnt scale s of each channel; no scale when None.
    """

    def __init__(self, conv: nn.Module, channels: int, widening: int = 4, layer_scale: float | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, widening * channels)
        self.narrow = nn.Linear(widening * channels, channels)
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((channels,), float(layer_scale)))

    def forward(self, x: Tensor, *conv_args: object) -> Tensor:
        return x + self.mix(self.conv(x, *conv_args))

    def mix(self, y: Tensor) -> Tensor:
        """What the block adds to its input, given the convolution's output."""
        (y,) = gelu_linear(self.widen(self.norm(y)), [self.narrow.weight], self.narrow.bias)
        return y if self.scale is None else y * self.scale

    def read(self, x: Tensor, y: Tensor, head: nn.Linear) -> Tensor:
        """``head`` of the block's output, without making that output: two linear maps in a row are one.

        Args:
            x: the block's input.
            y: the convolution's output.
        """
        weight = head.weight if self.scale is None else head.weight * self.scale
        (out,) = gelu_linear(self.widen(self.norm(y)), [weight @ self.narrow.weight], weight @ self.narrow.bias)
        return head(x) + out
