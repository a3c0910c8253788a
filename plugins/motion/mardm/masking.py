"""Which tokens are masked, in training and step by step in generation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..networks import length_mask


def masked_count(lengths: Tensor, u: Tensor) -> Tensor:
    """``max(1, round(L cos(pi u / 2)))`` masked tokens of each clip of L; u (B,) in [0, 1]."""
    return (lengths * torch.cos(math.pi / 2 * u)).round().clamp_min(1).long()


def ranks(scores: Tensor, among: Tensor) -> Tensor:
    """Rank 0, 1, … of each score in its row among the tokens where ``among`` is True; the others rank last.

    Args:
        scores: (B, N).
        among: (B, N) bool.
    """
    return scores.masked_fill(~among, float("inf")).argsort(stable=True, dim=1).argsort(1)


def random_mask(lengths: Tensor, tokens: int, u: Tensor) -> Tensor:
    """(B, tokens) bool: ``masked_count(lengths, u)`` random tokens of each clip, none of its padding."""
    scores = torch.rand(len(lengths), tokens, device=lengths.device)
    return ranks(scores, length_mask(lengths, tokens)) < masked_count(lengths, u)[:, None]


def corrupt(
    latents: Tensor, masked: Tensor, mask_latent: Tensor, noised: float = 0.1, hidden: float = 0.88
) -> Tensor:
    """What the transformer sees of masked tokens: a share is noise, of the rest a share is the mask latent.

    Args:
        latents: (B, N, latent).
        masked: (B, N) bool.
        mask_latent: (latent,).
        noised: share of the masked tokens that become N(0, 1) draws.
        hidden: share of the others that become ``mask_latent``; what remains stays as it is.
    """
    draw = torch.rand(masked.shape, device=latents.device)
    noisy = masked & (draw < noised)
    blank = masked & ~noisy & (torch.rand(masked.shape, device=latents.device) < hidden)
    latents = torch.where(noisy[..., None], torch.randn_like(latents), latents)
    return torch.where(blank[..., None], mask_latent.to(latents.dtype), latents)


def unmasking_counts(lengths: Tensor, steps: int = 18) -> Tensor:
    """Masked tokens before each of ``steps`` generation steps, and 0 after the last; (steps + 1, B) long.

    ``n_i = max(1, round(L cos(pi / 2 i / (steps - 1))))``, from L on; a single step takes all at once. A clip
    without a token to generate (L = 0) has 0 throughout.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps} must be at least 1")
    u = torch.arange(steps, device=lengths.device, dtype=torch.float64) / max(steps - 1, 1)
    counts = torch.stack([masked_count(lengths, u_i.expand(len(lengths))) for u_i in u])
    return torch.cat([counts.minimum(lengths), torch.zeros_like(counts[:1])])
