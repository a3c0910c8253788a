"""A class-conditional U-Net in two halves, `encode` and `decode`.

Follows the residual U-Net of DDPM/ADM (Ho et al. 2020; Dhariwal & Nichol 2021) at a size a CPU can train: group
norms, scale-shift conditioning, one skip for each encoder block, attention where asked for. The halves are public
because encoder propagation (`plugins.generative.acceleration`) reuses the first at neighbouring noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Features(NamedTuple):
    """What `UNet.encode` hands to `UNet.decode`: the bottleneck `hidden` and the `skips`, finest first."""

    hidden: Tensor
    skips: tuple[Tensor, ...]

    def detach(self) -> Features:
        """The same features outside the autograd graph."""
        return Features(self.hidden.detach(), tuple(skip.detach() for skip in self.skips))

    def repeat(self, times: int) -> Features:
        """The batch repeated `times` over, whole batches one after another: (B, ...) becomes (times * B, ...)."""
        return Features(
            self.hidden.repeat(times, 1, 1, 1), tuple(skip.repeat(times, 1, 1, 1) for skip in self.skips)
        )


class TimeEmbedding(nn.Module):
    """Sinusoids of `scale * t` at `size // 2` frequencies from 1 down to 1e-4 (Vaswani et al. 2017), then an MLP.

    Args:
        size: Sinusoids, even.
        out_size: Size of the embedding.
        scale: What `t` is multiplied with first: 1000 for t in [0, 1].
    """

    frequencies: Tensor

    def __init__(self, size: int, out_size: int, scale: float = 1000.0) -> None:
        super().__init__()
        if size < 2 or size % 2:
            raise ValueError(f"size is the number of sinusoids, an even number; got {size}")
        steps = torch.arange(size // 2, dtype=torch.float64) / (size // 2)
        self.register_buffer("frequencies", (scale * torch.exp(-math.log(1e4) * steps)).float(), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(size, out_size), nn.SiLU(), nn.Linear(out_size, out_size))

    def forward(self, t: Tensor) -> Tensor:
        """t (B,) -> (B, out_size)."""
        angles = t.to(self.frequencies.dtype)[:, None] * self.frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(self.mlp[0].weight.dtype))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions after group norm and SiLU; the embedding scales and shifts the second norm.

    The second convolution starts at zero, so that a fresh block is the identity (or its 1x1 projection).
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_size: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(math.gcd(groups, in_channels), in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.condition = nn.Linear(embedding_size, 2 * out_channels)
        self.norm2 = nn.GroupNorm(math.gcd(groups, out_channels), out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, in, H, W), embedding (B, E) -> (B, out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.condition(embedding)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over the H*W positions; the output projection starts at zero."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"attention_heads must divide the {channels} channels of its level; got {heads}")
        self.heads = heads
        self.norm = nn.GroupNorm(math.gcd(groups, channels), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, H, W)."""
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = qkv.transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(attended.transpose(-1, -2).reshape(batch, channels, height, width))


