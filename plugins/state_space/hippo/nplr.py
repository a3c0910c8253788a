"""Normal plus low rank: A = V Λ V* − PPᵀ with a unitary V, found without ever diagonalising A itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plugins.state_space.hippo.measures import hippo, rank_correction


@dataclass(frozen=True)
class NPLR:
    """A = V diag(lam) V* − Σ PPᵀ.

    Eigenvalues come in conjugate pairs ordered by decreasing imaginary part, so that states k and n−1−k are conjugate.

    Attributes:
        lam: (n,) complex128.
        V: (n, n) complex128, unitary.
        P: (r, n) float64, in the original coordinates.
        B: (n,) float64, in the original coordinates.
    """

    lam: Tensor
    V: Tensor
    P: Tensor
    B: Tensor

    def dplr(self) -> tuple[Tensor, Tensor, Tensor]:
        """(Λ, P̃, B̃) in the coordinates of V: A ≅ diag(Λ) − Σ P̃P̃*; shapes (n,), (r, n), (n,), complex128."""
        to_modal = self.V.mH
        return self.lam, self.P.to(self.V.dtype) @ to_modal.T, to_modal @ self.B.to(self.V.dtype)

    def matrix(self) -> Tensor:
        """A rebuilt from its parts, (n, n) complex128."""
        return (self.V * self.lam) @ self.V.mH - (self.P.T @ self.P)


def nplr(measure: str, n: int) -> NPLR:
    """The normal-plus-low-rank form of a HiPPO matrix (Gu, Goel & Ré 2022, theorem 1), in float64.

    Raises:
        ValueError: as ``hippo``.
    """
    a, b = hippo(measure, n)
    p = rank_correction(measure, n)
    normal = a + p.T @ p
    centre = torch.diagonal(normal).mean()
    if measure == "fout":
        frequency, v = _fourier_modes(normal)
    else:
        # −i·(skew) is Hermitian: eigh keeps V unitary to rounding, which eig would not
        frequency, v = torch.linalg.eigh(-1j * (normal - centre * torch.eye(n, dtype=a.dtype)))
        frequency, v = _paired(frequency, v)
    lam = torch.complex(centre.expand(n).clone(), frequency)
    return NPLR(lam, v, p, b)


def _paired(frequency: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Order by decreasing frequency and make the second half the exact conjugate of the first."""
    n = len(frequency)
    half = n // 2
    frequency, v = frequency.flip(0), v.flip(1)
    positive, vectors = frequency[:half], v[:, :half]
    middle_f = frequency.new_zeros(n % 2)
    middle_v = v[:, half : half + n % 2]
    if n % 2:
        # the zero mode of an odd skew matrix is real up to a phase
        anchor = middle_v[middle_v.abs().argmax(), 0]
        middle_v = (middle_v * (anchor.conj() / anchor.abs())).real.to(v.dtype)
    return (
        torch.cat([positive, middle_f, -positive.flip(0)]),
        torch.cat([vectors, middle_v, vectors.conj().flip(1)], dim=1),
    )


def _fourier_modes(skew: Tensor) -> tuple[Tensor, Tensor]:
    """Modes of the block-skew Fourier matrix, written down: its zero pair is degenerate, and eigh would mix it."""
    n = skew.shape[0]
    even = torch.arange(0, n, 2)
    frequency = skew[even + 1, even].flip(0)
    v = torch.zeros(n, n // 2, dtype=torch.complex128)
    pair = torch.arange(n // 2)
    v[2 * pair, pair] = 0.5**0.5
    v[2 * pair + 1, pair] = -1j * 0.5**0.5
    v = v.flip(1)
    return torch.cat([frequency, -frequency.flip(0)]), torch.cat([v, v.conj().flip(1)], dim=1)
