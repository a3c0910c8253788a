"""What a transformer reads: frames as tokens, times as vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoidal(t: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """``sin(t w_k)`` and ``cos(t w_k)`` interleaved, ``w_k = max_period^(-2k / width)``; t of any shape (...).

    At integer t these are the positional encodings of Vaswani et al. 2017.

    Returns:
        (..., width) in t's dtype, float32 for integers.
    """
    if width % 2:
        raise ValueError(f"width = {width} must be even: half sines, half cosines")
    t = t if t.is_floating_point() else t.float()
    exponents = torch.arange(0, width, 2, device=t.device, dtype=t.dtype) / width
    angles = t[..., None] * torch.exp(-math.log(max_period) * exponents)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def positions(count: int, width: int) -> Tensor:
    """(count, width) positional encodings of 0 … count - 1."""
    return sinusoidal(torch.arange(count, dtype=torch.float64), width).float()


class TimestepEmbedding(nn.Module):
    """Sinusoids of a time, then linear - SiLU - linear.

    Args:
        width: of the answer.
        frequencies: width of the sinusoids; the same when omitted.
        scale: factor on the time, e.g. 1000 for times in [0, 1].
    """

    def __init__(self, width: int, frequencies: int | None = None, scale: float = 1.0) -> None:
        super().__init__()
        self.frequencies, self.scale = frequencies or width, scale
        self.mlp = nn.Sequential(nn.Linear(self.frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """t (B,) -> (B, width)."""
        weight = self.mlp[0].weight
        return self.mlp(sinusoidal(t.to(weight.dtype) * self.scale, self.frequencies))


class Patches(nn.Module):
    """Frames to tokens and back: ``patch`` consecutive frames make one token, by one linear map each way.

    ``patch = 1`` is a token a frame, as in the papers; 4 makes attention and everything else four times cheaper.

    Args:
        features: width of a frame.
        width: of a token.
        patch: frames of a token.
        inputs: frames that are read side by side (2 for a pair of motions); the answer is one of them.
    """

    def __init__(self, features: int, width: int, patch: int = 1, inputs: int = 1, answer: bool = True) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"patch = {patch} must be at least 1 frame")
        self.features, self.patch = features, patch
        self.read = nn.Linear(inputs * features * patch, width)
        self.write = nn.Linear(width, features * patch) if answer else None

    def tokens(self, x: Tensor) -> Tensor:
        """(B, T, inputs * features) -> (B, T / patch, width); T a multiple of ``patch``."""
        batch, frames, features = x.shape
        if frames % self.patch:
            raise ValueError(f"{frames} frames do not make whole tokens of patch = {self.patch}; pad them")
        return self.read(x.reshape(batch, frames // self.patch, self.patch * features))

    def frames(self, tokens: Tensor) -> Tensor:
        """(B, N, width) -> (B, N * patch, features)."""
        if self.write is None:
            raise ValueError("these patches only read: build them with answer=True")
        return self.write(tokens).reshape(tokens.shape[0], -1, self.features)
