"""EMDM's discriminators: is x_t the real neighbour of x_{t+1}, or one drawn from the generator's answer?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..networks import Patches, TimestepEmbedding, Transformer, positions


class MLPDiscriminator(nn.Module):
    """Both motions flattened, with time and text, through linear layers with SELU.

    Args:
        features, frames, text_dim: widths of a frame and of a text, and the longest clip.
        widths: of the layers; where a width repeats, the second of the two is normalised in groups.
        time_dim: width of the time embedding.
        group: channels of a normalised group: 32 groups of 1024 and 16 of 512 as published.

    Published widths: 1024, 1024, 512, 512, 256, 64.
    """

    def __init__(
        self,
        features: int,
        frames: int,
        text_dim: int,
        widths: Sequence[int] = (1024, 1024, 512, 512, 256, 64),
        time_dim: int = 128,
        group: int = 32,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths must name at least one layer")
        self.frames = frames
        self.time = TimestepEmbedding(time_dim)
        layers: list[nn.Module] = []
        inputs = 2 * frames * features + time_dim + text_dim
        for width in widths:
            layers.append(nn.Linear(inputs, width))
            if width == inputs:
                if width % group:
                    raise ValueError(f"a repeated width must be a multiple of group = {group}; got {width}")
                layers.append(nn.GroupNorm(width // group, width))
            layers.append(nn.SELU())
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, 1))

    def forward(self, x: Tensor, t: Tensor, x_next: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """x, x_next (B, frames, D), t (B,), text (B, E), mask (B, frames) bool -> logits (B,)."""
        if x.shape[1] != self.frames:
            raise ValueError(f"x has {x.shape[1]} frames; this discriminator reads exactly {self.frames}: pad them")
        pair = torch.cat([x, x_next], dim=-1) * mask[..., None]
        return self.layers(torch.cat([pair.flatten(1), self.time(t), text], dim=1)).squeeze(1)


class EncoderDiscriminator(nn.Module):
    """A transformer over ``[time + text + class token, frames of both motions]``; the class token gives the logit.

    Args:
        features, frames, text_dim: widths of a frame and of a text, and the longest clip.
        width, layers, heads, hidden, dropout, activation, norm: of the :class:`~plugins.motion.networks.Transformer`.
        patch: frames a token.
    """

    def __init__(
        self,
        features: int,
        frames: int,
        text_dim: int,
        width: int = 512,
        layers: int = 4,
        heads: int = 8,
        hidden: int = 1024,
        dropout: float = 0.0,
        activation: str = "selu",
        norm: str = "post",
        patch: int = 1,
    ) -> None:
        super().__init__()
        if frames % patch:
            raise ValueError(f"frames = {frames} must be a multiple of patch = {patch}")
        self.patch = patch
        self.patches = Patches(features, width, patch, inputs=2, answer=False)
        self.time, self.text = TimestepEmbedding(width), nn.Linear(text_dim, width)
        self.token = nn.Parameter(torch.zeros(width))
        self.transformer = Transformer(width, layers, heads, hidden, activation, dropout, norm)
        self.judge = nn.Linear(width, 1)
        self.register_buffer("positions", positions(1 + frames // patch, width), persistent=False)

    def forward(self, x: Tensor, t: Tensor, x_next: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """x, x_next (B, T, D), t (B,), text (B, E), mask (B, T) bool -> logits (B,)."""
        pair = torch.cat([x, x_next], dim=-1) * mask[..., None]
        first = (self.time(t) + self.text(text) + self.token)[:, None]
        hidden = self.transformer.prefixed(first, self.patches.tokens(pair), self.patches.seen(mask), self.positions)
        return self.judge(hidden[:, 0]).squeeze(1)
