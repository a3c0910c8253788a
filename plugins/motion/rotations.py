"""Rotations as unit quaternions (w, x, y, z), matrices, two columns of a matrix (6-D) and Euler angles.

All functions take any leading shape and keep dtype and device. Angles are radians.
"""

from __future__ import annotations

import torch
from torch import Tensor


def normalize(v: Tensor, eps: float = 1e-12) -> Tensor:
    """v / ‖v‖ over the last axis; vectors shorter than ``eps`` give zero, with a finite gradient."""
    squared = (v * v).sum(-1, keepdim=True)
    small = squared <= eps * eps
    return torch.where(small, torch.zeros_like(v), v / torch.where(small, torch.ones_like(squared), squared).sqrt())


def identity_quaternion(*shape: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """Identity rotations of shape (*shape, 4)."""
    q = torch.zeros(*shape, 4, dtype=dtype, device=device)
    q[..., 0] = 1
    return q


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product a·b of (…, 4): rotate by b first, then by a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def quaternion_conjugate(q: Tensor) -> Tensor:
    """The inverse of unit quaternions (…, 4)."""
    return torch.cat([q[..., :1], -q[..., 1:]], -1)


def quaternion_rotate(q: Tensor, v: Tensor) -> Tensor:
    """Vectors v (…, 3) rotated by unit quaternions q (…, 4); leading shapes broadcast."""
    axis = q[..., 1:]
    axis, v = torch.broadcast_tensors(axis, v)
    t = 2 * torch.linalg.cross(axis, v)
    return v + q[..., :1] * t + torch.linalg.cross(axis, t)


def quaternion_between(u: Tensor, v: Tensor) -> Tensor:
    """The shortest rotation (…, 4) taking direction u (…, 3) to direction v (…, 3).

    Opposite directions are joined by a half turn about an axis across u, in the xz plane where u has no height;
    where u or v is zero the result is the identity.
    """
    u, v = torch.broadcast_tensors(u, v)
    u, v = normalize(u), normalize(v)
    w = 1 + (u * v).sum(-1, keepdim=True)
    q = torch.cat([w, torch.linalg.cross(u, v)], -1)
    opposite = (
        (w < 4 * torch.finfo(u.dtype).eps) & (u * u).sum(-1, keepdim=True).bool() & (v * v).sum(-1, keepdim=True).bool()
    )
    # any axis across u will do; up × u's height keeps horizontal half turns about the vertical
    x, y, z = u.unbind(-1)
    zero = torch.zeros_like(x)
    flat = (x * x + z * z) > 0.5
    across = torch.stack(
        [torch.where(flat, -x * y, zero), torch.where(flat, x * x + z * z, -z), torch.where(flat, -z * y, y)], -1
    )
    half_turn = torch.cat([torch.zeros_like(w), normalize(across)], -1)
    return normalize(torch.where(opposite, half_turn, q))


def quaternion_to_matrix(q: Tensor) -> Tensor:
    """Rotation matrices (…, 3, 3) of unit quaternions (…, 4)."""
    w, x, y, z = q.unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def matrix_to_quaternion(m: Tensor) -> Tensor:
    """Unit quaternions (…, 4) with w ≥ 0 of rotation matrices (…, 3, 3).

    Of the four formulas (Shepperd) the one with the largest divisor is taken, so that half turns are exact too.
    """
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    w2, x2 = 1 + m00 + m11 + m22, 1 + m00 - m11 - m22
    y2, z2 = 1 - m00 + m11 - m22, 1 - m00 - m11 + m22
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    rows = torch.stack(
        [
            torch.stack([w2, wx, wy, wz], -1),
            torch.stack([wx, x2, xy, xz], -1),
            torch.stack([wy, xy, y2, yz], -1),
            torch.stack([wz, xz, yz, z2], -1),
        ],
        -2,
    )
    best = torch.stack([w2, x2, y2, z2], -1).argmax(-1)
    q = rows.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    q = normalize(q)
    return torch.where(q[..., :1] < 0, -q, q)


def matrix_to_sixd(m: Tensor) -> Tensor:
    """First two columns, (…, 3, 3) → (…, 6): column 0, then column 1 (Zhou et al. 2019, as HumanML3D stores it)."""
    return torch.cat([m[..., 0], m[..., 1]], -1)


def sixd_to_matrix(d: Tensor) -> Tensor:
    """Gram–Schmidt on two columns, (…, 6) → (…, 3, 3); any two independent columns give a rotation."""
    x = normalize(d[..., :3])
    z = normalize(torch.linalg.cross(x, d[..., 3:]))
    return torch.stack([x, torch.linalg.cross(z, x), z], -1)


def axis_quaternion(axis: int | str, angle: Tensor) -> Tensor:
    """Rotation by ``angle`` (…) about a coordinate axis, 0/1/2 or x/y/z, as (…, 4)."""
    index = "xyz".index(axis.lower()) if isinstance(axis, str) else axis
    parts = [torch.zeros_like(angle) for _ in range(4)]
    parts[0], parts[1 + index] = (angle / 2).cos(), (angle / 2).sin()
    return torch.stack(parts, -1)


def _axes(order: str) -> tuple[int, int, int]:
    axes = tuple("xyz".find(letter) for letter in order.lower())
    if sorted(axes) != [0, 1, 2]:
        raise ValueError(f"order {order!r} must name each of x, y and z once, such as 'zxy'")
    return axes  # type: ignore[return-value]


def euler_to_quaternion(angles: Tensor, order: str) -> Tensor:
    """Angles (…, 3), given in the order of the letters, as the intrinsic product R_order[0]·R_order[1]·R_order[2].

    Raises:
        ValueError: ``order`` is no permutation of xyz.
    """
    i, j, k = _axes(order)
    first, second, third = (axis_quaternion(a, angles[..., n]) for n, a in enumerate((i, j, k)))
    return quaternion_multiply(quaternion_multiply(first, second), third)


def matrix_to_euler(m: Tensor, order: str) -> Tensor:
    """The angles (…, 3) with ``euler_to_quaternion(angles, order)`` equal to m (…, 3, 3).

    The middle angle lies in [−π/2, π/2]; at its ends (gimbal lock) the last angle is zero.

    Raises:
        ValueError: ``order`` is no permutation of xyz.
    """
    i, j, k = _axes(order)
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    sine = (sign * m[..., i, k]).clamp(-1, 1)
    cosine = (m[..., i, i] ** 2 + m[..., i, j] ** 2).sqrt()
    locked = cosine < 1e-7 if m.dtype == torch.float64 else cosine < 1e-4
    first = torch.where(
        locked,
        torch.atan2(sign * m[..., k, j], m[..., j, j]),
        torch.atan2(-sign * m[..., j, k], m[..., k, k]),
    )
    third = torch.where(locked, torch.zeros_like(sine), torch.atan2(-sign * m[..., i, j], m[..., i, i]))
    return torch.stack([first, torch.atan2(sine, cosine), third], -1)
