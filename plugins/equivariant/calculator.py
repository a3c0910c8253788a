"""A trained potential as a calculator of the Atomic Simulation Environment.

atoms.calc = calculator("runs/equivariant/ethanol/2026-...")
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plugins.equivariant.molecules import Frame
from plugins.equivariant.molecules.graphs import check_species, frame_graph
from plugins.equivariant.potentials import Potential

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def calculator(
    run_folder: str | Path,
    model: str | None = None,
    dtype: str | torch.dtype = "float64",
    device: str | torch.device = "cpu",
) -> Calculator:
    """The potential that a run has trained.

    Args:
        run_folder: of a run of ``equivariant/ethanol``, ``equivariant/molecules`` or another run of ``Potentials``.
        model: name of one of its networks; the first when omitted.
        dtype: "float64" makes energies smooth enough for long dynamics, "float32" is what it was trained in.
        device: where it computes.

    Raises:
        ImportError: ASE is missing.
        ValueError: the run has no such network, or no potentials.
    """
    from framework import load_run

    trained = load_run(run_folder).model
    potential = trained.trained(model) if hasattr(trained, "trained") else None
    if not isinstance(potential, Potential):
        raise ValueError(f"{run_folder} has trained no potential: its model is {type(trained).__name__}")
    return as_calculator(potential, dtype, device)


def as_calculator(
    potential: Potential, dtype: str | torch.dtype = "float64", device: str | torch.device = "cpu"
) -> Calculator:
    """The same from a ``Potential`` at hand, which is left as it is."""
    try:
        from ase.calculators.calculator import Calculator, all_changes
    except ImportError:
        raise ImportError("the calculator needs ASE: pip install 'framework[equivariant]'") from None
    chosen = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type such as 'float64', not {dtype!r}")
    evaluate = Evaluation(potential, chosen, device)

    class PotentialCalculator(Calculator):
        """Energy in eV and forces in eV / angstrom; neighbours are found anew for every geometry."""

        implemented_properties = ["energy", "free_energy", "forces"]

        def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes):
            super().calculate(atoms, properties, system_changes)
            atoms = self.atoms
            energy, forces = evaluate(atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
            self.results = {"energy": energy, "free_energy": energy, "forces": forces}

    return PotentialCalculator()


class Evaluation:
    """A potential as a function of arrays.

    Args:
        potential: copied, then moved to ``dtype`` and ``device``.
    """

    def __init__(self, potential: Potential, dtype: torch.dtype, device: str | torch.device = "cpu") -> None:
        self.potential = copy.deepcopy(potential).to(device=device, dtype=dtype).eval()
        # the conversion rounds the units too, and float32 has a step of half a meV at the energy of ethanol
        self.potential.reference = potential.reference.to(device)
        self.potential.scale = potential.scale.to(device)
        self.dtype, self.device = dtype, device

    def __call__(
        self,
        numbers: np.ndarray,
        pos: np.ndarray,
        cell: np.ndarray | None = None,
        pbc: Any = (False, False, False),
    ) -> tuple[float, np.ndarray]:
        """Energy in eV and forces (n, 3) in eV / angstrom.

        Raises:
            ValueError: an element that the potential does not know.
        """
        pbc = tuple(bool(p) for p in pbc)
        frame = Frame(np.asarray(numbers), np.asarray(pos), cell=cell if any(pbc) else None, pbc=pbc)
        graph = frame_graph(frame, self.potential.radius, self.dtype).to(self.device)
        check_species(graph.x, self.potential.species)
        energy, forces = self.potential(graph)
        return float(energy), forces.double().cpu().numpy()
