"""A motion put on the floor, at the origin, facing +z; and the heading that the features are written relative to."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.motion.kinematics import heading
from plugins.motion.rotations import quaternion_between, quaternion_rotate
from plugins.motion.skeletons import Skeleton


def canonicalize(positions: Tensor, skeleton: Skeleton, forward: Tensor | None = None) -> Tensor:
    """Positions (…, T, J, 3) with the lowest joint of the clip at y = 0, the root starting at x = z = 0, and the body
    facing +z in its first frame (Guo et al. 2022).

    Args:
        forward: (…, 3) what counts as the direction faced; that of the first frame when omitted.
    """
    origin = torch.stack([positions[..., 0, 0, 0], positions[..., 1].amin((-1, -2)), positions[..., 0, 0, 2]], -1)[
        ..., None, None, :
    ]
    positions = positions - origin
    if forward is None:
        forward = heading(positions[..., 0, :, :], skeleton)
    turn = quaternion_between(forward, positions.new_tensor([0.0, 0.0, 1.0]))
    return quaternion_rotate(turn[..., None, None, :], positions)


def facing_rotations(forward: Tensor) -> Tensor:
    """Yaw quaternions (…, T, 4) that turn directions (…, T, 3) to +z; the first is the identity, as a motion in
    canonical form starts by facing +z."""
    root = quaternion_between(forward, forward.new_tensor([0.0, 0.0, 1.0]))
    first = torch.zeros_like(root[..., :1, :])
    first[..., 0] = 1
    return torch.cat([first, root[..., 1:, :]], -2)


def gaussian_smooth(x: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Gaussian average of x (…, T, C) over time, the ends repeated (scipy's ``gaussian_filter1d``, mode nearest).

    Args:
        sigma: standard deviation in frames; 0 returns x.
        truncate: the window reaches so many standard deviations.
    """
    if sigma < 0:
        raise ValueError(f"sigma must not be negative, not {sigma}")
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return x
    reach = torch.arange(-radius, radius + 1, device=x.device)
    weights = torch.exp(-0.5 * (reach.double() / sigma) ** 2)
    weights = (weights / weights.sum()).to(x)
    frames = x.shape[-2]
    at = (torch.arange(frames, device=x.device)[:, None] + reach).clamp(0, frames - 1)
    mixing = x.new_zeros(frames, frames).scatter_add_(1, at, weights.expand(frames, -1).contiguous())
    return mixing @ x
