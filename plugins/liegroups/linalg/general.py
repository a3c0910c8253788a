"""Functions of general real matrices: the principal logarithm, and ``phi1(A) = (e^A - 1) / A``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from plugins.liegroups.linalg.polar import working_dtype
from plugins.liegroups.linalg.scalar import stumpff

_MAX_ROOTS = 40
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def no_real_log_2x2(g: Tensor) -> Tensor:
    """[..., 2, 2] with det > 0 -> bool [...]: True where no real logarithm exists.

    A real logarithm exists unless both eigenvalues are negative and g is not a multiple of the identity
    (Culver 1966); for a negative multiple of the identity it exists but is not unique.
    """
    trace = g.diagonal(dim1=-2, dim2=-1).sum(-1)
    half_gap, b, c = (g[..., 0, 0] - g[..., 1, 1]) / 2, g[..., 0, 1], g[..., 1, 0]
    # (gap of the eigenvalues / 2)^2, from the traceless part: tr^2 - 4 det would cancel near -I
    discriminant = half_gap * half_gap + b * c
    scalar = (half_gap == 0) & (b == 0) & (c == 0)
    return (trace < 0) & (discriminant >= 0) & ~scalar


def _no_log(detail: str) -> ValueError:
    return ValueError(
        f"g: {detail} has no real logarithm; use the polar coordinates (group.coordinates), which cover every element"
    )


def log_2x2(g: Tensor) -> Tensor:
    """Principal real logarithm of ``g`` [..., 2, 2] with det > 0, closed form.

    For ``B = g / sqrt(det)`` with half trace c: log B = (B - c I) * f, f = theta / sin(theta) for |c| < 1 and
    atanh-type otherwise. -I is given the rotation by pi. Raises ValueError where no real logarithm exists.
    """
    work = g.to(working_dtype(g))
    det = work[..., 0, 0] * work[..., 1, 1] - work[..., 0, 1] * work[..., 1, 0]
    if g.numel() and bool((det <= 0).any()):
        raise _no_log(f"a matrix of determinant {float(det.min()):.3g}")
    if g.numel() and bool(no_real_log_2x2(work).any()):
        raise _no_log("a matrix with two negative eigenvalues")
    eye = torch.eye(2, dtype=work.dtype, device=work.device)
    b = work / det.sqrt()[..., None, None]
    c = b.diagonal(dim1=-2, dim2=-1).sum(-1) / 2
    traceless = b - c[..., None, None] * eye
    # det of the traceless part: sin^2 of the angle when positive, -sinh^2 when negative
    s2 = traceless[..., 0, 0] * traceless[..., 1, 1] - traceless[..., 0, 1] * traceless[..., 1, 0]
    elliptic = s2 > 1e-3
    hyperbolic = s2 < -1e-3
    s = torch.where(elliptic, s2, torch.ones_like(s2)).sqrt()
    f_elliptic = torch.atan2(s, torch.where(elliptic, c, torch.zeros_like(c))) / s
    sh = torch.where(hyperbolic, -s2, torch.ones_like(s2)).sqrt()
    f_hyperbolic = torch.asinh(sh) / sh
    # near s2 = 0 with c = +sqrt(1 - s2): asin(s)/s = 1 + s2/6 + 3 s2^2/40 + ...
    near = torch.where(elliptic | hyperbolic, torch.zeros_like(s2), s2)
    f_near = 1 + near * (1 / 6 + near * (3 / 40 + near * (15 / 336 + near * (105 / 3456 + near * 945 / 42240))))
    f = torch.where(elliptic, f_elliptic, torch.where(hyperbolic, f_hyperbolic, f_near))
    # close to the rotation by pi (c < 0 and s2 small and positive) the series is not the right branch
    flipped = (c < 0) & ~elliptic & ~hyperbolic
    s_flip = torch.where(flipped & (s2 > 0), s2, torch.ones_like(s2)).sqrt()
    f = torch.where(flipped, torch.atan2(s_flip, torch.where(flipped, c, torch.ones_like(c))) / s_flip, f)
    out = f[..., None, None] * traceless + torch.log(det)[..., None, None] / 2 * eye
    minus_identity = flipped & (s2 <= 0)
    quarter = torch.tensor([[0.0, -np.pi], [np.pi, 0.0]], dtype=work.dtype, device=work.device)
    minus = quarter + torch.log(det)[..., None, None] / 2 * eye
    return torch.where(minus_identity[..., None, None], minus, out).to(g.dtype)


def exp_2x2(a: Tensor) -> Tensor:
    """Exponential of ``a`` [..., 2, 2]: with t = tr/2 and q = det(a - t I), e^t (c0(q) I + c1(q) (a - t I))."""
    eye = torch.eye(2, dtype=a.dtype, device=a.device)
    t = a.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] / 2
    m = a - t * eye
    q = (m[..., 0, 0] * m[..., 1, 1] - m[..., 0, 1] * m[..., 1, 0])[..., None, None]
    return torch.exp(t) * (stumpff(0, q) * eye + stumpff(1, q) * m)


def matrix_log(g: Tensor) -> Tensor:
    """Principal logarithm of real ``g`` [..., n, n] by inverse scaling and squaring, differentiable.

    Square roots by the scaled Denman-Beavers product iteration until ``|g - I| < 1/4``, then Gauss-Legendre
    quadrature of ``int (g-I)(I + s(g-I))^-1 ds`` (Higham 2008, sections 6.3 and 11.4). Raises ValueError where an
    eigenvalue lies on the closed negative real axis, so that no principal logarithm exists.
    """
    if g.shape[-1] == 2:
        return log_2x2(g)
    work = g.to(working_dtype(g))
    n = g.shape[-1]
    eye = torch.eye(n, dtype=work.dtype, device=work.device)
    if work.numel():
        values = torch.linalg.eigvals(work.detach())
        if bool(((values.real <= 0) & (values.imag.abs() <= 1e-12 * values.abs())).any()):
            raise _no_log("a matrix with an eigenvalue on the negative real axis")
    roots = 0
    while work.numel() and float((work.detach() - eye).abs().sum(-1).amax()) > 0.25:
        if roots == _MAX_ROOTS:
            raise _no_log("a matrix whose square roots do not approach the identity")
        work = _sqrt_denman_beavers(work)
        roots += 1
    m = work - eye
    out = torch.zeros_like(m)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        out = out + weight / 2 * torch.linalg.solve(eye + (node + 1) / 2 * m, m)
    return (out * 2.0**roots).to(g.dtype)


def _sqrt_denman_beavers(a: Tensor) -> Tensor:
    n = a.shape[-1]
    eye = torch.eye(n, dtype=a.dtype, device=a.device)
    y, z = a, eye.expand_as(a)
    for _ in range(30):
        scale = (torch.linalg.det(y.detach()) * torch.linalg.det(z.detach())).abs() ** (-1 / (2 * n))
        converged = float((y.detach() @ z.detach() - eye).abs().amax()) < 1e-2
        mu = torch.ones_like(scale)[..., None, None] if converged else scale[..., None, None]
        y_next = (mu * y + torch.linalg.inv(mu * z)) / 2
        z_next = (mu * z + torch.linalg.inv(mu * y)) / 2
        change = float((y_next - y).detach().abs().amax() / y_next.detach().abs().amax())
        y, z = y_next, z_next
        if change < 1e-15:
            break
    return y


def phi1(a: Tensor) -> Tensor:
    """``phi1(A) = sum_j A^j / (j+1)!`` for ``a`` [..., n, n]: the block (1, 2) of exp([[A, I], [0, 0]])."""
    n = a.shape[-1]
    eye = torch.eye(n, dtype=a.dtype, device=a.device).expand_as(a)
    top = torch.cat([a, eye], dim=-1)
    return torch.linalg.matrix_exp(torch.cat([top, torch.zeros_like(top)], dim=-2))[..., :n, n:]
