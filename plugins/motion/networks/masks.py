"""Lengths of clips as masks, in frames and in tokens of several frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def length_mask(lengths: Tensor, frames: int) -> Tensor:
    """(B, frames) bool, True on the first ``lengths[b]`` frames."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def token_lengths(lengths: Tensor, patch: int) -> Tensor:
    """Tokens of ``patch`` frames that hold at least one real frame: ``ceil(lengths / patch)``."""
    return (lengths + (patch - 1)).div(patch, rounding_mode="floor")


def check_lengths(lengths: Tensor, frames: int) -> None:
    """Refuse lengths outside 1 … frames.

    Raises:
        ValueError: names the first such length.
    """
    bad = (lengths < 1) | (lengths > frames)
    if bool(bad.any()):
        raise ValueError(
            f"lengths must lie in 1 … {frames}, the model's number of frames; got {int(lengths[bad][0])}: "
            "crop longer clips, or build the model with more frames"
        )


def computed_frames(lengths: Tensor, patch: int) -> int:
    """Frames that must be computed for a batch: the longest clip, filled up to whole tokens."""
    return int(token_lengths(lengths, patch).max()) * patch if len(lengths) else patch


def pad_frames(motion: Tensor, frames: int, lengths: Tensor) -> Tensor:
    """(B, T, D) brought to (B, frames, D), zero from ``lengths[b]`` on."""
    motion = F.pad(motion, (0, 0, 0, frames - motion.shape[1])) if motion.shape[1] < frames else motion[:, :frames]
    return motion * length_mask(lengths, frames)[..., None]
