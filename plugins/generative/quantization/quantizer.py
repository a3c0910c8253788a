"""A format put to a scale: rounding whole tensors onto a low-bit grid, with a straight-through gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.generative.quantization.formats import Format, FPFormat

__all__ = ["Quantizer", "absmax_quantizer", "straight_through"]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, quantized: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        return quantized

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None


def straight_through(x: Tensor, quantized: Tensor, inside: Tensor) -> Tensor:
    """``quantized`` exactly, with the gradient of the identity to ``x`` where the boolean ``inside`` holds, else 0.

    (``x + (quantized - x).detach()`` would round the sum, and the values would leave the grid.)
    """
    return _StraightThrough.apply(x, quantized, inside)


class Quantizer(nn.Module):
    """x -> shift + scale · format.quantize((x - shift) / scale).

    Args:
        format: an ``FPFormat`` or ``INTFormat``.
        scale: positive; a number or 0-d tensor for the whole tensor, or of shape (C,) with ``channel_axis``.
            For a floating-point format it is the same thing as a real-valued exponent bias, b - log2(scale).
        channel_axis: axis of x along which ``scale`` varies.
        shift: centre of the grid, same shapes as ``scale``; 0 where absent (the asymmetric integer grid uses it).

    The gradient is the identity inside the representable range and zero where x is clipped.

    Raises:
        ValueError: for a scale that is not finite and positive, or of a shape that does not fit ``channel_axis``.
    """

    scale: Tensor
    shift: Tensor | None

    def __init__(
        self,
        format: Format,
        scale: Tensor | float,
        channel_axis: int | None = None,
        shift: Tensor | float | None = None,
    ) -> None:
        super().__init__()
        scale = torch.as_tensor(scale, dtype=torch.get_default_dtype() if not torch.is_tensor(scale) else None)
        if scale.ndim != (0 if channel_axis is None else 1):
            wanted = "a single number" if channel_axis is None else "shape (channels,)"
            raise ValueError(f"scale has shape {tuple(scale.shape)}; with channel_axis={channel_axis} give {wanted}")
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise ValueError("scale must be finite and positive; for an all-zero channel use 1")
        self.format = format
        self.channel_axis = channel_axis
        self.register_buffer("scale", scale.detach().clone())
        if shift is not None:
            shift = torch.as_tensor(shift).to(scale).expand_as(scale).clone()
        self.register_buffer("shift", shift)

    @property
    def bias(self) -> Tensor:
        """The real-valued exponent bias that ``scale`` amounts to (floating-point formats)."""
        if not isinstance(self.format, FPFormat):
            raise AttributeError(f"{self.format.name} has no exponent, hence no bias")
        return self.format.bias - torch.log2(self.scale)

    def _aligned(self, parameter: Tensor, x: Tensor) -> Tensor:
        if self.channel_axis is None:
            return parameter
        shape = [1] * x.ndim
        shape[self.channel_axis] = -1
        return parameter.view(shape)

    def forward(self, x: Tensor) -> Tensor:
        scale = self._aligned(self.scale, x).to(x.dtype)
        shift = None if self.shift is None else self._aligned(self.shift, x).to(x.dtype)
        units = x.detach() / scale if shift is None else (x.detach() - shift) / scale
        quantized = self.format.quantize(units) * scale
        if shift is not None:
            quantized = quantized + shift
        if torch.is_grad_enabled() and x.requires_grad:
            inside = (units >= self.format.min_value) & (units <= self.format.max_value)
            return straight_through(x, quantized, inside)
        return quantized

    def step(self, x: Tensor) -> Tensor:
        """Spacing of the grid around each element of x; same shape."""
        scale = self._aligned(self.scale, x).to(x.dtype)
        units = x.detach() / scale
        if self.shift is not None:
            units = units - self._aligned(self.shift, x).to(x.dtype) / scale
        return self.format.step(units) * scale

    def limits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Least and largest representable value, broadcastable against x."""
        scale = self._aligned(self.scale, x).to(x.dtype)
        shift = 0.0 if self.shift is None else self._aligned(self.shift, x).to(x.dtype)
        return scale * self.format.min_value + shift, scale * self.format.max_value + shift

    def extra_repr(self) -> str:
        axis = "" if self.channel_axis is None else f", channel_axis={self.channel_axis}"
        return self.format.name + axis + ("" if self.shift is None else ", asymmetric")


def absmax_quantizer(x: Tensor, format: Format, channel_axis: int | None = None) -> Quantizer:
    """The scale that puts the largest |x| (of each channel) on the format's largest value; 1 where all are zero."""
    if x.numel() == 0:
        raise ValueError("x is empty: there is nothing to take a scale from")
    magnitude = x.detach().abs()
    top = magnitude.amax() if channel_axis is None else magnitude.transpose(0, channel_axis).flatten(1).amax(1)
    if not bool(torch.isfinite(top).all()):
        raise ValueError("x holds NaN or infinity: no scale fits it")
    scale = top / format.max_value
    # A subnormal scale would lose the quotient's precision, and zero has none.
    return Quantizer(format, torch.where(scale > torch.finfo(scale.dtype).tiny, scale, 1.0), channel_axis)
