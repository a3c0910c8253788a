"""Batch normalisation that does not count padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaskedBatchNorm(nn.Module):
    """BatchNorm over batch and time of (B, L, H) sequences; padded steps neither count nor change.

    Args:
        width: H.
        momentum: weight of the newest batch in the running statistics (torch's convention: 1 − S5's 0.95).
    """

    def __init__(self, width: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, momentum=momentum)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return self.norm(x.flatten(0, 1)).view_as(x)
        valid = self.norm(x[mask])
        return torch.zeros_like(x).index_put((mask,), valid.to(x.dtype))
