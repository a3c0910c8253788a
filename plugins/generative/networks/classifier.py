"""A small convolutional classifier whose penultimate layer serves as a feature space."""

from __future__ import annotations

import math

from torch import Tensor, nn


class ConvClassifier(nn.Module):
    """Two convolutions (the second halves the resolution), one hidden layer, one linear read-out.

    Args:
        channels: Channels of the images.
        image_size: Height and width of the images.
        num_classes: Number of classes.
        width: Channels of the first convolution; the second has twice as many.
        feature_size: Size of the hidden layer, the space of `features`.
    """

    def __init__(
        self, channels: int = 1, image_size: int = 8, num_classes: int = 10, width: int = 16, feature_size: int = 32
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(2 * width * math.ceil(image_size / 2) ** 2, feature_size),
            nn.SiLU(),
        )
        self.read_out = nn.Linear(feature_size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> logits (B, num_classes); `features(x)` gives (B, feature_size)."""
        return self.read_out(self.features(x))
