"""MARDM: a masked autoregressive transformer over continuous latents, each drawn by a small diffusion."""

from .autoencoder import MotionAutoencoder
from .head import DDPMHead, DiffusionMLP, SiTHead
from .length import LengthPredictor
from .masking import corrupt, masked_count, random_mask, ranks, unmasking_counts
from .method import MARDM
from .transformer import MaskedTransformer

__all__ = [
    "MARDM",
    "DDPMHead",
    "DiffusionMLP",
    "LengthPredictor",
    "MaskedTransformer",
    "MotionAutoencoder",
    "SiTHead",
    "corrupt",
    "masked_count",
    "random_mask",
    "ranks",
    "unmasking_counts",
]
