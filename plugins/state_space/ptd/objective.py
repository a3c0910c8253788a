"""The function that a perturbation minimises, with its gradient written out."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def objective(
    a: Tensor, e: Tensor, gamma: float, abscissa_limit: float, stability_weight: float
) -> tuple[float, Tensor]:
    """Φ(E) = κ_F(V) + γ‖E‖_F + w·Σ max(0, Re λ − limit)², and ∇Φ.

    κ_F = ‖V‖_F ‖V^{-1}‖_F of the unit-column eigenvectors of A + E bounds κ₂ from above, and is smooth where κ₂ has
    kinks (crossing singular values), so a quasi-Newton method reaches in tens of steps what a first-order method
    needs hundreds for. With unit columns ‖V‖_F = √n.

    Args:
        a, e: (n, n) float64.
        gamma: price of the perturbation's size.
        abscissa_limit, stability_weight: eigenvalues to the right of the limit are penalised.

    Returns:
        Value, and gradient (n, n) float64. A defective A + E gives (inf, zeros).
    """
    n = a.shape[0]
    lam, v = torch.linalg.eig(a + e)
    inverse, failed = torch.linalg.inv_ex(v)
    size = torch.linalg.matrix_norm(e).item()
    if failed.item():
        return math.inf, torch.zeros_like(a)
    kappa = math.sqrt(n) * torch.linalg.matrix_norm(inverse).item()
    excess = (lam.real - abscissa_limit).clamp_min(0)
    value = kappa + gamma * size + stability_weight * (excess**2).sum().item()
    if not math.isfinite(value):
        return math.inf, torch.zeros_like(a)
    grad_v = (-n / kappa) * (inverse.mH @ (inverse @ inverse.mH))
    grad_lam = (2 * stability_weight * excess).to(lam.dtype)
    gradient = _through_eig(lam, v, inverse, grad_lam, grad_v)
    if not bool(torch.isfinite(gradient).all()):
        return math.inf, torch.zeros_like(a)
    if size > 0:
        gradient = gradient + (gamma / size) * e
    return value, gradient


def _through_eig(lam: Tensor, v: Tensor, inverse: Tensor, grad_lam: Tensor, grad_v: Tensor) -> Tensor:
    """Gradient with respect to a real matrix from those of its eigenvalues and unit-norm eigenvectors."""
    projected = v.mH @ grad_v
    inner = projected - (v.mH @ v) * torch.diagonal(projected).real
    gap = lam[None, :] - lam[:, None]
    gap.fill_diagonal_(1)
    inner = inner / gap.conj()
    inner = inner - torch.diag(torch.diagonal(inner)) + torch.diag(grad_lam)
    return (inverse.mH @ inner @ v.mH).real
