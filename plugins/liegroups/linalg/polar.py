"""Left polar factorisation ``g = e^X R`` of matrices with positive determinant: X symmetric, R a rotation.

For n = 2 a closed form without eigensolver; for other n the singular value decomposition with an analytic backward
pass, both finite at repeated singular values. The route through ``g g^T`` squares the condition number and is not used.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plugins.liegroups.linalg.scalar import atanhc_of_square
from plugins.liegroups.linalg.symmetric import log_divided_differences


def working_dtype(t: Tensor) -> torch.dtype:
    """float64, in which small-matrix algebra is done for every input type, or float32 on devices without float64."""
    return torch.float32 if t.device.type == "mps" else torch.float64


def _require_positive_determinant(det: Tensor) -> None:
    if det.numel() and bool((det <= 0).any()):
        raise ValueError(
            f"g: a matrix has determinant {float(det.min()):.3g}; the polar coordinates cover the component det > 0 "
            "(compose with a reflection to reach the other one)"
        )


def polar_log_2x2(g: Tensor) -> tuple[Tensor, Tensor]:
    """Closed form in the dtype of ``g`` [..., 2, 2]: returns ``(X, theta)`` with ``g = e^X R(theta)``.

    X [..., 2, 2] is symmetric, theta [...] lies in (-pi, pi]. g11+g22 and g21-g12 never vanish together for det > 0,
    so no angle is undefined. Raises ValueError for a non-positive determinant.
    """
    a, b, c, d = g[..., 0, 0], g[..., 0, 1], g[..., 1, 0], g[..., 1, 1]
    det = a * d - b * c
    _require_positive_determinant(det)
    x, y = a + d, c - b
    theta = torch.atan2(y, x)
    # P = g R(-theta): with (cos, sin) = (x, y) / (2t), t = tr P / 2
    t = torch.sqrt(x * x + y * y) / 2
    cos, sin = x / (2 * t), y / (2 * t)
    u = ((a * cos - b * sin) - (c * sin + d * cos)) / 2
    v = a * sin + b * cos
    # v is P12; averaging with P21 keeps the symmetric part when rounding separates them
    v = (v + (c * cos - d * sin)) / 2
    r2 = u * u + v * v
    q = r2 / (t * t)
    near = q < 0.25
    kappa_near = atanhc_of_square(torch.where(near, q, torch.zeros_like(q))) / t
    r = torch.where(near, torch.ones_like(r2), r2).sqrt()
    # atanh(r/t) = log((t + r) / sqrt(det)): no cancellation as r -> t
    kappa_far = torch.log((t + r) / det.sqrt()) / r
    kappa = torch.where(near, kappa_near, kappa_far)
    half_log_det = torch.log(det) / 2
    xu, xv = kappa * u, kappa * v
    rows = torch.stack([half_log_det + xu, xv, xv, half_log_det - xu], dim=-1)
    return rows.reshape(*g.shape[:-2], 2, 2), theta


class _PolarSVD(torch.autograd.Function):
    """X and R of ``g = e^X R`` from ``g = U S V^T``: X = U log S U^T, R = U V^T."""

    @staticmethod
    def forward(ctx, g: Tensor):
        u, s, vh = torch.linalg.svd(g)
        ctx.save_for_backward(u, s, vh)
        return (u * s.log().unsqueeze(-2)) @ u.mT, u @ vh

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_x: Tensor, grad_r: Tensor):
        # With M = U^T dg V:  U^T dR V = (M - M^T)/(s_i + s_j),  U^T dP U = (s_j M_ij + s_i M_ji)/(s_i + s_j),
        # and dX is the Daleckii-Krein derivative of log at P: only sums of singular values are divided by.
        u, s, vh = ctx.saved_tensors
        total = s.unsqueeze(-1) + s.unsqueeze(-2)
        h = log_divided_differences(s) * (u.mT @ grad_x @ u)
        from_x = s.unsqueeze(-2) * (h + h.mT) / total
        q = u.mT @ grad_r @ vh.mT
        from_r = (q - q.mT) / total
        return u @ (from_x + from_r) @ vh


def polar_log(g: Tensor) -> tuple[Tensor, Tensor]:
    """``(X, R)`` with ``g = e^X R`` for ``g`` [..., n, n] with positive determinant, any n >= 1.

    X is symmetric, R a rotation, both in the dtype of ``g``; the work is done in float64. Gradients are finite
    everywhere, also at the identity and at similarities. Raises ValueError for a non-positive determinant.
    """
    n = g.shape[-1]
    if g.shape[-2] != n:
        raise ValueError(f"g: expected square matrices, got shape {tuple(g.shape)}")
    work = g.to(working_dtype(g))
    if n == 2:
        x, theta = polar_log_2x2(work)
        r = rotation_2x2(theta)
    else:
        _require_positive_determinant(torch.linalg.det(work.detach()))
        x, r = _PolarSVD.apply(work)
    return x.to(g.dtype), r.to(g.dtype)


def rotation_2x2(theta: Tensor) -> Tensor:
    """[...] angles in radians -> [..., 2, 2] counter-clockwise rotations."""
    c, s = torch.cos(theta), torch.sin(theta)
    return torch.stack([c, -s, s, c], dim=-1).reshape(*theta.shape, 2, 2)
