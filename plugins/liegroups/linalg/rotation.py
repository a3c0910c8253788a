"""Exponential and logarithm on SO(3) by Rodrigues and quaternions; nearest rotation."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.liegroups.linalg.scalar import half_angle_ratio, stumpff


def cross_matrix(w: Tensor) -> Tensor:
    """[..., 3] -> [..., 3, 3] skew matrix W with ``W x = w cross x``."""
    zero = torch.zeros_like(w[..., 0])
    x, y, z = w.unbind(-1)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*w.shape[:-1], 3, 3)


def so3_exp(w: Tensor) -> Tensor:
    """Rotation vector [..., 3] in radians -> rotation [..., 3, 3] (Rodrigues)."""
    matrix = cross_matrix(w)
    q = (w * w).sum(-1)[..., None, None]
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    return eye + stumpff(1, q) * matrix + stumpff(2, q) * (matrix @ matrix)


def so3_log(r: Tensor) -> Tensor:
    """Rotation [..., 3, 3] -> rotation vector [..., 3] of length <= pi, accurate at every angle.

    Shepperd's quaternion: among the four rows of 4 q q^T the one with the largest diagonal is normalised, so nothing
    is divided by a small number; the angle comes from atan2, never from acos.
    """
    m = [[r[..., i, j] for j in range(3)] for i in range(3)]
    a, b, c = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    d, e, f = m[1][0] + m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2]
    diagonal = [
        1 + m[0][0] + m[1][1] + m[2][2],
        1 + m[0][0] - m[1][1] - m[2][2],
        1 - m[0][0] + m[1][1] - m[2][2],
        1 - m[0][0] - m[1][1] + m[2][2],
    ]
    rows = [
        torch.stack([diagonal[0], a, b, c], -1),
        torch.stack([a, diagonal[1], d, e], -1),
        torch.stack([b, d, diagonal[2], f], -1),
        torch.stack([c, e, f, diagonal[3]], -1),
    ]
    outer = torch.stack(rows, -2)
    best = torch.stack(diagonal, -1).argmax(-1)
    q = torch.gather(outer, -2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    q = q / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., 0], q[..., 1:]
    return half_angle_ratio((v * v).sum(-1), w)[..., None] * v


def nearest_rotation(m: Tensor) -> Tensor:
    """Rotation nearest to ``m`` [..., n, n] in Frobenius norm (orthogonal Procrustes with det = +1)."""
    u, _, vh = torch.linalg.svd(m)
    sign = torch.linalg.det(u @ vh).sign()
    scale = torch.ones_like(m[..., 0])
    scale = torch.cat([scale[..., :-1], sign[..., None]], dim=-1)
    return (u * scale.unsqueeze(-2)) @ vh
