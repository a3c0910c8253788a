"""Random orthogonal matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def random_orthogonal(count: int, like: Tensor, proper: bool = False) -> Tensor:
    """Uniformly distributed (Haar) orthogonal matrices from torch's global generator.

    The QR decomposition of a Gaussian matrix with positive diagonal of R (Mezzadri 2007, math-ph/0609050).

    Args:
        count: number of matrices.
        like: its last dimension is the space's n; its dtype and device are those of the result.
        proper: rotations only (determinant 1).

    Returns:
        (count, n, n).
    """
    n = like.shape[-1]
    gaussian = torch.randn(count, n, n, dtype=like.dtype, device=like.device)
    # Gram-Schmidt is the QR decomposition with positive diagonal; batched LAPACK calls would cost more than the step
    columns: list[Tensor] = []
    for k in range(n):
        column = gaussian[:, :, k]
        for _ in range(2):
            for previous in columns:
                column = column - (previous * column).sum(-1, keepdim=True) * previous
        columns.append(column / column.norm(dim=-1, keepdim=True))
    matrices = torch.stack(columns, dim=-1)
    if proper:
        sign = torch.linalg.det(matrices).sign()[:, None, None]
        matrices = torch.cat([matrices[:, :, :1] * sign, matrices[:, :, 1:]], dim=-1)
    return matrices
