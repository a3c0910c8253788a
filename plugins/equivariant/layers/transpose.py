"""Channels first, for matrix products that are batched over channels, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Transpose(torch.autograd.Function):
    """(A, B) → (B, A), contiguous, and so are its gradients: products of strided matrices are slow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.T.contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Transpose.apply(grad)


def channels_first(x: Tensor) -> Tensor:
    """(N, O, C) → (C, N, O)."""
    n, o, c = x.shape
    return _Transpose.apply(x.reshape(n * o, c)).view(c, n, o)


def channels_last(x: Tensor) -> Tensor:
    """(C, N, O) → (N, O, C)."""
    c, n, o = x.shape
    return _Transpose.apply(x.reshape(c, n * o)).view(n, o, c)
