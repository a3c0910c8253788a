"""Scores of a set of images against real ones nobody trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.generative.metrics.classification import class_coverage, class_shares, classifier_confidence
from plugins.generative.metrics.distances import frechet_distance, sliced_wasserstein
from plugins.generative.networks import ConvClassifier


class Reference:
    """Compares images with `real`, in pixels and in a classifier's features.

    Features are divided by their standard deviation over `scale_on`, so that the Fréchet distance does not depend on
    how far the classifier's training has scaled them.

    Args:
        classifier: Gives `features(x)` (B, F) and logits (B, classes).
        real: (n, C, H, W) images to be compared with, held out from training.
        scale_on: (m, C, H, W) images that set the scale of the features.
    """

    def __init__(self, classifier: ConvClassifier, real: Tensor, scale_on: Tensor) -> None:
        self.classifier = classifier
        self.real = real
        with torch.no_grad():
            self.scale = classifier.features(scale_on).double().std(dim=0).clamp_min(1e-6)
        self.real_features = self._features(real)

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        return self.classifier.features(images).double() / self.scale

    def distances(self, images: Tensor) -> dict[str, float]:
        """`sliced_wasserstein` (pixels in [-1, 1]) and `frechet_distance` (features) from the real images."""
        return {
            "sliced_wasserstein": sliced_wasserstein(images, self.real),
            "frechet_distance": frechet_distance(self._features(images), self.real_features),
        }

    @torch.no_grad()
    def classification(self, images: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """`classifier_confidence`, `class_coverage` and `class_min_share` of images, and with the labels (B,) they
        were meant to have `class_accuracy`, the share that the classifier recognises."""
        logits = self.classifier(images)
        predictions = logits.argmax(dim=1)
        scores = {
            "classifier_confidence": classifier_confidence(logits),
            "class_coverage": class_coverage(predictions, self.classifier.num_classes),
            "class_min_share": class_shares(predictions, self.classifier.num_classes).min().item(),
        }
        if labels is not None:
            scores["class_accuracy"] = (predictions == labels).double().mean().item()
        return scores
