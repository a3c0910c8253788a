"""Networks: a class-conditional U-Net whose encoder and decoder can be called apart, and a small classifier."""

from plugins.generative.networks.classifier import ConvClassifier
from plugins.generative.networks.unet import Features, UNet

__all__ = ["ConvClassifier", "Features", "UNet"]