class UNet(nn.Module):
    """Residual U-Net; `forward(x, t, c) == decode(encode(x, t, c), t, c)`.

    Args:
        channels: Channels of the images, in and out.
        width: Channels of the finest level.
        multipliers: One for each level: its channels as a multiple of `width`; the resolution halves between levels.
        blocks: Residual blocks for each level of the encoder, and as many of the decoder.
        attention_levels: Levels (0 is the finest) whose blocks are followed by self-attention.
        attention_heads: Heads of every attention.
        num_classes: Number of labels, or None for a network without labels. Label `num_classes` is the null class.
        groups: Groups of the norms (their greatest common divisor with the channels is used).
        dropout: Before the second convolution of each block.
        time_scale: What the time is multiplied with before the sinusoids: 1000 for t in [0, 1].

    The last convolution starts at zero: a fresh network returns zeros.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention_levels: Sequence[int] = (),
        attention_heads: int = 4,
        num_classes: int | None = None,
        groups: int = 8,
        dropout: float = 0.0,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        if not multipliers or min(multipliers) < 1:
            raise ValueError(f"multipliers needs one positive integer for each level; got {list(multipliers)}")
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1; got {blocks}")
        unknown = sorted(set(attention_levels) - set(range(len(multipliers))))
        if unknown:
            raise ValueError(f"attention_levels {unknown} do not exist: the levels are 0..{len(multipliers) - 1}")
        self.channels = channels
        self.num_classes = num_classes
        self.downsamplings = len(multipliers) - 1
        size = 4 * width
        self.time_embedding = TimeEmbedding(2 * math.ceil(width / 2), size, time_scale)
        self.class_embedding = None if num_classes is None else nn.Embedding(num_classes + 1, size)

        def block(in_channels: int, out_channels: int, level: int) -> nn.ModuleList:
            layers: list[nn.Module] = [ResidualBlock(in_channels, out_channels, size, groups, dropout)]
            if level in attention_levels:
                layers.append(SelfAttention(out_channels, attention_heads, groups))
            return nn.ModuleList(layers)

        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList()
        self.downsample = nn.ModuleList()
        current = width
        skips: list[list[int]] = []
        for level, multiplier in enumerate(multipliers):
            stage = nn.ModuleList()
            skips.append([])
            for _ in range(blocks):
                stage.append(block(current, multiplier * width, level))
                current = multiplier * width
                skips[-1].append(current)
            self.down.append(stage)
            if level < self.downsamplings:
                self.downsample.append(nn.Conv2d(current, current, 3, stride=2, padding=1))
        self.middle = block(current, current, self.downsamplings)

        self.up = nn.ModuleList()
        self.upsample = nn.ModuleList()
        for level in reversed(range(len(multipliers))):
            stage = nn.ModuleList()
            for _ in range(blocks):
                out_channels = multipliers[level] * width
                stage.append(block(current + skips[level].pop(), out_channels, level))
                current = out_channels
            self.up.append(stage)
            if level > 0:
                current = multipliers[level - 1] * width
                self.upsample.append(nn.Conv2d(out_channels, current, 3, padding=1))
        self.norm_out = nn.GroupNorm(math.gcd(groups, current), current)
        self.conv_out = _zeroed(nn.Conv2d(current, channels, 3, padding=1))

    def embed(self, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Times t (B,) and labels c (B,), integers in 0..num_classes (the last is the null class) -> (B, E)."""
        embedding = self.time_embedding(t)
        if self.class_embedding is not None:
            null = torch.full_like(t, self.num_classes, dtype=torch.long) if c is None else c
            embedding = embedding + self.class_embedding(null)
        elif c is not None:
            raise ValueError("labels were given to a network built with num_classes=None")
        return F.silu(embedding)

    def encode(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Features:
        """Images x (B, C, H, W) at times t (B,) with labels c (B,) or None -> bottleneck and skips.

        H and W must be divisible by 2 ** (levels - 1).
        """
        factor = 2**self.downsamplings
        if x.shape[-1] % factor or x.shape[-2] % factor:
            raise ValueError(
                f"a U-Net of {self.downsamplings + 1} levels needs height and width divisible by {factor}; "
                f"got {tuple(x.shape)}"
            )
        embedding = self.embed(t, c)
        h = self.conv_in(x)
        skips: list[Tensor] = []
        for level, stage in enumerate(self.down):
            for block in stage:
                h = _apply(block, h, embedding)
                skips.append(h)
            if level < self.downsamplings:
                h = self.downsample[level](h)
        return Features(_apply(self.middle, h, embedding), tuple(skips))

    def decode(self, features: Features, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Features of `encode` at times t (B,) -> (B, C, H, W); t and c need not be those of the encoder."""
        embedding = self.embed(t, c)
        h = features.hidden
        skips = list(features.skips)
        for index, stage in enumerate(self.up):
            for block in stage:
                h = _apply(block, torch.cat([h, skips.pop()], dim=1), embedding)
            if index < self.downsamplings:
                h = self.upsample[index](F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(h)))

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Images x (B, C, H, W) at times t (B,) with labels c (B,) or None -> (B, C, H, W)."""
        return self.decode(self.encode(x, t, c), t, c)


def _apply(block: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    residual, *attention = block  # type: ignore[misc]
    h = residual(h, embedding)
    for layer in attention:
        h = layer(h)
    return h


def _zeroed(module: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module
