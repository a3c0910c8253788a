"""Networks built from the layers, and the baselines they are held against."""

from plugins.liegroups.networks.baselines import (
    AugmentedClassifier,
    ConvClassifier,
    escnn_classifier,
    regular_classifier,
)
from plugins.liegroups.networks.classifier import GroupBlock, GroupClassifier

__all__ = [
    "AugmentedClassifier", "ConvClassifier", "GroupBlock", "GroupClassifier", "escnn_classifier", "regular_classifier",
]  # fmt: skip
