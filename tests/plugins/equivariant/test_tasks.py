"""Charged particles, molecules in files, potentials at work, networks side by side."""

import json

import numpy as np
import pytest
import torch

from plugins.equivariant.calculator import calculator
from plugins.equivariant.data import ExtXYZData, NBodyData
from plugins.equivariant.data.nbody import Windows
from plugins.equivariant.models import PONITA
from plugins.equivariant.modules.nbody import averaged_forecast, flip_charges, transform
from plugins.equivariant.molecules import read_extxyz
from plugins.equivariant.nbody import ChargedParticles, coulomb_forces, energy, fitted_time, simulate
from plugins.equivariant.potentials import energy_drift, nve
from plugins.equivariant.rotations import random_orthogonal


def test_coulomb_forces_are_the_gradient_of_the_energy_and_sum_to_zero():
    g = torch.Generator().manual_seed(0)
    pos = torch.randn(4, 5, 3, generator=g, dtype=torch.float64, requires_grad=True)
    charges = (torch.randint(0, 2, (4, 5), generator=g) * 2 - 1).double()
    (slope,) = torch.autograd.grad(energy(pos, torch.zeros_like(pos), charges).sum(), pos)
    forces = coulomb_forces(pos.detach().permute(1, 2, 0), charges.T).permute(2, 0, 1)
    assert torch.allclose(forces, -slope, rtol=1e-10)
    assert forces.sum(1).abs().max() < 1e-10
    assert coulomb_forces(1e-3 * pos.detach().permute(1, 2, 0), charges.T, max_force=100.0).abs().max() <= 100


def test_simulation_keeps_momentum_and_is_reproducible():
    settings = ChargedParticles(steps=400, max_force=1e9)  # the clip does not keep momentum
    a, b = (simulate(20, 3, settings) for _ in range(2))
    assert torch.equal(a.pos, b.pos) and not torch.equal(a.pos, simulate(20, 4, settings).pos)
    momentum = a.vel.sum(2)
    drift = (momentum - momentum[:, :1]).abs().amax((1, 2))
    assert float(drift.median()) < 2e-6
    assert ((a.vel[:, 0].norm(dim=-1) - 0.5).abs().median()) < 0.1


def test_fitted_time_is_least_squares():
    g = torch.Generator().manual_seed(0)
    pos, vel = (torch.randn(50, 3, generator=g, dtype=torch.float64) for _ in range(2))
    assert fitted_time(pos, vel, pos + 0.7 * vel) == pytest.approx(0.7, abs=1e-12)


def test_windows_augmentation_and_averaging():
    data = NBodyData(batch_size=4, fast=True)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch.pos.shape[1] == 3 and batch.num_graphs == 4 and len(batch.pos) == 20
    turn = random_orthogonal(4, batch.pos)
    turned = transform(batch, turn)
    back = transform(turned, turn.transpose(1, 2))
    assert torch.allclose(back.pos, batch.pos, atol=1e-5) and torch.allclose(back.y["pos"], batch.y["pos"], atol=1e-5)
    assert torch.equal(flip_charges(batch).x.abs(), batch.x.abs())
    network = PONITA(orientations=0, in_vectors=1, out_scalars=0, out_vectors=1, hidden=8, layers=1)

    def forecast(graph):
        return graph.pos + network(graph)[1][:, 0]

    with torch.no_grad():
        assert torch.allclose(averaged_forecast(forecast, batch, 3), forecast(batch), atol=1e-4)
    with pytest.raises(ValueError, match="start frame"):
        Windows(data.sets["train"].trajectories, [48], 10)


XYZ = """3
Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 pbc="F F F"
O 0 0 0 0.1 0 0
H 0.96 0 0 -0.1 0 0
H 0 0.96 0 0 0 0
"""


def test_extended_xyz(tmp_path):
    path = tmp_path / "water.xyz"
    path.write_text(XYZ * 2)
    frames = read_extxyz(path)
    assert len(frames) == 2 and frames[0].energy == -1.5 and frames[0].numbers.tolist() == [8, 1, 1]
    assert frames[1].forces[1, 0] == -0.1
    path.write_text(XYZ + "3\nProperties=species:S:1:pos:R:3\nO 0 0\n")
    with pytest.raises(ValueError, match=r"water\.xyz.*8"):
        read_extxyz(path)
    with pytest.raises(ValueError, match="Qq"):
        path.write_text(XYZ.replace("O 0 0 0", "Qq 0 0 0"))
        read_extxyz(path)


