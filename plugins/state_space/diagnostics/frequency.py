"""Systems on the imaginary axis, and how far a diagonal one is from its HiPPO original."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from plugins.state_space.hippo import hippo, legs_resolvent


def frequency_grid(n: int, lam: Tensor | None = None, points: int = 4000) -> Tensor:
    """Zero, ``points`` log-spaced frequencies in [1e-2, 20 n²], and |Im λ| of each eigenvalue given; float64."""
    omega = torch.logspace(-2, math.log10(20 * n * n), points, dtype=torch.float64)
    parts = [torch.zeros(1, dtype=torch.float64), omega]
    if lam is not None:
        parts.append(lam.imag.abs().to(torch.float64).cpu())
    return torch.cat(parts)


def diagonal_resolvent(lam: Tensor, B: Tensor, omega: Tensor, V: Tensor | None = None) -> Tensor:
    """X(iω) = V (iω − Λ)^{-1} B, shape (len(omega), n).

    Args:
        lam: (N,) complex eigenvalues.
        B: (N,) input vector in modal coordinates.
        omega: (m,) real angular frequencies.
        V: (n, N) modes; the identity when omitted.
    """
    modal = B / (1j * omega[:, None] - lam)
    return modal if V is None else modal @ V.T


def transfer_function(lam: Tensor, B: Tensor, C: Tensor, omega: Tensor, D: float = 0.0) -> Tensor:
    """G(iω) = Σ_n C_n B_n / (iω − λ_n) + D of a diagonal system, shape (len(omega),)."""
    return diagonal_resolvent(lam, B, omega) @ C + D


def resolvent(a: Tensor, b: Tensor, omega: Tensor) -> Tensor:
    """(iω − A)^{-1} b of any real matrix, complex128 (len(omega), n).

    One complex Schur form and a back substitution over all frequencies at once, both backward stable: an
    eigendecomposition of a HiPPO matrix could not be trusted here.

    Args:
        a: (n, n) float64.
        b: (n,) float64.
        omega: (m,) angular frequencies, none of them an eigenvalue of −iA.
    """
    upper, q = scipy.linalg.schur(a.numpy().astype(complex), output="complex")
    s = 1j * omega.numpy()
    x = np.tile(q.conj().T @ b.numpy(), (len(s), 1))
    for i in reversed(range(len(b))):
        x[:, i] = (x[:, i] + x[:, i + 1 :] @ upper[i, i + 1 :]) / (s - upper[i, i])
    return torch.from_numpy(x @ q.T)


def hippo_resolvent(measure: str, n: int, omega: Tensor) -> Tensor:
    """X(iω) = (iω − A)^{-1}B of a HiPPO system, complex128 (len(omega), n).

    LegS in closed form, the others by ``resolvent``.
    """
    if measure == "legs":
        return legs_resolvent(omega, n)
    a, b = hippo(measure, n)
    reachable = torch.ones(n, dtype=torch.bool)
    if measure == "fout":
        # the sine of frequency zero: no input, no coupling, an eigenvalue 0 that would make ω = 0 singular
        reachable[1] = False
    result = torch.zeros(len(omega), n, dtype=torch.complex128)
    result[:, reachable] = resolvent(a[reachable][:, reachable], b[reachable], omega)
    return result


def deviation_sup(measure: str, lam: Tensor, B: Tensor, V: Tensor, omega: Tensor | None = None) -> float:
    """sup over ω of ‖V(iω − Λ)^{-1}B − (iω − A)^{-1}B_H‖₂, the distance of a diagonal system from HiPPO.

    Args:
        measure: the HiPPO system compared with.
        lam, B, V: the diagonal system, all modes (no conjugate halves); shapes (n,), (n,), (n, n).
        omega: frequencies; ``frequency_grid`` with the system's own resonances when omitted.
    """
    n = V.shape[0]
    if omega is None:
        omega = frequency_grid(n, lam)
    difference = diagonal_resolvent(lam, B, omega, V) - hippo_resolvent(measure, n, omega)
    return torch.linalg.vector_norm(difference, dim=1).max().item()


def apriori_bound(epsilon: float) -> float:
    """The bound 2ε/(1 − 2ε) on the deviation of LegS under any perturbation with ‖E‖₂ = ε < ½ (infinite beyond).

    It follows from sup_ω ‖(iω − A)^{-1}‖₂ < 2, itself a consequence of A + Aᵀ = −I − BBᵀ.
    """
    return 2 * epsilon / (1 - 2 * epsilon) if epsilon < 0.5 else math.inf
