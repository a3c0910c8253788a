"""What a classifier says about generated images."""

from __future__ import annotations

import torch
from torch import Tensor


def classifier_confidence(logits: Tensor) -> float:
    """Mean probability of the most probable class; logits (n, classes)."""
    return logits.double().softmax(dim=1).amax(dim=1).mean().item()


def class_shares(predictions: Tensor, num_classes: int) -> Tensor:
    """Share of each class among integer predictions (n,): float64 (num_classes,), summing to one."""
    if predictions.numel() == 0:
        raise ValueError("predictions is empty: there are no shares of nothing")
    return torch.bincount(predictions, minlength=num_classes).double() / len(predictions)


def class_coverage(predictions: Tensor, num_classes: int, min_share: float = 0.02) -> int:
    """How many classes hold at least `min_share` of the integer predictions (n,)."""
    return int((class_shares(predictions, num_classes) >= min_share).sum())
