"""GELU, alone and in front of a linear map, at the speed of its arithmetic.

Training on forces differentiates twice, and a GELU written with stock operations then makes some ten passes over memory
for each of the passes its values need. Here rows are taken a cacheful at a time, activations are recomputed in place
of being stored, and the second derivative is a closed form:
    gelu(x) = x Phi(x),    gelu'(x) = Phi(x) + x phi(x),    gelu''(x) = (2 - x^2) phi(x).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

CHUNK = 1 << 17
"""Numbers handled at a time by each thread of a CPU."""

_parameter_gradients = True


@contextmanager
def without_parameter_gradients() -> Iterator[None]:
    """Inside, `gelu_linear` makes no gradients of its weights: for derivatives with respect to positions alone.

    An autograd function cannot know which of its gradients will be used, and forces need none of the parameters'.
    """
    global _parameter_gradients
    before, _parameter_gradients = _parameter_gradients, False
    try:
        yield
    finally:
        _parameter_gradients = before


def gelu_linear(x: Tensor, weights: Sequence[Tensor], bias: Tensor | None = None) -> list[Tensor]:
    """Linear maps of gelu(x), each of ``weights`` applied to the same activations.

    Args:
        x: (..., B).
        weights: matrices (C_k, B).
        bias: (C_0,), for the first map only.

    Returns:
        One (..., C_k) for each weight. Differentiable any number of times.
    """
    flat = x.reshape(-1, x.shape[-1])
    out = _GeluLinear.apply(flat, bias, *weights)
    return [y.view(*x.shape[:-1], y.shape[-1]) for y in out]


class GELU(nn.Module):
    """Exact Gaussian error linear unit, differentiable any number of times."""

    def forward(self, x: Tensor) -> Tensor:
        return _Gelu.apply(x)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, *weights)
        ctx.has_bias = bias is not None
        outs = tuple(x.new_empty(len(x), len(w)) for w in weights)
        for rows in _chunks(x):
            active = nn.functional.gelu(x[rows])
            for k, (out, w) in enumerate(zip(outs, weights, strict=True)):
                if k == 0 and bias is not None:
                    torch.addmm(bias, active, w.T, out=out[rows])
                else:
                    torch.mm(active, w.T, out=out[rows])
        return outs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        wanted = [_parameter_gradients and need for need in ctx.needs_input_grad[1:]]
        on_bias = grads[0].sum(0) if ctx.has_bias and wanted[0] else None
        if torch.is_grad_enabled():
            on_x = _GeluLinearBackward.apply(x, *weights, *grads)
            active = _Gelu.apply(x) if any(wanted[1:]) else None
            on_weights = [g.T @ active if need else None for g, need in zip(grads, wanted[1:], strict=True)]
            return on_x, on_bias, *on_weights
        on_weights = [torch.zeros_like(w) if need else None for w, need in zip(weights, wanted[1:], strict=True)]
        on_x = torch.empty_like(x)
        for rows in _chunks(x):
            torch.ops.aten.gelu_backward.grad_input(_pull(grads, weights, rows), x[rows], grad_input=on_x[rows])
            active = nn.functional.gelu(x[rows])
            for total, grad in zip(on_weights, grads, strict=True):
                if total is not None:
                    total.addmm_(grad[rows].T, active)
        return on_x, on_bias, *on_weights


class _GeluLinearBackward(torch.autograd.Function):
    """(x, weights, grads) → gelu'(x) * sum_k grads_k weights_k."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights_grads: Tensor) -> Tensor:
        count = len(weights_grads) // 2
        weights, grads = weights_grads[:count], weights_grads[count:]
        pulled, out = torch.empty_like(x), torch.empty_like(x)
        for rows in _chunks(x):
            mine = _pull(grads, weights, rows, out=pulled[rows])
            torch.ops.aten.gelu_backward.grad_input(mine, x[rows], grad_input=out[rows])
        ctx.save_for_backward(x, *weights_grads)
        ctx.pulled = pulled  # neither input nor output: a third derivative makes it anew
        return out

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights_grads = ctx.saved_tensors
        count = len(weights_grads) // 2
        weights, grads = weights_grads[:count], weights_grads[count:]
        if torch.is_grad_enabled():
            pulled = sum(g @ w for g, w in zip(grads, weights, strict=True))
            slope = _GeluBackward.apply(outer, x)
            on_weights = [g.T @ slope for g in grads]
            return outer * pulled * _curvature(x), *on_weights, *[slope @ w.T for w in weights]
        on_x = torch.empty_like(x)
        on_weights = [torch.zeros_like(w) if _parameter_gradients else None for w in weights]
        on_grads = [torch.empty_like(g) for g in grads]
        for rows in _chunks(x):
            torch.mul(_fast_curvature(x[rows]).mul_(outer[rows]), ctx.pulled[rows], out=on_x[rows])
            slope = torch.ops.aten.gelu_backward(outer[rows], x[rows])
            for total, mine, grad, w in zip(on_weights, on_grads, grads, weights, strict=True):
                torch.mm(slope, w.T, out=mine[rows])
                if total is not None:
                    total.addmm_(grad[rows].T, slope)
        return on_x, *on_weights, *on_grads


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return nn.functional.gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _GeluBackward.apply(grad, *ctx.saved_tensors)


class _GeluBackward(torch.autograd.Function):
    """(g, x) → g gelu'(x)."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return torch.ops.aten.gelu_backward(grad, x)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _GeluBackward.apply(outer, x), outer * grad * _curvature(x)
        return torch.ops.aten.gelu_backward(outer, x), _fast_curvature(x).mul_(outer).mul_(grad)


def _curvature(x: Tensor) -> Tensor:
    return (2 - x.square()) * (-0.5 * x.square()).exp() / math.sqrt(2 * math.pi)


def _fast_curvature(x: Tensor) -> Tensor:
    """The same in two buffers. With y = -x^2 / 2, exp(y) = s / (1 - s) for s = sigmoid(y) <= 1/2, without
    cancellation: a sigmoid is the faster of the two, and slow denormal numbers stay out."""
    y = (x * x).mul_(-0.5).clamp_(min=-80.0)
    s = torch.sigmoid(y)
    y.add_(1).mul_(s).mul_(math.sqrt(2 / math.pi))
    return y.div_(s.neg_().add_(1))


def _pull(grads: Sequence[Tensor], weights: Sequence[Tensor], rows: slice, out: Tensor | None = None) -> Tensor:
    """sum_k grads_k weights_k for some rows."""
    total = torch.mm(grads[0][rows], weights[0], out=out)
    for grad, weight in zip(grads[1:], weights[1:], strict=True):
        total.addmm_(grad[rows], weight)
    return total


def _chunks(x: Tensor) -> list[slice]:
    if x.device.type != "cpu":
        return [slice(0, len(x))]
    step = max(1, CHUNK * torch.get_num_threads() // x.shape[1])
    return [slice(start, start + step) for start in range(0, len(x), step)]
