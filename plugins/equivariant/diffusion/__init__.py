"""Diffusion over the atoms' positions and types, and what makes a sample a molecule."""

from .noise import centre, decode, encode, noise_like
from .objective import MoleculeDenoiser, denoising_loss
from .sampling import sample_molecules
from .stability import VALENCES, bond_orders, formula, fragments, graph_key, stable_atoms

__all__ = [
    "VALENCES",
    "MoleculeDenoiser",
    "bond_orders",
    "centre",
    "decode",
    "denoising_loss",
    "encode",
    "formula",
    "fragments",
    "graph_key",
    "noise_like",
    "sample_molecules",
    "stable_atoms",
]
