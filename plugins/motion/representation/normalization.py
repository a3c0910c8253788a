"""Normalisation by groups: every number has its own mean, but shares the scale of its group."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

BIASED = ("turn", "velocity", "height", "contacts")


class Normalizer(nn.Module):
    """(x − mean) / std with the statistics as buffers, so that they travel with a model and its checkpoint.

    Args:
        mean, std: (D,); std positive.

    Raises:
        ValueError: the shapes differ or a standard deviation is not positive.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        mean, std = (torch.as_tensor(x, dtype=torch.float32) for x in (mean, std))
        if mean.shape != std.shape or mean.ndim != 1:
            raise ValueError(f"mean {tuple(mean.shape)} and std {tuple(std.shape)} must both be (D,)")
        if not bool((std > 0).all()):
            raise ValueError(f"std must be positive; it is {std.min():.3g} at {int(std.argmin())}")
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @classmethod
    def fit(cls, features: Tensor, groups: Mapping[str, slice], feat_bias: float = 1.0) -> Normalizer:
        """Statistics of features (N, D): means of each column, standard deviations averaged within each group.

        Args:
            groups: name → columns, as ``Essential.groups``; together they cover D.
            feat_bias: the standard deviations of turn, velocity, height and contacts are divided by it, which
                amplifies them. The evaluators of Guo et al. (2022) use 5; generators 1.

        Raises:
            ValueError: no rows, or a bias that is not positive.
        """
        if features.ndim != 2 or not len(features):
            raise ValueError(f"features must be (N, D) with at least one row, not {tuple(features.shape)}")
        if not feat_bias > 0:
            raise ValueError(f"feat_bias must be positive, not {feat_bias}")
        x = features.double()
        mean, each = x.mean(0), x.std(0, correction=0)
        std = torch.ones_like(each)
        for name, columns in groups.items():
            shared = each[columns].mean()
            # a group that never varies keeps its scale
            std[columns] = shared / (feat_bias if name in BIASED else 1.0) if shared > 1e-8 else 1.0
        return cls(mean, std)

    def normalize(self, x: Tensor) -> Tensor:
        """Features (…, D) with zero mean and group-wise unit scale."""
        return (x - self.mean.to(x)) / self.std.to(x)

    def denormalize(self, x: Tensor) -> Tensor:
        """The inverse of ``normalize``."""
        return x * self.std.to(x) + self.mean.to(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalize(x)
