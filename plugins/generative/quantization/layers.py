"""The layers that are quantized, and how their inputs look as rows of a matrix product."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plugins.generative.quantization.quantizer import Quantizer

__all__ = ["QUANTIZABLE", "QuantizedLayer", "channel_axis", "input_rows", "quantizable_layers", "weight_rows"]

QUANTIZABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)


def quantizable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Linear, Conv1d and Conv2d layers by their (first) name in ``model``; a shared layer appears once."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QUANTIZABLE)}


def channel_axis(layer: nn.Module) -> int:
    """Axis of the input's channels, counted from the end."""
    return -1 if isinstance(layer, nn.Linear) else -1 - len(layer.kernel_size)


def weight_rows(layer: nn.Module) -> Tensor:
    """The weight as the matrix of its product: (O, K) with K = inputs a group × kernel."""
    return layer.weight.detach().flatten(1)


def input_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """Inputs as the rows the weight multiplies: (groups, n, K), n counting batch and output positions.

    A convolution's rows are its patches, padding included.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, layer.in_features)
    spatial = len(layer.kernel_size)
    if x.ndim == spatial + 1:
        x = x[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    if spatial == 1:
        x, kernel, stride, dilation = x[:, :, None], (1, *kernel), (1, *stride), (1, *dilation)
    patches = F.unfold(x, kernel, dilation=dilation, stride=stride)  # (B, C·kernel, positions)
    groups = layer.groups
    rows = patches.view(len(patches), groups, -1, patches.shape[-1])
    return rows.permute(1, 0, 3, 2).flatten(1, 2)


class QuantizedLayer(nn.Module):
    """A Linear or Conv layer with its weight, and where asked its input, held on low-bit grids (in simulation).

    The original layer stays inside, untouched, as ``original``; only the product uses the rounded weight, which stands
    as ``weight`` so that code reading a layer's weight sees the one in use.

    Args:
        original: the layer.
        weight: the rounded weight, same shape as the layer's.
        input_quantizers: one for each part of the input along its channel axis; none leaves the input alone.
        parts: channels of each part; sums to the layer's input channels.
    """

    weight: Tensor

    def __init__(
        self,
        original: nn.Module,
        weight: Tensor,
        input_quantizers: list[Quantizer] | None = None,
        parts: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(original, QUANTIZABLE):
            raise ValueError(f"{type(original).__name__} cannot be quantized; Linear, Conv1d and Conv2d can")
        if weight.shape != original.weight.shape:
            raise ValueError(f"weight has shape {tuple(weight.shape)}, the layer's {tuple(original.weight.shape)}")
        quantizers = input_quantizers or []
        channels = original.in_features if isinstance(original, nn.Linear) else original.in_channels
        self.parts = parts or (channels,)
        if quantizers and (len(quantizers) != len(self.parts) or sum(self.parts) != channels):
            raise ValueError(
                f"{len(quantizers)} input quantizers for parts {self.parts} of {channels} channels: need one for each "
                "part, and parts that sum to the channels"
            )
        self.original = original
        self.register_buffer("weight", weight.detach().clone())
        self.input_quantizers = nn.ModuleList(quantizers)

    @property
    def bias(self) -> Tensor | None:
        return self.original.bias

    def quantize_input(self, x: Tensor) -> Tensor:
        """The input on its grids; same shape."""
        if not self.input_quantizers:
            return x
        if len(self.input_quantizers) == 1:
            return self.input_quantizers[0](x)
        axis = channel_axis(self.original)
        pieces = x.split(self.parts, dim=axis)
        return torch.cat([q(piece) for q, piece in zip(self.input_quantizers, pieces, strict=True)], dim=axis)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quantize_input(x)
        weight = self.weight.to(x.dtype)
        if isinstance(self.original, nn.Linear):
            return F.linear(x, weight, self.original.bias)
        return self.original._conv_forward(x, weight, self.original.bias)
