"""Transformers over motion: masks from lengths, tokens of frames, time embeddings, encoder stacks."""

from .masks import check_lengths, computed_frames, length_mask, pad_frames, token_lengths
from .tokens import Patches, TimestepEmbedding, positions, sinusoidal
from .transformer import ACTIVATIONS, Transformer, TransformerLayer

__all__ = [
    "ACTIVATIONS",
    "Patches",
    "TimestepEmbedding",
    "Transformer",
    "TransformerLayer",
    "check_lengths",
    "computed_frames",
    "length_mask",
    "pad_frames",
    "positions",
    "sinusoidal",
    "token_lengths",
]
