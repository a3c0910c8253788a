"""Perturb-then-diagonalise: eigenvectors of A + E for a small, optimised E (Yu et al., ICLR 2024, arXiv 2310.01698)."""

from plugins.state_space.ptd.cache import cached_solve
from plugins.state_space.ptd.diagonalize import IllConditionedWarning, diagonalize
from plugins.state_space.ptd.solver import PTDResult, PTDSolver, evaluate_perturbation

__all__ = [
    "IllConditionedWarning",
    "PTDResult",
    "PTDSolver",
    "cached_solve",
    "diagonalize",
    "evaluate_perturbation",
]
