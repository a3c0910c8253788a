"""Lengths whose derivatives of every order are finite at zero."""

from __future__ import annotations

import torch
from torch import Tensor


def safe_norm(x: Tensor, dim: int = -1, keepdim: bool = False) -> Tensor:
    """Euclidean norm along `dim`; at the zero vector the value and all its derivatives are zero.

    ``torch.linalg.norm`` has a NaN second derivative there. Near zero the true second derivative, 1/|x|, remains.
    """
    return safe_sqrt(x.square().sum(dim, keepdim))


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root of x >= 0, with zero derivatives at zero."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)
