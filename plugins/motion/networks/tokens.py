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
        answer: whether tokens are turned back into frames.
        overlap: tokens write half a patch beyond either end, and neighbours are blended with weights that fall off
            linearly. Without it motion made of patches jerks from one to the next.
    """

    def __init__(
        self,
        features: int,
        width: int,
        patch: int = 1,
        inputs: int = 1,
        answer: bool = True,
        overlap: bool = False,
    ) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"patch = {patch} must be at least 1 frame")
        if overlap and patch % 2:
            raise ValueError(f"overlap writes half a patch beyond either end: patch = {patch} must be even")
        self.features, self.patch, self.overlap = features, patch, overlap
        self.read = nn.Linear(inputs * features * patch, width)
        self.write = nn.Linear(width, features * patch * (2 if overlap else 1)) if answer else None
        if overlap:
            ramp = (torch.arange(patch) + 0.5) / patch
            self.register_buffer("window", torch.cat([ramp, ramp.flip(0)])[:, None], persistent=False)

    def tokens(self, x: Tensor) -> Tensor:
        """(B, T, inputs * features) -> (B, T / patch, width); T a multiple of ``patch``."""
        batch, frames, features = x.shape
        if frames % self.patch:
            raise ValueError(f"{frames} frames do not make whole tokens of patch = {self.patch}; pad them")
        return self.read(x.reshape(batch, frames // self.patch, self.patch * features))

    def seen(self, mask: Tensor) -> Tensor:
        """Frames that are real (B, T) as tokens that hold one (B, T / patch)."""
        return mask.view(len(mask), -1, self.patch).any(-1)

    def frames(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, N, width) -> (B, N * patch, features).

        Args:
            seen: (B, N) bool, False on tokens of padding, which must not be blended into real frames.
        """
        if self.write is None:
            raise ValueError("these patches only read: build them with answer=True")
        written = self.write(tokens)
        if not self.overlap:
            return written.reshape(len(tokens), -1, self.features)
        weight = self.window.to(written.dtype).expand(*tokens.shape[:2], -1, 1)
        if seen is not None:
            weight = weight * seen[..., None, None]
        blended = self._added(written.view(*tokens.shape[:2], -1, self.features) * weight)
        return blended / self._added(weight).clamp_min(torch.finfo(blended.dtype).tiny)

    def _added(self, pieces: Tensor) -> Tensor:
        """(B, N, 2 patch, C), each piece half a patch ahead of its token, added up -> (B, N * patch, C)."""
        first, second = (half.flatten(1, 2) for half in pieces.split(self.patch, dim=2))
        total = nn.functional.pad(first, (0, 0, 0, self.patch)) + nn.functional.pad(second, (0, 0, self.patch, 0))
        return total[:, self.patch // 2 : total.shape[1] - self.patch // 2]
