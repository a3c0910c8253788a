"""Batched products of matrices with few rows or columns, differentiable any number of times.

The derivatives of a @ b that autograd makes are products of transposed matrices, and theirs again; some of those are
several times slower than the same numbers in another order. Here the three products that occur
    a b,    a b^T,    a^T b
are made by one call each, and the derivatives of each are among them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Product(torch.autograd.Function):
    """(K, O, A), (K, A, C) → a b, (K, O, C)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return torch.bmm(a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        on_a, on_b = ctx.needs_input_grad
        return _RightTransposed.apply(grad, b) if on_a else None, _LeftTransposed.apply(a, grad) if on_b else None


class _RightTransposed(torch.autograd.Function):
    """(K, O, C), (K, A, C) → a b^T, (K, O, A)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return torch.bmm(a, b.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        on_a, on_b = ctx.needs_input_grad
        return _Product.apply(grad, b) if on_a else None, _LeftTransposed.apply(grad, a) if on_b else None


class _LeftTransposed(torch.autograd.Function):
    """(K, O, A), (K, O, C) → a^T b, (K, A, C)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return torch.bmm(a.transpose(1, 2), b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        on_a, on_b = ctx.needs_input_grad
        return _RightTransposed.apply(b, grad) if on_a else None, _Product.apply(a, grad) if on_b else None


def thin_product(a: Tensor, b: Tensor) -> Tensor:
    """a b of (K, O, A) and (K, A, C)."""
    return _Product.apply(a, b)


def right_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a b^T of (K, O, C) and (K, A, C)."""
    return _RightTransposed.apply(a, b)


def left_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a^T b of (K, O, A) and (K, O, C)."""
    return _LeftTransposed.apply(a, b)
