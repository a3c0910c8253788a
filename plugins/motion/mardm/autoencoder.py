"""MARDM's autoencoder: 1-D convolutions from 4 frames to one continuous latent and back, blind to padding."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..networks import length_mask, token_lengths


class MaskedConv(nn.Conv1d):
    """A convolution (B, C, T) that reads zeros where ``mask`` (B, 1, T) is False, as it does beyond the ends."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x * mask)


class ResidualBlock(nn.Module):
    """ReLU, dilated convolution of 3, ReLU, convolution of 1, dropout, and the input added."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.wide = MaskedConv(width, width, 3, padding=dilation, dilation=dilation)
        self.narrow = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + self.dropout(self.narrow(F.relu(self.wide(F.relu(x), mask))))


class MotionAutoencoder(nn.Module):
    """Deterministic, without KL or codebook (Meng et al. 2025, arXiv:2411.16575).

    Encoder: convolution of 3, ReLU, then for each halving a convolution of 4 with stride 2 and residual blocks of
    dilations 9, 3, 1, then a convolution of 3. The decoder mirrors it with nearest-neighbour doubling.

    Args:
        features: width of a frame.
        latent: width of a latent.
        width: of the convolutions.
        halvings: latents hold ``2^halvings`` frames.
        dilations: of the residual blocks after each halving.
        dropout: in the residual blocks.

    Padding is zeroed before every convolution that could see it, so a clip's latents and its reconstruction do not
    depend on what it is batched with.
    """

    def __init__(
        self,
        features: int,
        latent: int = 512,
        width: int = 512,
        halvings: int = 2,
        dilations: tuple[int, ...] = (9, 3, 1),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if halvings < 1:
            raise ValueError(f"halvings = {halvings} must be at least 1")
        self.features, self.latent, self.halvings, self.unit = features, latent, halvings, 2**halvings

        def residual() -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(width, dilation, dropout) for dilation in dilations)

        self.encode_first = MaskedConv(features, width, 3, padding=1)
        self.halve = nn.ModuleList(MaskedConv(width, width, 4, 2, 1) for _ in range(halvings))
        self.encode_blocks = nn.ModuleList(residual() for _ in range(halvings))
        self.encode_last = MaskedConv(width, latent, 3, padding=1)
        self.decode_first = MaskedConv(latent, width, 3, padding=1)
        self.decode_blocks = nn.ModuleList(residual() for _ in range(halvings))
        self.lengthen = nn.ModuleList(MaskedConv(width, width, 3, padding=1) for _ in range(halvings))
        self.decode_middle = MaskedConv(width, width, 3, padding=1)
        self.decode_last = MaskedConv(width, features, 3, padding=1)

    def _masks(self, lengths: Tensor, tokens: int) -> list[Tensor]:
        """(B, 1, ·) masks at every resolution, from frames to tokens."""
        return [
            length_mask(token_lengths(lengths, 2**k), tokens * 2 ** (self.halvings - k))[:, None]
            for k in range(self.halvings + 1)
        ]

    def encode(self, motion: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D), T a multiple of ``unit``, and (B,) frames -> latents (B, T / unit, latent), zero on padding."""
        if motion.shape[1] % self.unit:
            raise ValueError(f"{motion.shape[1]} frames do not make whole latents of {self.unit}; pad them")
        masks = self._masks(lengths, motion.shape[1] // self.unit)
        x = F.relu(self.encode_first(motion.transpose(1, 2), masks[0]))
        for k, (halve, blocks) in enumerate(zip(self.halve, self.encode_blocks, strict=True)):
            x = halve(x, masks[k])
            for block in blocks:
                x = block(x, masks[k + 1])
        return (self.encode_last(x, masks[-1]) * masks[-1]).transpose(1, 2)

    def decode(self, latents: Tensor, lengths: Tensor) -> Tensor:
        """(B, N, latent) and (B,) frames -> (B, N * unit, D), zero on padding."""
        masks = self._masks(lengths, latents.shape[1])[::-1]
        x = F.relu(self.decode_first(latents.transpose(1, 2), masks[0]))
        for k, (blocks, lengthen) in enumerate(zip(self.decode_blocks, self.lengthen, strict=True)):
            for block in blocks:
                x = block(x, masks[k])
            x = lengthen(F.interpolate(x, scale_factor=2.0, mode="nearest"), masks[k + 1])
        x = F.relu(self.decode_middle(x, masks[-1]))
        return (self.decode_last(x, masks[-1]) * masks[-1]).transpose(1, 2)

    def forward(self, motion: Tensor, lengths: Tensor) -> Tensor:
        """The reconstruction of (B, T, D)."""
        return self.decode(self.encode(motion, lengths), lengths)


def reconstruction_loss(made: Tensor, motion: Tensor, mask: Tensor, positions: tuple[int, int]) -> Tensor:
    """Smooth L1 of all features plus that of the joint positions, features ``positions[0]`` up to ``positions[1]``."""
    error = F.smooth_l1_loss(made, motion, reduction="none") * mask[..., None]
    frames = mask.sum().clamp_min(1)
    part = error[..., slice(*positions)]
    return error.sum() / (frames * error.shape[-1]) + part.sum() / (frames * part.shape[-1])


def latent_statistics(latents: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (latent,) of the tokens where ``seen`` (B, N) is True."""
    weight = seen[..., None].to(latents.dtype)
    count = weight.sum().clamp_min(1)
    mean = (latents * weight).sum((0, 1)) / count
    variance = ((latents - mean).square() * weight).sum((0, 1)) / count
    return mean, variance.sqrt()


