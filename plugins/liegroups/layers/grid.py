"""The pixel grid of a kernel and the window that limits its support."""

from __future__ import annotations

import torch
from torch import Tensor

WINDOWS = ("none", "disc", "bump", "sigmoid")


def kernel_offsets(size: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Offsets [size * size, 2] in pixels, (x, y) with x along columns and y along rows, in row-major order.

    For an even size the offsets are half-integers, as the grid is centred.
    """
    steps = torch.arange(size, dtype=dtype, device=device) - (size - 1) / 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def window(name: str, z: Tensor, group_norm2: Tensor | None = None) -> Tensor:
    """Weight [...] of kernel points ``z`` [..., n] (unit ball = the kernel's radius).

    "none": one. "disc": one inside the unit ball. "bump": (1 - |z|^2)^2 inside, smooth. "sigmoid":
    sigma(2 (1 - norm)) with the norm over ``z`` and the group coordinates (squared norm ``group_norm2``), which
    localises the kernel in the group as well.
    """
    r2 = (z * z).sum(-1)
    if name == "none":
        return torch.ones_like(r2)
    if name == "disc":
        # pixel centres that lie on the rim in exact arithmetic must not drop out by rounding
        return (r2 <= 1 + 1e-5).to(z.dtype)
    if name == "bump":
        return (1 - r2).clamp_min(0).square()
    total = r2 if group_norm2 is None else r2 + group_norm2
    return torch.sigmoid(2 * (1 - total.clamp_min(1e-12).sqrt()))


def require_window(name: str) -> str:
    """``name``, or ValueError naming the choices."""
    if name not in WINDOWS:
        raise ValueError(f"window={name!r} is unknown; choose one of {', '.join(WINDOWS)}")
    return name


def require_kernel_size(size: int) -> int:
    """``size``, or ValueError if it is not a positive odd number."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"kernel_size={size}: an odd size keeps the output on the input's pixel grid")
    return size
