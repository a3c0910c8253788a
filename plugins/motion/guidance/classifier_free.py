"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598) with the zero vector as the absent condition."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def drop_condition(condition: Tensor, rate: float) -> Tensor:
    """Each row of ``condition`` (B, E) becomes the zero vector with probability ``rate``."""
    if rate == 0:
        return condition
    kept = torch.rand(len(condition), device=condition.device) >= rate
    return condition * kept[:, None]


def combine(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """``u + scale (c - u)``: 0 the unconditional answer, 1 the conditional one, more extrapolates."""
    return torch.lerp(unconditional, conditional, scale)


def guided(answer: Callable[..., Tensor], condition: Tensor, scale: float, *inputs: Tensor) -> Tensor:
    """The guided answer of ``answer(*inputs, condition)``, both branches in one batch and from the same inputs.

    Args:
        answer: called with every input (2B, ...) and the condition (2B, E), or with B rows where one branch suffices.
        condition: (B, E).
        scale: of the guidance; 0 and 1 cost one branch.
        inputs: tensors whose first dimension is B.
    """
    if scale == 1:
        return answer(*inputs, condition)
    if scale == 0:
        return answer(*inputs, torch.zeros_like(condition))
    doubled = [torch.cat([x, x]) for x in inputs]
    both = answer(*doubled, torch.cat([condition, torch.zeros_like(condition)]))
    return combine(*both.chunk(2), scale)
