"""Eigendecomposition with its own health check."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

# eigenvectors carry about κ·ε relative error: beyond this, fewer than eight digits are left of float64's sixteen
TRUSTED_CONDITION = 1e8


class IllConditionedWarning(UserWarning):
    """The eigenvectors are so nearly dependent that float64 results drawn from them cannot be trusted."""


def diagonalize(a: Tensor) -> tuple[Tensor, Tensor, float]:
    """a = V diag(Λ) V^{-1} with unit columns, and κ₂(V).

    Conjugate pairs of a real matrix are adjacent, positive imaginary part first.

    Args:
        a: (n, n) real float64.

    Warns:
        IllConditionedWarning: κ₂(V) > 1e8. HiPPO-LegS itself reaches that near n = 12: perturb it first.
    """
    lam, v = torch.linalg.eig(a)
    singular = torch.linalg.svdvals(v)
    smallest = singular[-1].item()
    kappa = singular[0].item() / smallest if smallest > 0 else float("inf")
    if kappa > TRUSTED_CONDITION:
        warnings.warn(
            f"the eigenvectors of this {a.shape[0]}x{a.shape[0]} matrix have condition number {kappa:.1e}: about "
            f"{max(0.0, 16 - torch.log10(torch.tensor(kappa)).item()):.0f} digits of float64 are left. "
            "Perturb the matrix first (PTDSolver), or use its normal-plus-low-rank form (nplr).",
            IllConditionedWarning,
            stacklevel=2,
        )
    return lam, v, kappa
