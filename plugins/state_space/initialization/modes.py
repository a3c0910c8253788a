"""Initial modes of diagonal systems: S4D (Gu et al. 2022, arXiv 2206.11893) and perturb-then-diagonalise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from plugins.state_space.hippo import nplr
from plugins.state_space.ptd import PTDSolver, cached_solve

INITIALIZATIONS = (
    "ptd-legs",
    "ptd-legt",
    "ptd-fout",
    "s4d-legs",
    "s4d-legs-unhalved",
    "s4d-lin",
    "s4d-inv",
    "s4d-real",
    "random",
)


@dataclass(frozen=True)
class Modes:
    """A diagonal system x' = Λx + B̃u, read out by y = Re Σ weight·C̃x.

    Attributes:
        lam: (N,) complex128.
        B: (N,) complex128.
        V: (n, N) complex128, C̃ = C V for a readout C in the original coordinates; None where the modes are not
            those of a matrix (s4d-lin, s4d-inv, s4d-real, random).
        V_inverse: (N, n) complex128, B̃ = V^{-1} B; None with V.
        weight: (N,) float64, 2 for the one kept of a conjugate pair, else 1.
    """

    lam: Tensor
    B: Tensor
    V: Tensor | None
    V_inverse: Tensor | None
    weight: Tensor

    def repeated(self, blocks: int) -> Modes:
        """The block-diagonal system of ``blocks`` copies."""
        if blocks == 1:
            return self
        return Modes(
            self.lam.repeat(blocks),
            self.B.repeat(blocks),
            None if self.V is None else torch.block_diag(*[self.V] * blocks),
            None if self.V_inverse is None else torch.block_diag(*[self.V_inverse] * blocks),
            self.weight.repeat(blocks),
        )


def initial_modes(name: str, n: int, conj_sym: bool = True, solver: PTDSolver | None = None) -> Modes:
    """The modes of an initialisation.

    Args:
        name: one of ``INITIALIZATIONS``. ``s4d-legs`` carries the factor ½ of the theory in B, which makes it the
            diagonal system that tends to HiPPO as n grows; ``s4d-legs-unhalved`` is the control A_D, B (that is, PTD
            with E = ½BBᵀ). ``random`` draws frequencies log-uniformly from torch's global generator.
        n: real state size, at least 2.
        conj_sym: keep one of each conjugate pair, with weight 2 (the same system at half the cost).
        solver: of the perturbation, for ``ptd-*``; its result is cached on disk.

    Raises:
        ValueError: unknown name or n < 2.
    """
    if name not in INITIALIZATIONS:
        raise ValueError(f"init must be one of {', '.join(INITIALIZATIONS)}, not {name!r}")
    if n < 2:
        raise ValueError(f"the state size must be at least 2, not {n}")
    kind, _, variant = name.partition("-")
    if kind == "ptd":
        if solver is None:
            # only LegS has its optimum near the corner
            solver = PTDSolver() if variant == "legs" else PTDSolver(start="random")
        result = cached_solve(variant, n, solver)
        full = Modes(result.lam, result.B, result.V, torch.linalg.inv(result.V), torch.ones(n, dtype=torch.float64))
        return _half(full) if conj_sym else full
    if name.startswith("s4d-legs"):
        parts = nplr("legs", n)
        lam, _, b = parts.dplr()
        scale = 0.5 if name == "s4d-legs" else 1.0
        full = Modes(lam, scale * b, parts.V, parts.V.mH.resolve_conj(), torch.ones(n, dtype=torch.float64))
        return _half(full) if conj_sym else full
    lam = _closed_form(variant or kind, n // 2)
    if not conj_sym and name != "s4d-real":
        lam = torch.cat([lam, lam.conj()])
    pairs = conj_sym and name != "s4d-real"
    weight = torch.full((len(lam),), 2.0 if pairs else 1.0, dtype=torch.float64)
    return Modes(lam, torch.ones_like(lam), None, None, weight)


def _closed_form(variant: str, count: int) -> Tensor:
    k = torch.arange(count, dtype=torch.float64)
    n = 2 * count
    if variant == "real":
        return torch.complex(-(k + 1), torch.zeros_like(k))
    if variant == "lin":
        frequency = math.pi * k
    elif variant == "inv":
        frequency = n / math.pi * (n / (2 * k + 1) - 1)
    else:
        frequency = torch.exp(torch.rand(count, dtype=torch.float64) * math.log(max(2.0, n * n / math.pi)))
    return torch.complex(torch.full_like(k, -0.5), frequency)


def _half(full: Modes) -> Modes:
    """One of each conjugate pair, and every real mode."""
    upper, real = full.lam.imag > 0, full.lam.imag == 0
    keep = torch.nonzero(upper | real).squeeze(1)
    weight = torch.where(upper, 2.0, 1.0).to(torch.float64)
    assert full.V is not None and full.V_inverse is not None
    return Modes(full.lam[keep], full.B[keep], full.V[:, keep], full.V_inverse[keep], weight[keep])
