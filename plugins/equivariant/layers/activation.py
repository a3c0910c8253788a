"""GELU whose second derivative, which training on forces needs, is as cheap as its first."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return nn.functional.gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _GeluBackward.apply(grad, *ctx.saved_tensors)


class _GeluBackward(torch.autograd.Function):
    """(g, x) → g gelu'(x), gelu'(x) = Phi(x) + x phi(x)."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return torch.ops.aten.gelu_backward(grad, x)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _GeluBackward.apply(outer, x), outer * grad * _curvature(x)
        curvature = x.square().mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
        curvature.mul_(x.square().neg_().add_(2)).mul_(outer).mul_(grad)
        return torch.ops.aten.gelu_backward(outer, x), curvature


def _curvature(x: Tensor) -> Tensor:
    """gelu''(x) = (2 - x^2) phi(x)."""
    return (2 - x.square()) * (-0.5 * x.square()).exp() / math.sqrt(2 * math.pi)


class GELU(nn.Module):
    """Exact Gaussian error linear unit, x Phi(x), differentiable any number of times."""

    def forward(self, x: Tensor) -> Tensor:
        return _Gelu.apply(x)