def spring(pos):
    """Two atoms at rest length 1."""
    r = pos[1] - pos[0]
    length = np.linalg.norm(r)
    force = 10 * (length - 1) * r / length
    return 5 * (length - 1) ** 2, np.stack([force, -force])


def test_dynamics_conserve_energy_to_second_order():
    start = np.array([[0.0, 0, 0], [1.1, 0, 0]])
    spreads = []
    for timestep in (1.0, 0.5):
        trajectory = nve(spring, start, np.array([1.0, 12.0]), 0.2, timestep, 300.0, seed=0, every=1)
        spreads.append(np.ptp(trajectory.total))
    assert spreads[1] < 0.3 * spreads[0]
    assert abs(energy_drift(trajectory)) < 5


@pytest.fixture(scope="module")
def potential_run(tmp_path_factory):
    from framework.__main__ import main

    root = tmp_path_factory.mktemp("potential")
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(30):
        pos = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + 0.05 * rng.normal(size=(3, 3))
        forces = rng.normal(size=(3, 3))
        forces -= forces.mean(0)
        rows = [f"{s} {' '.join(map(str, [*p, *f]))}" for s, p, f in zip("OHH", pos, forces, strict=True)]
        lines += ["3", f"Properties=species:S:1:pos:R:3:forces:R:3 energy={rng.normal()}", *rows]
    (root / "data").mkdir()
    (root / "data" / "water.xyz").write_text("\n".join(lines) + "\n")
    patch = pytest.MonkeyPatch()
    patch.chdir(root)
    patch.setenv("FRAMEWORK_DATA", str(root / "data"))
    patch.setattr(
        "sys.argv",
        ["framework", "+experiment=equivariant/ethanol", "debug=fast", "data.train_file=water.xyz",
         "data.test_file=null",
         "data.train=6", "data.val=2", "model.dynamics_ps=0.005"],
    )  # fmt: skip
    assert (main() or 0) == 0
    yield next((root / "runs" / "equivariant" / "ethanol").glob("*/record.json")).parent
    patch.undo()


def test_a_run_of_potentials_reports_every_network(potential_run):
    metrics = json.loads((potential_run / "metrics.json").read_text())
    for name in ("ponita", "pnita", "egnn", "steerable"):
        for metric in ("test_force_mae_mev_per_angstrom", "test_energy_mae_mev", "energy_spread_mev", "net_torque_mev"):
            assert np.isfinite(metrics[f"{metric}/{name}"])
    assert metrics["energy_spread_mev/pnita"] < 1e-2 and metrics["net_torque_mev/egnn"] < 1e-1
    assert len(list((potential_run / "figures").glob("*.png"))) >= 2


def test_a_run_folder_is_an_ase_calculator(potential_run):
    ase = pytest.importorskip("ase", reason="the extra equivariant is not installed")
    atoms = ase.Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    atoms.calc = calculator(potential_run, "pnita")
    forces = atoms.get_forces()
    assert np.abs(forces.sum(0)).max() < 1e-12
    h, numeric = 1e-5, np.zeros((3, 3))
    for i in range(3):
        for k in range(3):
            energies = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.calc = atoms.calc
                moved.positions[i, k] += sign * h
                energies.append(moved.get_potential_energy())
            numeric[i, k] = -(energies[0] - energies[1]) / (2 * h)
    assert np.abs(numeric - forces).max() < 1e-8 * max(1, np.abs(forces).max())
    with pytest.raises(ValueError, match="nequip"):
        calculator(potential_run, "nequip")


def test_missing_files_say_what_to_do(tmp_path, monkeypatch):
    from framework.errors import DataMissing

    monkeypatch.setenv("FRAMEWORK_DATA", str(tmp_path))
    with pytest.raises((DataMissing, FileNotFoundError), match="none"):
        ExtXYZData("none.xyz").setup()
