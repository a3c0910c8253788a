"""Learning energies and forces."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from framework.figures import save_figure
from plugins.equivariant import figures_tasks
from plugins.equivariant.calculator import Evaluation
from plugins.equivariant.geometry import random_orthogonal
from plugins.equivariant.graphs import Graph
from plugins.equivariant.modules.equal_time import EqualTime
from plugins.equivariant.molecules import SYMBOLS, reference_energies
from plugins.equivariant.molecules.graphs import check_species
from plugins.equivariant.potentials import Potential, Trajectory, energy_drift, net_torque, nve, rotational_spread


class Potentials(EqualTime):
    """Interatomic potentials side by side, from the same frames and for the same time.

    The loss is force_weight MSE(F) + energy_weight MSE(E) of energies above the species' references, all in units of
    the root mean square of the training forces.

    Args:
        networks, seconds, steps, lr, weight_decay, warmup, clip, ema_width, seed, fast: of ``EqualTime``. A
            network must take ``len(species)`` scalars and give one.
        species: atomic numbers that occur.
        radius: neighbourhood of the data, remembered for the calculator; None for all pairs.
        energy_weight, force_weight: of the loss.
        rotate: turn each training frame at random; an exactly equivariant network does not notice.
        spread_frames: test frames on which the energy's spread over rotations is measured.
        dynamics_ps: length in ps of the molecular dynamics that the test runs with each network; 0 for none.
        timestep_fs, temperature_k: of the dynamics.

    Logs ``test_energy_mae_mev/<name>``, ``test_force_mae_mev_per_angstrom/<name>``, ``energy_spread_mev/<name>``,
    ``net_torque_mev/<name>`` and ``drift_mev_per_atom_ps/<name>``; shows errors, parity and dynamics.
    """

    def __init__(
        self,
        networks: Any,
        species: list[int],
        seconds: float | None = None,
        steps: int | None = None,
        lr: Any = 5e-4,
        weight_decay: float = 0.0,
        warmup: float = 0.02,
        clip: float | None = 0.5,
        ema_width: float | None = 0.05,
        seed: int = 0,
        radius: float | None = None,
        energy_weight: float = 0.002,
        force_weight: float = 1.0,
        rotate: bool = True,
        spread_frames: int = 50,
        dynamics_ps: float = 0.0,
        timestep_fs: float = 0.5,
        temperature_k: float = 300.0,
        fast: bool = False,
    ) -> None:
        self.species, self.radius = list(species), radius
        super().__init__(networks, seconds, steps, lr, weight_decay, warmup, clip, ema_width, seed, fast)
        if energy_weight < 0 or force_weight < 0 or energy_weight + force_weight == 0:
            raise ValueError("energy_weight and force_weight must not be negative, nor both zero")
        if dynamics_ps < 0:
            raise ValueError(f"dynamics_ps must not be negative, not {dynamics_ps}")
        self.energy_weight, self.force_weight, self.rotate = energy_weight, force_weight, rotate
        self.spread_frames = min(spread_frames, 4) if fast else spread_frames
        self.dynamics_ps = min(dynamics_ps, 0.005) if fast else dynamics_ps
        self.timestep_fs, self.temperature_k, self.fast = timestep_fs, temperature_k, fast

    def wrap(self, network: nn.Module) -> nn.Module:
        return Potential(network, self.species, self.radius)

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        frames = self.trainer.datamodule.train_frames  # type: ignore[attr-defined]
        reference = reference_energies(frames, self.species)
        scale = float(np.sqrt(np.mean([np.square(frame.forces).mean() for frame in frames])))
        for potential in (*self.networks.values(), *self.averages.values()):
            potential.set_units(reference, scale)

    def augment(self, batch: Graph) -> Graph:
        if not self.rotate:
            return batch
        turn = random_orthogonal(batch.num_graphs, batch.pos)[batch.batch]
        pos, forces = torch.einsum("nij,knj->kni", turn, torch.stack([batch.pos, batch.y["forces"]]))
        if batch.shifts is not None:
            shifts = torch.einsum("eij,ej->ei", turn[batch.edge_index[0]], batch.shifts)
            batch = batch.replace(shifts=shifts, _paired=batch.paired)
        return batch.replace(pos=pos, y={**batch.y, "forces": forces})

    def loss(self, network: nn.Module, batch: Graph) -> Tensor:
        energy, forces = network.scaled(batch, create_graph=True)
        true_energy, true_forces = network.targets(batch)
        return (
            self.energy_weight * (energy - true_energy).square().mean()
            + self.force_weight * (forces - true_forces).square().mean()
        )

    def validation_step(self, batch: Graph, batch_idx: int) -> None:
        batch = _ordinary(batch)
        for name in self.names:
            _, forces = self._evaluate(name, batch)
            error = (forces - batch.y["forces"]).abs().mean() * 1000
            self.log(f"val_force_mae/{name}", error, prog_bar=True, batch_size=len(batch.pos), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self._parity: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in self.names}
        self._torque: dict[str, list[Tensor]] = {name: [] for name in self.names}
        self._spread: dict[str, list[Tensor]] = {name: [] for name in self.names}
        self._spread_left = self.spread_frames

    def test_step(self, batch: Graph, batch_idx: int) -> None:
        batch = _ordinary(batch)
        check_species(batch.x, self.species)
        for name in self.names:
            energy, forces = self._evaluate(name, batch)
            reference = self.trained(name).references(batch)
            true_energy, true_forces = batch.y["energy"], batch.y["forces"]
            self.log(
                f"test_energy_mae_mev/{name}",
                (energy - true_energy).abs().mean() * 1000,
                batch_size=batch.num_graphs,
                sync_dist=True,
            )
            self.log(
                f"test_force_mae_mev_per_angstrom/{name}",
                (forces - true_forces).abs().mean() * 1000,
                batch_size=len(batch.pos),
                sync_dist=True,
            )
            pair = (energy - reference, true_energy - reference, forces, true_forces)
            self._parity[name].append(tuple(tensor.cpu() for tensor in pair))
            self._torque[name].append(net_torque(batch, forces))
            if self._spread_left > 0:
                with torch.inference_mode(False):
                    self._spread[name].append(rotational_spread(self.trained(name), batch)[: self._spread_left])
        self._spread_left -= batch.num_graphs

    def on_test_epoch_end(self) -> None:
        for name in self.names:
            self.log(f"net_torque_mev/{name}", torch.cat(self._torque[name]).mean() * 1000, sync_dist=True)
            if self._spread[name]:
                spread = torch.cat(self._spread[name]).mean() * 1000
                self.log(f"energy_spread_mev/{name}", spread, sync_dist=True)
        self.log_dict(self.budget.metrics("train_"))
        metrics = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
        parity = {
            name: [torch.cat(tensors) for tensors in zip(*parts, strict=True)] for name, parts in self._parity.items()
        }
        save_figure(self, "test_errors", figures_tasks.potential_errors(metrics, self.names))
        save_figure(self, "parity", figures_tasks.parity(parity))
        if self.dynamics_ps > 0 and self.trainer.is_global_zero:
            trajectories = self._dynamics()
            for name, trajectory in trajectories.items():
                self.log(f"drift_mev_per_atom_ps/{name}", energy_drift(trajectory), rank_zero_only=True)
            save_figure(self, "molecular_dynamics", figures_tasks.dynamics(trajectories))

    def _dynamics(self) -> dict[str, Trajectory]:
        """Each potential in float64 from the first test frame."""
        frame = self.trainer.test_dataloaders.dataset.frames[0]  # type: ignore[union-attr]
        masses = _masses(frame.numbers)
        trajectories = {}
        with torch.inference_mode(False):
            for name in tqdm(self.names, desc="Molecular dynamics", disable=self.fast):
                evaluate = Evaluation(self.trained(name), torch.float64, self.device)
                try:
                    trajectories[name] = nve(
                        lambda pos, run=evaluate: run(frame.numbers, pos, frame.cell, frame.pbc),
                        frame.pos,
                        masses,
                        self.dynamics_ps,
                        self.timestep_fs,
                        self.temperature_k,
                    )
                except ValueError as error:  # one that explodes must not take the others' results with it
                    tqdm.write(f"{name}: {error}")
        return trajectories

    def _evaluate(self, name: str, batch: Graph) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False):
            return self.trained(name)(batch)


def _ordinary(batch: Graph) -> Graph:
    """The batch in tensors that may require gradients, which those of an evaluation loop may not."""
    with torch.inference_mode(False):
        fields = {
            key: value.clone()
            for key in ("pos", "x", "edge_index", "batch", "shifts")
            if isinstance(value := getattr(batch, key), Tensor)
        }
        y = {key: value.clone() for key, value in batch.y.items()}
        return batch.replace(**fields, y=y, _paired=batch.paired)


def _masses(numbers: np.ndarray) -> np.ndarray:
    try:
        from ase.data import atomic_masses
    except ImportError:
        raise ImportError("molecular dynamics need ASE's masses: pip install 'framework[equivariant]'") from None
    masses = atomic_masses[numbers]
    if not np.isfinite(masses).all():
        raise ValueError(f"no mass is known for {[SYMBOLS[z] for z in numbers]}")
    return masses
