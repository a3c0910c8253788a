"""Does a motion look physical: foot skating, acceleration, bone lengths. No learning in any of them.

Positions are (..., T, J, 3) in metres with y up; `mask` (..., T) is True on real frames, which come first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

CONTACT_HEIGHT = 0.05  # metres
SKATING_SPEED = 0.5  # metres a second
WINDOW = 5  # frames of the moving average


def foot_skating(positions: Tensor, mask: Tensor, feet: Sequence[int], fps: float) -> Tensor:
    """Share (...,) of frame steps in which a foot slides while on the ground (GMD, Karunratanakul et al. 2023).

    A foot is on the ground if lower than 5 cm in both frames of a step; it skates if then its horizontal speed, and the
    moving average of that speed over 5 steps (zeros beyond the ends), exceed 0.5 m/s. Heights are taken above the
    lowest foot of the clip: the representation does not know where the floor is.

    Args:
        feet: joint numbers of the toes.
    """
    foot = positions[..., list(feet), :]
    valid = (mask[..., 1:] & mask[..., :-1]).unsqueeze(-1)
    speed = torch.linalg.vector_norm(foot[..., 1:, :, ::2] - foot[..., :-1, :, ::2], dim=-1) * fps
    speed = torch.where(valid, speed, torch.zeros_like(speed))  # (..., T-1, feet)
    height = foot[..., 1]
    floor = torch.where(mask.unsqueeze(-1), height, height.new_full((), torch.inf)).amin(dim=(-2, -1), keepdim=True)
    low = height - floor < CONTACT_HEIGHT
    contact = low[..., 1:, :] & low[..., :-1, :] & valid
    series = speed.movedim(-2, -1)
    flat = series.reshape(-1, 1, series.shape[-1])
    average = F.avg_pool1d(flat, WINDOW, stride=1, padding=WINDOW // 2).reshape(series.shape).movedim(-1, -2)
    skates = (contact & (speed > SKATING_SPEED) & (average > SKATING_SPEED)).any(-1)
    steps = valid.squeeze(-1).sum(-1)
    return skates.sum(-1) / steps.clamp_min(1)


def acceleration_rms(positions: Tensor, mask: Tensor, fps: float) -> Tensor:
    """Root mean square (...,) of joint accelerations in m/s², by second differences inside the clip.

    Clips of fewer than three frames have none: 0.
    """
    acceleration = (positions[..., 2:, :, :] - 2 * positions[..., 1:-1, :, :] + positions[..., :-2, :, :]) * fps**2
    inside = mask[..., 2:] & mask[..., 1:-1] & mask[..., :-2]
    square = torch.where(inside, acceleration.square().sum(-1).mean(-1), acceleration.new_zeros(()))
    return (square.sum(-1) / inside.sum(-1).clamp_min(1)).sqrt()


def bone_drift(positions: Tensor, mask: Tensor, parents: Sequence[int]) -> Tensor:
    """Mean over bones of the standard deviation in time (...,) of their lengths, in metres: 0 for a rigid skeleton."""
    child = [j for j, parent in enumerate(parents) if parent >= 0]
    above = [parents[j] for j in child]
    length = torch.linalg.vector_norm(positions[..., child, :] - positions[..., above, :], dim=-1)
    weight = mask.unsqueeze(-1).to(length.dtype)
    count = weight.sum(-2, keepdim=True).clamp_min(1)
    mean = (length * weight).sum(-2, keepdim=True) / count
    variance = ((length - mean).square() * weight).sum(-2, keepdim=True) / count
    return variance.sqrt().mean(dim=(-2, -1))
