"""Random elements of SO(n) and O(n)."""

from __future__ import annotations

import torch
from torch import Tensor


def random_rotations(
    count: int,
    n: int = 3,
    *,
    improper: bool = False,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """(count, n, n) matrices of SO(n), uniform (Haar); with `improper`, of determinant -1 instead.

    By QR decomposition of a Gaussian matrix with the signs of R fixed (Mezzadri 2007), in float64.
    """
    gaussian = torch.randn(count, n, n, generator=generator, dtype=torch.float64, device=device)
    q, r = torch.linalg.qr(gaussian)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    wanted = -1.0 if improper else 1.0
    flip = torch.linalg.det(q).sign() * wanted
    q = torch.cat([q[..., :1] * flip[:, None, None], q[..., 1:]], -1)
    return q.to(dtype or torch.get_default_dtype())
