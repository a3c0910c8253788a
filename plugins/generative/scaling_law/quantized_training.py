"""Training with floating-point quantized matrix products: block-scaled rounding with straight-through gradients."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from plugins.generative.quantization.floating_point import FPFormat, grid_step

__all__ = ["PAPER_TARGETS", "TARGETS", "BlockQuantizer", "QuantizedLinear"]

TARGETS = ("input", "weight", "output_grad", "weight_backward", "output_grad_weight", "input_backward")
"""The operands of a linear layer's three products, P1 to P6 of Sun et al. 2025 (arXiv:2501.02423, Figure 2a):
Y = X Wᵀ (P1, P2), dX = dY W (P3, P4), dW = dYᵀ X (P5, P6)."""

PAPER_TARGETS = ("weight", "weight_backward", "input_backward")
"""P2 + P4 + P6: what the published scaling law was fitted with."""


class BlockQuantizer(nn.Module):
    """Rounds to a floating-point format with one scale for every block of elements along an axis (their eq. 7).

    The scale puts the block's largest magnitude on the format's largest value. Only the split of the format matters;
    its bias is absorbed by the scale.

    Args:
        formats: one format, or one for each entry of the leading axis of what is quantized (several runs side by side).
        block_size: elements that share a scale; at least 1. An axis that it does not divide ends in a shorter block.
    """

    min_normal: Tensor
    ulp: Tensor
    max_value: Tensor

    def __init__(self, formats: FPFormat | Sequence[FPFormat], block_size: int) -> None:
        super().__init__()
        if block_size < 1:
            raise ValueError(f"block_size={block_size}: it must be at least 1")
        single = isinstance(formats, FPFormat)
        given = [formats] if isinstance(formats, FPFormat) else list(formats)
        if not given:
            raise ValueError("formats is empty: give at least one")
        self.formats = tuple(FPFormat(f.exponent_bits, f.mantissa_bits, specials=f.specials) for f in given)
        self.block_size = block_size
        for name, values in (
            ("min_normal", [f.min_normal for f in self.formats]),
            ("ulp", [2.0**-f.mantissa_bits for f in self.formats]),
            ("max_value", [f.max_value for f in self.formats]),
        ):
            self.register_buffer(name, torch.tensor(values[0] if single else values), persistent=False)

    def forward(self, x: Tensor, axis: int = -1) -> Tensor:
        """x on its grid, same shape; blocks run along ``axis``. No gradient."""
        x = x.detach().movedim(axis, -1)
        length = x.shape[-1]
        block = min(self.block_size, length)
        padded = nn.functional.pad(x, (0, -length % block)) if length % block else x
        blocks = padded.unflatten(-1, (-1, block))
        shape = self.max_value.shape + (1,) * (blocks.ndim - self.max_value.ndim)
        top, low, ulp = (p.to(x.dtype).view(shape) for p in (self.max_value, self.min_normal, self.ulp))
        largest = blocks.abs().amax(-1, keepdim=True)
        # A block of zeros, or of values too small for their reciprocal, is left to round to zero.
        scale = torch.where(largest > torch.finfo(x.dtype).tiny * top * 4, top / largest, 1.0)
        scaled = blocks * scale
        step = grid_step(scaled, low, ulp)
        rounded = (scaled / step).round_().mul_(step).div_(scale).flatten(-2)
        return rounded[..., :length].movedim(-1, axis)


class _QuantizedProduct(torch.autograd.Function):
    """Y = X Wᵀ with each operand of the forward and the two backward products quantized where asked."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, quantizer: BlockQuantizer, targets: frozenset[str]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.quantizer, ctx.targets = quantizer, targets
        x = quantizer(x, -1) if "input" in targets else x
        weight = quantizer(weight, -1) if "weight" in targets else weight
        return x @ weight.mT

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        quantizer, targets = ctx.quantizer, ctx.targets
        grad_x = grad_weight = None
        # Blocks run along the axis that each product sums over, so that hardware can apply the scale to partial sums.
        if ctx.needs_input_grad[0]:
            left = quantizer(grad, -1) if "output_grad" in targets else grad
            grad_x = left @ (quantizer(weight, -2) if "weight_backward" in targets else weight)
        if ctx.needs_input_grad[1]:
            left = quantizer(grad, -2) if "output_grad_weight" in targets else grad
            grad_weight = left.mT @ (quantizer(x, -2) if "input_backward" in targets else x)
        return grad_x, grad_weight, None, None


class QuantizedLinear(nn.Module):
    """A linear layer, or R of them side by side, trained through quantized products.

    Master weights, biases and accumulations stay in the layer's own precision; gradients pass straight through the
    rounding.

    Args:
        in_features, out_features: as for ``nn.Linear``.
        formats: one format: weight (O, I), input (n, I). A sequence of R: weight (R, O, I), input (R, n, I), member r
            in its own format, all starting from the same weights. An integer R: R members in full precision.
        block_size: of the scales.
        targets: which operands are quantized, from :data:`TARGETS`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        formats: FPFormat | Sequence[FPFormat] | int,
        block_size: int = 128,
        targets: Collection[str] = PAPER_TARGETS,
    ) -> None:
        super().__init__()
        if unknown := sorted(set(targets) - set(TARGETS)):
            raise ValueError(f"targets {unknown} do not exist; choose from {list(TARGETS)}")
        members: tuple[int, ...]
        if isinstance(formats, int):
            members, self.quantizer, self.targets = (formats,), None, frozenset()
        else:
            members = () if isinstance(formats, FPFormat) else (len(formats),)
            self.quantizer, self.targets = BlockQuantizer(formats, block_size), frozenset(targets)
        bound = 1 / math.sqrt(in_features)
        weight = torch.empty(out_features, in_features).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight.expand(*members, -1, -1).clone())
        self.bias = nn.Parameter(torch.zeros(*members, 1, out_features))

    def forward(self, x: Tensor) -> Tensor:
        if self.quantizer is None or not self.targets:
            return x @ self.weight.mT + self.bias
        return _QuantizedProduct.apply(x, self.weight, self.quantizer, self.targets) + self.bias
