"""Images under maps of the plane: resampling, and the random maps of the test sets.

Coordinates are pixels from the centre of the canvas, x along columns and y along rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plugins.liegroups.groups.homography import projective_act, projective_visible
from plugins.liegroups.linalg import rotation_2x2

CANVAS = 40
"""Side of the affNIST canvas: MNIST's 28 pixels with 6 on each side."""


def pad_to_canvas(images: Tensor, size: int = CANVAS) -> Tensor:
    """Centre images [n, 1, h, w] on a canvas of ``size`` pixels. Raises ValueError if they do not fit evenly."""
    gap = size - images.shape[-1]
    if gap < 0 or gap % 2 or images.shape[-1] != images.shape[-2]:
        raise ValueError(f"images of {tuple(images.shape[-2:])} cannot be centred on a canvas of {size}")
    return torch.nn.functional.pad(images, [gap // 2] * 4)


def warp(images: Tensor, maps: Tensor, mode: str = "bilinear") -> Tensor:
    """``f(h^-1 x)`` for images [n, c, s, s] and maps h: linear [n, 2, 2] or projective [n, 3, 3]; zero outside.

    Sampling is at pixel centres; ``mode`` is that of ``torch.nn.functional.grid_sample``.
    """
    side = images.shape[-1]
    steps = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    points = torch.stack([x, y], dim=-1).to(images.device)
    inverse = torch.linalg.inv(maps.double())
    if maps.shape[-1] == 2:
        source = torch.einsum("nij,hwj->nhwi", inverse, points)
    else:
        inverse = inverse[:, None, None]
        source = projective_act(inverse, points)
        # what lies beyond the vanishing line has no source on the canvas
        source = torch.where(
            projective_visible(inverse, points)[..., None], source, torch.full_like(source, 4.0 * side)
        )
    grid = (source * (2 / side)).to(images.dtype)
    return torch.nn.functional.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


def translation(shift: Tensor) -> Tensor:
    """Shifts [n, 2] -> maps [n, 3, 3]."""
    maps = torch.eye(3, dtype=shift.dtype).repeat(len(shift), 1, 1)
    maps[:, :2, 2] = shift
    return maps


def _uniform(n: int, low: float, high: float, generator: torch.Generator | None) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)


def _rotation_shear_scale(angle: Tensor, shear: Tensor, scale_x: Tensor, scale_y: Tensor) -> Tensor:
    """``R(angle) H S`` with H = [[1, shear], [0, 1]] and S = diag(scale_x, scale_y), all [n] -> [n, 2, 2]."""
    n = len(angle)
    h = torch.eye(2, dtype=torch.float64).repeat(n, 1, 1)
    h[:, 0, 1] = shear
    return rotation_2x2(angle) @ h @ torch.diag_embed(torch.stack([scale_x, scale_y], -1))


def affnist_like_maps(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Linear parts [n, 2, 2] of affNIST's recipe: rotation +-20 deg, shear +-0.2, either scale in [0.8, 1.2]."""
    return _rotation_shear_scale(
        _uniform(n, -20, 20, generator) * math.pi / 180,
        _uniform(n, -0.2, 0.2, generator),
        _uniform(n, 0.8, 1.2, generator),
        _uniform(n, 0.8, 1.2, generator),
    )


def gl2_maps(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Maps [n, 2, 2] of GL2-MNIST: rotation +-180 deg, scales in [0.8, 1.2] per axis, shear angle +-10 deg."""
    return _rotation_shear_scale(
        _uniform(n, -math.pi, math.pi, generator),
        torch.tan(_uniform(n, -10, 10, generator) * math.pi / 180),
        _uniform(n, 0.8, 1.2, generator),
        _uniform(n, 0.8, 1.2, generator),
    )


def rotation_maps(n: int, degrees: float = 180.0, generator: torch.Generator | None = None) -> Tensor:
    """Rotations [n, 2, 2], uniform within +-``degrees``."""
    return rotation_2x2(_uniform(n, -degrees, degrees, generator) * math.pi / 180)


def homography_maps(
    n: int, strength: float = 0.3, side: int = CANVAS, generator: torch.Generator | None = None
) -> Tensor:  # fmt: skip
    """Projective maps [n, 3, 3]: GL2-MNIST's linear part, and a vanishing line of random direction.

    ``c`` is uniform in the disc of radius ``strength / (side / 2)``: the denominator at the canvas's inscribed circle
    stays within 1 +- ``strength``.
    """
    if not 0 <= strength < 1:
        raise ValueError(f"strength={strength}: below 1, or the vanishing line crosses the canvas")
    maps = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    angle = _uniform(n, -math.pi, math.pi, generator)
    radius = strength / (side / 2) * _uniform(n, 0, 1, generator).sqrt()
    maps[:, 2, :2] = radius[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
    linear = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    linear[:, :2, :2] = gl2_maps(n, generator)
    return maps @ linear


def fit_translations(images: Tensor, generator: torch.Generator | None = None, threshold: float = 1e-3) -> Tensor:
    """Integer shifts [n, 2], uniform among those that keep the bounding box of the ink on the canvas.

    Ink is any pixel above ``threshold``. An image whose ink touches both borders of an axis is not moved along it.
    """
    side = images.shape[-1]
    ink = (images > threshold).any(1)
    shifts = []
    for axis in (1, 2):  # columns (x) first: collapse the rows, then the other way round
        occupied = ink.any(axis).double()
        index = torch.arange(side, dtype=torch.float64)
        empty = occupied.sum(-1) == 0
        first = torch.where(occupied > 0, index, torch.full_like(index, side)).amin(-1)
        last = torch.where(occupied > 0, index, torch.full_like(index, -1)).amax(-1)
        low, high = -first, side - 1 - last
        low, high = torch.where(empty, 0.0, low), torch.where(empty, 0.0, high)
        u = torch.rand(len(images), generator=generator, dtype=torch.float64)
        shifts.append(torch.floor(low + u * (high - low + 1)).clamp(low, high))
    return torch.stack(shifts, -1)


def affnist_like(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Padded images [n, 1, s, s] -> affNIST-like: a random linear map, then a shift that keeps the ink inside."""
    warped = warp(images, affnist_like_maps(len(images), generator))
    return warp(warped, translation(fit_translations(warped, generator)), mode="nearest")
