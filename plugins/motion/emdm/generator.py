"""EMDM's generator: tokens of time, text and latent, then the frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..networks import Patches, TimestepEmbedding, Transformer, positions


def latent_mapping(latent: int, width: int, depth: int = 4) -> nn.Sequential:
    """``latent -> width`` and ``depth`` further layers of that width, each with LeakyReLU 0.2."""
    layers: list[nn.Module] = []
    for inputs in [latent] + [width] * depth:
        layers += [nn.Linear(inputs, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


class EMDMGenerator(nn.Module):
    """``(x_{t+1}, t, z, text) -> x0``: an encoder over ``[time, text, z, frames]`` (Zhou et al., arXiv:2312.02256).

    Args:
        features, frames, text_dim: widths of a frame and of a text, and the longest clip.
        latent: width of z.
        width, layers, heads, hidden, dropout, activation, norm: of the :class:`~plugins.motion.networks.Transformer`.
        mapping: layers of z's mapping after the first.
        patch: frames a token; 1 in the paper.
        overlap: blend the frames that neighbouring tokens write.

    The published one attends to padding; here padding is masked as a key and zeroed at the input.
    """

    def __init__(
        self,
        features: int,
        frames: int,
        text_dim: int,
        latent: int = 64,
        width: int = 1024,
        layers: int = 12,
        heads: int = 32,
        hidden: int = 1024,
        dropout: float = 0.1,
        activation: str = "selu",
        norm: str = "post",
        mapping: int = 4,
        patch: int = 1,
        overlap: bool = False,
    ) -> None:
        super().__init__()
        if frames % patch:
            raise ValueError(f"frames = {frames} must be a multiple of patch = {patch}")
        self.features, self.frames, self.patch, self.latent = features, frames, patch, latent
        self.patches = Patches(features, width, patch, overlap=overlap)
        self.time, self.text = TimestepEmbedding(width), nn.Linear(text_dim, width)
        self.mapping = latent_mapping(latent, width, mapping)
        self.transformer = Transformer(width, layers, heads, hidden, activation, dropout, norm)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("positions", positions(3 + frames // patch, width), persistent=False)

    def forward(self, x: Tensor, t: Tensor, z: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), t (B,) in 0 … steps - 1, z (B, latent), text (B, E), mask (B, T) bool -> x0 (B, T, D)."""
        prefix = torch.stack([self.time(t), self.text(text), self.mapping(z)], dim=1)
        tokens, seen = self.patches.tokens(x * mask[..., None]), self.patches.seen(mask)
        hidden = self.transformer.prefixed(prefix, tokens, seen, self.positions, self.dropout)
        return self.patches.frames(hidden[:, 3:], seen)
