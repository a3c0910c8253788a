"""Normalisation of fields and pooling over the group."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.liegroups.haar import Samples


class FieldNorm(nn.Module):
    """Normalises fields [B, C, N, H, W] with statistics pooled over space and group, as equivariance demands.

    ``mode="layer"``: for each image over (C, N, H, W), without affine parameters. ``mode="batch"``: for each channel
    over (B, N, H, W) with running statistics and affine parameters.
    """

    def __init__(self, channels: int, mode: str = "batch", eps: float = 1e-5):
        super().__init__()
        if mode not in ("layer", "batch"):
            raise ValueError(f"mode={mode!r}: choose 'layer' or 'batch'")
        self.mode, self.eps = mode, eps
        self.batch_norm = nn.BatchNorm3d(channels, eps=eps) if mode == "batch" else None

    def forward(self, field: Tensor) -> Tensor:
        if self.batch_norm is not None:
            return self.batch_norm(field)
        return nn.functional.layer_norm(field, field.shape[1:], eps=self.eps)


class GroupPool(nn.Module):
    """Pools fields over the group, and over space with ``space=True``: the invariant end of a network.

    ``mode="max"``; or ``mode="mean"``, the integral over the group (weights of the samples, normalised). [B, C, N, H,
    W] -> [B, C, H, W], or [B, C] with ``space=True``.
    """

    def __init__(self, mode: str = "max", space: bool = True):
        super().__init__()
        if mode not in ("max", "mean"):
            raise ValueError(f"mode={mode!r}: choose 'max' or 'mean'")
        self.mode, self.space = mode, space

    def forward(self, field: Tensor, inp: Samples) -> Tensor:
        if self.mode == "max":
            return field.amax((2, 3, 4) if self.space else 2)
        weight = torch.softmax(inp.log_weight, 0).to(field.dtype)
        pooled = torch.einsum("bcnhw,n->bchw", field, weight)
        return pooled.mean((2, 3)) if self.space else pooled
