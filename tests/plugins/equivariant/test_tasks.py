"""Data, physics, potentials and generation: closed forms, identities, and errors that name what is wrong."""

import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import plugins.equivariant
from framework.data import data_dir
from plugins.equivariant import diffusion
from plugins.equivariant.calculator import Evaluation, as_calculator
from plugins.equivariant.data import ExtXYZData, NBodyData, QM9Data, SmallMoleculesData
from plugins.equivariant.data.qm9 import qm9_order
from plugins.equivariant.equivariance import random_cloud
from plugins.equivariant.geometry import random_orthogonal
from plugins.equivariant.graphs import collate, end_to_end
from plugins.equivariant.models import EGNN, PONITA
from plugins.equivariant.modules import EqualTime, NBodyForecasters
from plugins.equivariant.modules.nbody import averaged_forecast, flip_charges, transform
from plugins.equivariant.molecules import (
    PROPERTIES,
    Frame,
    atomisation,
    read_extxyz,
    read_qm9_xyz,
    read_rmd17,
    reference_energies,
    write_xyz,
)
from plugins.equivariant.molecules.graphs import batch_frames, frame_graph
from plugins.equivariant.molecules.qm9 import FREE_ATOMS, HARTREE
from plugins.equivariant.nbody import ChargedParticles, coulomb_forces, energy, fitted_time, simulate
from plugins.equivariant.potentials import Potential, energy_drift, net_torque, nve, rotational_spread
from plugins.equivariant.studies.speed import some_edges


def molecule(n=5, seed=0, species=(1, 6, 8), energy=-3.0):
    rng = np.random.default_rng(seed)
    pos = rng.normal(size=(n, 3)) * 1.5
    return Frame(rng.choice(species, n), pos, energy, rng.normal(size=(n, 3)))


def potential(orientations=0, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    network = PONITA(in_scalars=3, hidden=8, layers=2, orientations=orientations, smooth=True)
    return Potential(network.to(dtype), [1, 6, 8])


# charged particles


def test_coulomb_forces_are_the_gradient_of_the_energy_and_sum_to_zero():
    torch.manual_seed(0)
    pos = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    charges = torch.randint(0, 2, (4, 5)).double() * 2 - 1
    total = energy(pos, torch.zeros_like(pos), charges).sum()
    (gradient,) = torch.autograd.grad(total, pos)
    forces = coulomb_forces(pos.detach().permute(1, 2, 0), charges.T).permute(2, 0, 1)
    torch.testing.assert_close(forces, -gradient, rtol=1e-12, atol=1e-12)
    assert forces.sum(1).abs().max() < 1e-12


def test_forces_are_clipped_at_a_close_encounter():
    pos = torch.tensor([[[0.0], [0.0], [0.0]], [[1e-3], [0.0], [0.0]]])
    assert coulomb_forces(pos, torch.ones(2, 1), max_force=100.0)[:, 0, 0].tolist() == [-100.0, 100.0]


def test_a_lone_particle_moves_straight():
    settings = ChargedParticles(particles=1, steps=301)
    trajectories = simulate(3, 0, settings)
    assert trajectories.pos.shape == (3, 3, 1, 3)
    # frames lie after 100, 200, 300 steps of 1e-3
    step = trajectories.pos[:, 1:] - trajectories.pos[:, :-1]
    torch.testing.assert_close(step, 0.1 * trajectories.vel[:, 1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(trajectories.vel.norm(dim=-1), torch.full((3, 3, 1), 0.5))


def test_the_integrator_conserves_energy_and_momentum_and_is_seeded():
    settings = ChargedParticles(steps=1001)
    trajectories = simulate(40, 3, settings)
    assert torch.equal(trajectories.pos, simulate(40, 3, settings).pos)
    assert not torch.equal(trajectories.pos, simulate(40, 4, settings).pos)
    values = energy(trajectories.pos.double(), trajectories.vel.double(), trajectories.charges[:, None].double())
    assert (values[:, -1] - values[:, 0]).abs().median() < 0.02
    momentum = trajectories.vel.double().sum(2)
    assert (momentum[:, -1] - momentum[:, 0]).norm(dim=-1).median() < 1e-5


def test_the_benchmark_s_floors():
    """The values that the standard data set gives: staying .27, straight .108, best straight line .084."""
    trajectories = simulate(1000, 43)
    pos, vel, target = trajectories.pos[:, 30], trajectories.vel[:, 30], trajectories.pos[:, 40]
    time = fitted_time(pos, vel, target)
    errors = [(guess - target).square().mean() for guess in (pos, pos + vel, pos + time * vel)]
    for error, expected in zip(errors, (0.271, 0.1075, 0.0840), strict=True):
        assert error == pytest.approx(expected, rel=0.1)
    assert time == pytest.approx(0.738, abs=0.02)


def test_fitted_time_of_straight_motion():
    pos, vel = torch.randn(7, 3), torch.randn(7, 3)
    assert fitted_time(pos, vel, pos + 0.3 * vel) == pytest.approx(0.3, abs=1e-6)
    with pytest.raises(ValueError, match="zero"):
        fitted_time(pos, 0 * vel, pos)


def test_windows_forwards_and_backwards():
    data = NBodyData(train=4, val=2, test=2, train_starts="all", reversible=True)
    data.setup()
    windows, kept = data.sets["train"], data.sets["train"].trajectories
    assert len(windows) == 4 * 39 * 2
    forwards, backwards = windows[2 * 50], windows[2 * 50 + 1]
    row, start = divmod(50, 39)
    assert torch.equal(forwards.pos, kept.pos[row, start])
    assert torch.equal(forwards.y["pos"], kept.pos[row, start + 10])
    assert torch.equal(backwards.pos, forwards.y["pos"]) and torch.equal(backwards.y["pos"], forwards.pos)
    assert torch.equal(backwards.vec[:, 0], -kept.vel[row, start + 10])
    with pytest.raises(ValueError, match="train_starts"):
        NBodyData(train_starts="some")
    with pytest.raises(ValueError, match="frames"):
        NBodyData(start=45)


def test_rotations_are_orthogonal_and_even():
    torch.manual_seed(0)
    matrices = random_orthogonal(2000, torch.zeros(3, dtype=torch.float64))
    eye = torch.eye(3, dtype=torch.float64).expand(2000, 3, 3)
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), eye, rtol=0, atol=1e-12)
    assert abs(torch.linalg.det(matrices).mean()) < 0.1
    assert matrices.mean(0).abs().max() < 0.06
    proper = random_orthogonal(50, torch.zeros(3, dtype=torch.float64), proper=True)
    torch.testing.assert_close(torch.linalg.det(proper), torch.ones(50, dtype=torch.float64))


def test_forecasts_of_an_equivariant_network_do_not_change_by_averaging():
    data = NBodyData(train=4, val=2, test=2)
    data.setup()
    graph = data.sets["test"].__getitems__([0, 1]).to(torch.float64)
    torch.manual_seed(0)
    model = NBodyForecasters(
        {"egnn": lambda: EGNN(in_vectors=1, out_scalars=0, out_vectors=1, hidden=8, layers=2)}, steps=1
    ).double()
    network = model.trained("egnn")
    torch.testing.assert_close(averaged_forecast(network, graph, 3), network(graph), rtol=0, atol=1e-10)
    matrices = random_orthogonal(2, graph.pos)
    turned = network(transform(graph, matrices))
    expected = torch.einsum("nij,nj->ni", matrices[graph.batch], network(graph))
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-10)
    flipped = flip_charges(graph)
    ratio = (flipped.x / graph.x).reshape(2, 5)
    assert (ratio == ratio[:, :1]).all() and (ratio.abs() == 1).all()
    with pytest.raises(ValueError, match="no network 'segnn'"):
        model.trained("segnn")


def test_some_edges_are_pairs_of_every_graph():
    graph = random_cloud([5, 5], 2)
    some = some_edges(graph, 6, seed=0)
    assert some.check().paired and some.edge_index.shape == (2, 12)
    assert torch.bincount(some.batch[some.edge_index[0]]).tolist() == [6, 6]
    assert len(set(map(tuple, some.edge_index.T.tolist()))) == 12
    with pytest.raises(ValueError, match="even number up to 20"):
        some_edges(graph, 22, seed=0)


def test_budgets_are_checked():
    with pytest.raises(ValueError, match="budget"):
        EqualTime({"a": lambda: EGNN()})
    with pytest.raises(ValueError, match="no rate for a"):
        EqualTime({"a": lambda: EGNN()}, steps=3, lr={"b": 1.0})


# readers


def test_extended_xyz_round_trip(tmp_path):
    frames = [molecule(seed=s) for s in range(3)]
    frames.append(Frame(np.array([6]), np.zeros((1, 3)), -1.5, np.ones((1, 3)), np.diag([4.0, 5, 6]), (True,) * 3))
    back = read_extxyz(write_xyz(tmp_path / "a.xyz", frames))
    for one, two in zip(frames, back, strict=True):
        assert np.array_equal(one.numbers, two.numbers) and one.pbc == two.pbc
        np.testing.assert_allclose(one.pos, two.pos, atol=1e-8)
        np.testing.assert_allclose(one.forces, two.forces, atol=1e-8)
        assert two.energy == pytest.approx(one.energy)
    np.testing.assert_allclose(back[3].cell, np.diag([4.0, 5, 6]))


def test_extended_xyz_agrees_with_ase(tmp_path):
    io = pytest.importorskip("ase.io")
    path = write_xyz(tmp_path / "a.xyz", [molecule()])
    atoms = io.read(path)
    mine = read_extxyz(path)[0]
    np.testing.assert_allclose(atoms.positions, mine.pos)
    np.testing.assert_allclose(atoms.get_forces(), mine.forces)
    assert atoms.get_potential_energy() == pytest.approx(mine.energy)


GOOD = "2\nProperties=species:S:1:pos:R:3 energy=1.0\nH 0 0 0\nH 0 0 1\n"


@pytest.mark.parametrize(
    "text, message",
    [
        (GOOD.replace("2\n", "two\n", 1), "line 1: expected the number of atoms"),
        (GOOD.replace("2\n", "3\n", 1), "line 1: the frame announces 3 atoms"),
        (GOOD.replace("H 0 0 1", "H 0 0"), "line 4: expected 4 columns, found 3"),
        (GOOD.replace("H 0 0 1", "H 0 0 x"), "line 4: pos expects numbers, found 'x'"),
        (GOOD.replace("H 0 0 1", "H 0 0 nan"), "line 4: pos is not finite"),
        (GOOD.replace("H 0 0 1", "Qq 0 0 1"), "line 4: 'Qq' is not the symbol"),
        (GOOD.replace("energy=1.0", "energy=low"), "line 2: energy is no number"),
        (GOOD.replace("energy=1.0", 'Lattice="1 2"'), "line 2: Lattice must hold nine"),
        (GOOD.replace("pos:R:3", "pos:R"), "line 2: Properties must be"),
        ("\n", "holds no frame"),
    ],
)
def test_malformed_xyz_names_file_and_line(tmp_path, text, message):
    path = tmp_path / "bad.xyz"
    path.write_text(text)
    with pytest.raises(ValueError, match="bad.xyz") as error:
        read_extxyz(path)
    assert message in str(error.value)


def test_rmd17_units_and_errors(tmp_path):
    path = tmp_path / "m.npz"
    arrays = dict(
        nuclear_charges=np.array([1, 8]), coords=np.ones((3, 2, 3)), energies=np.arange(3.0), forces=np.ones((3, 2, 3))
    )
    np.savez(path, **arrays)
    (frame,) = read_rmd17(path, [2])
    # 23.0605 kcal/mol are one eV
    assert frame.energy == pytest.approx(2 / 23.060548, rel=1e-6)
    assert frame.forces[0, 0] == pytest.approx(1 / 23.060548, rel=1e-6)
    with pytest.raises(ValueError, match="index 3"):
        read_rmd17(path, [3])
    np.savez(path, **{**arrays, "forces": np.ones((3, 1, 3))})
    with pytest.raises(ValueError, match="shape"):
        read_rmd17(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match="not an .npz"):
        read_rmd17(path)


def qm9_text(index=1, count=5):
    values = "\t".join(["157.7", "157.7", "157.7", "0.", "13.21", "-0.3877", "0.1171", "0.5048", "35.36", "0.044749"])
    values += "\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469"
    atoms = [f"{s}\t{0.1 * i}\t1.*^-2\t-0.5\t-0.1" for i, s in enumerate("CHHHH")]
    return "\n".join([str(count), f"gdb {index}\t{values}", *atoms, "1341.3\t1562", "C\tC", "InChI"])


def test_qm9_format():
    frame = read_qm9_xyz(qm9_text().splitlines(), "a.xyz")
    assert frame.numbers.tolist() == [6, 1, 1, 1, 1] and frame.pos[2].tolist() == [0.2, 0.01, -0.5]
    assert frame.info["index"] == 1 and frame.info["alpha"] == 13.21 and frame.info["cv"] == 6.469
    assert frame.info["gap"] == pytest.approx(0.5048 * HARTREE)
    expected = (-40.47893 - FREE_ATOMS["U0"][6] - 4 * FREE_ATOMS["U0"][1]) * HARTREE
    assert atomisation(frame, "U0") == pytest.approx(expected)
    assert -18 < expected < -16  # methane is bound by 17 eV
    with pytest.raises(ValueError, match="a.xyz, line 2"):
        read_qm9_xyz(qm9_text().replace("gdb", "x").splitlines(), "a.xyz")
    with pytest.raises(ValueError, match="a.xyz, line 3"):
        read_qm9_xyz(qm9_text().replace("C\t0.0", "Zz\t0.0").splitlines(), "a.xyz")


def test_qm9_data_from_an_archive_of_its_format(tmp_path, monkeypatch):
    folder = tmp_path / "molecules" / "qm9"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as tar:
        for index in range(1, 13):
            file = tmp_path / f"dsgdb9nsd_{index:06d}.xyz"
            file.write_text(qm9_text(index))
            tar.add(file, file.name)
    (folder / "uncharacterized.txt").write_text("Index  Smiles\n-----\n  3  C#N\n  7  CC\n-----\n")
    monkeypatch.setenv("FRAMEWORK_DATA", str(tmp_path))
    data = QM9Data(target="U0", train=6, val=2, batch_size=3)
    data.setup()
    assert [len(data.sets[part]) for part in ("train", "val", "test")] == [6, 2, 2]
    used = [frame.info["index"] for part in data.sets.values() for frame in part.frames]
    assert sorted(used) == [1, 2, 4, 5, 6, 8, 9, 10, 11, 12]
    batch = next(iter(data.train_dataloader()))
    assert batch.num_graphs == 3 and batch.y["target"].shape == (3,) and len(batch.pos) == 15
    assert np.array_equal(qm9_order(130831)[:3], np.random.RandomState(42).permutation(130831)[:3])
    with pytest.raises(ValueError, match="target"):
        QM9Data(target="beta")


def test_missing_files_are_told(tmp_path, monkeypatch):
    from framework.errors import DataMissing

    monkeypatch.setenv("FRAMEWORK_DATA", str(tmp_path))
    with pytest.raises(DataMissing, match="nothing.xyz"):
        ExtXYZData("nothing.xyz").setup()


def test_splits_are_disjoint_and_too_few_frames_are_told(tmp_path):
    path = write_xyz(tmp_path / "a.xyz", [molecule(seed=s, energy=float(s)) for s in range(20)])
    data = ExtXYZData(str(path), train=10, val=4, test=6)
    data.setup()
    energies = [f.energy for part in data.sets.values() for f in part.frames]
    assert sorted(energies) == list(range(20))
    with pytest.raises(ValueError, match="lower one"):
        ExtXYZData(str(path), train=30, val=4, test=6).setup()


# potentials


def test_reference_energies():
    frames = [molecule(seed=s) for s in range(12)]
    truth = np.array([-1.0, -20.0, -40.0])
    made = [Frame(f.numbers, f.pos, float(sum(truth[[1, 6, 8].index(z)] for z in f.numbers)), f.forces) for f in frames]
    np.testing.assert_allclose(reference_energies(made, [1, 6, 8]), truth, atol=1e-9)
    one = [Frame(frames[0].numbers, frames[0].pos, e) for e in (1.0, 3.0)]
    fitted = reference_energies(one, [1, 6, 8])
    assert sum(fitted[[1, 6, 8].index(z)] for z in frames[0].numbers) == pytest.approx(2.0)
    with pytest.raises(ValueError, match=r"\[8\]"):
        reference_energies([Frame(np.array([8]), np.zeros((1, 3)), 0.0)], [1])


@pytest.mark.parametrize("orientations", [0, 12])
def test_forces_are_minus_the_gradient_in_ev(orientations):
    model = potential(orientations)
    model.set_units([-1.0, -2.0, -3.0], 1.7)
    graph = batch_frames([molecule(4), molecule(6, 1)], dtype=torch.float64)
    _, forces = model(graph)
    h = 1e-4
    for atom, axis in ((0, 0), (3, 1), (7, 2)):
        step = torch.zeros_like(graph.pos)
        step[atom, axis] = h
        high, low = (model(graph.replace(pos=graph.pos + s * step))[0].sum() for s in (1, -1))
        assert forces[atom, axis] == pytest.approx(float(-(high - low) / (2 * h)), abs=1e-8, rel=1e-7)
    total = torch.zeros(2, 3, dtype=torch.float64).index_add(0, graph.batch, forces)
    assert total.abs().max() < 1e-12


def test_a_potential_of_distances_has_no_torque_and_no_spread():
    model, graph = potential(0), batch_frames([molecule(5)], dtype=torch.float64)
    _, forces = model(graph)
    assert net_torque(graph, forces).max() < 1e-12
    assert rotational_spread(model, graph).max() < 1e-12
    fixed = potential(12)
    assert rotational_spread(fixed, graph).max() > 1e-9


def test_single_atoms_have_their_reference_energy_and_no_force():
    model = potential(0)
    others = molecule(3)
    lone = batch_frames(
        [Frame(np.array([8]), np.zeros((1, 3))), Frame(others.numbers, others.pos)], dtype=torch.float64
    )
    energy_, forces = model(lone)
    assert forces[0].abs().max() == 0
    single = model(frame_graph(Frame(np.array([8]), np.ones((1, 3))), dtype=torch.float64))[0]
    assert single[0] == pytest.approx(float(energy_[0]))


def batch_without_targets(frames):
    return end_to_end([frame_graph(Frame(f.numbers, f.pos)) for f in frames])


def test_join_is_collate():
    frames = [molecule(3), molecule(1, 1), molecule(5, 2)]
    graphs = [frame_graph(f) for f in frames]
    one, two = end_to_end(graphs), collate(graphs)
    for name in ("pos", "x", "edge_index", "batch"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert one.y.keys() == two.y.keys() and one.paired == two.paired
    assert batch_without_targets(frames).y == {}


def test_velocity_verlet_follows_the_harmonic_oscillator():
    """Two atoms on a spring, in units whose constants are known apart from the code: k = 10 eV/A^2, mu = 0.5 u."""
    k, rest = 10.0, 1.0

    def spring(pos):
        rel = pos[1] - pos[0]
        length = np.linalg.norm(rel)
        force = -k * (length - rest) * rel / length
        return 0.5 * k * (length - rest) ** 2, np.stack([-force, force])

    start = np.array([[0.0, 0, 0], [1.1, 0, 0]])
    # no temperature: it swings along the axis with omega = sqrt(k / mu) = sqrt(20 eV / (A^2 u))
    omega = math.sqrt(20 * 1.602176634e-19 / (1e-20 * 1.66053907e-27))
    trajectory = nve(spring, start, np.ones(2), picoseconds=0.1, timestep=0.05, temperature=0.0, every=1)
    length = np.linalg.norm(trajectory.pos[:, 1] - trajectory.pos[:, 0], axis=-1)
    np.testing.assert_allclose(length, 1 + 0.1 * np.cos(omega * trajectory.times * 1e-12), atol=2e-4)
    assert abs(energy_drift(trajectory)) < 1e-2
    coarse, fine = (np.ptp(nve(spring, start, np.ones(2), 0.05, dt, 0.0, every=1).total) for dt in (0.4, 0.2))
    assert coarse / fine == pytest.approx(4, rel=0.1)  # second order
    with pytest.raises(ValueError, match="timestep"):
        nve(spring, start, np.ones(2), 1.0, 0.0)


def test_drawn_velocities_have_the_temperature_and_no_momentum():
    masses = np.linspace(1, 16, 400)
    trajectory = nve(lambda pos: (0.0, np.zeros_like(pos)), np.zeros((400, 3)), masses, 0.001, temperature=500.0)
    assert trajectory.temperature[0] == pytest.approx(500, rel=0.1)
    moved = (masses[:, None] * (trajectory.pos[-1] - trajectory.pos[0])).sum(0)
    assert np.abs(moved).max() < 1e-9


def test_calculator_serves_ase():
    ase = pytest.importorskip("ase")
    model = potential(0, dtype=torch.float32)
    model.set_units([-13.6, -1029.123456789, -2035.987654321], 1.2)
    frame = molecule(5)
    atoms = ase.Atoms(frame.numbers, frame.pos)
    atoms.calc = as_calculator(model)
    energy_, forces = Evaluation(model, torch.float64)(frame.numbers, frame.pos)
    assert atoms.get_potential_energy() == energy_ and np.array_equal(atoms.get_forces(), forces)
    # the units stay exact and the caller's potential as it is
    single, _ = Evaluation(model, torch.float64)(np.array([8]), np.zeros((1, 3)))
    network, _ = model.double().scaled(frame_graph(Frame(np.array([8]), np.zeros((1, 3))), dtype=torch.float64))
    assert single == pytest.approx(-2035.987654321 + 1.2 * float(network), abs=1e-6)
    atoms.numbers[0] = 7
    with pytest.raises(ValueError, match=r"\[7\]"):
        atoms.get_potential_energy()
    with pytest.raises(ValueError, match="dtype"):
        as_calculator(model, "int64")


# generation


def test_bonds_and_valences_of_known_molecules():
    build = pytest.importorskip("ase.build").molecule
    for name, stable, bonds in (("CH4", 5, 4), ("H2O", 3, 2), ("CH3CH2OH", 9, 8), ("C2H4", 6, 5), ("C2H2", 4, 3)):
        atoms = build(name)
        orders = diffusion.bond_orders(atoms.numbers, atoms.positions)
        assert (orders == orders.T).all() and (np.triu(orders) > 0).sum() == bonds, name
        assert diffusion.stable_atoms(atoms.numbers, atoms.positions).sum() == stable, name
        assert diffusion.fragments(orders) == 1
    benzene = build("C6H6")
    assert diffusion.stable_atoms(benzene.numbers, benzene.positions).sum() == 6
    acetylene = build("C2H2")
    assert diffusion.bond_orders(acetylene.numbers, acetylene.positions).max() == 3
    apart = np.concatenate([acetylene.positions, acetylene.positions + 20])
    assert diffusion.fragments(diffusion.bond_orders(np.tile(acetylene.numbers, 2), apart)) == 2
    with pytest.raises(ValueError, match="17"):
        diffusion.bond_orders(np.array([17]), np.zeros((1, 3)))


def test_graph_keys_tell_isomers_apart_and_not_orders_of_atoms():
    build = pytest.importorskip("ase.build").molecule
    keys = []
    for name in ("CH3CH2OH", "CH3OCH3"):
        atoms = build(name)
        order = np.random.default_rng(0).permutation(len(atoms))
        for numbers, pos in (
            (atoms.numbers, atoms.positions),
            (atoms.numbers[order], atoms.positions[order]),
        ):
            keys.append(diffusion.graph_key(numbers, diffusion.bond_orders(numbers, pos)))
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert keys[0].startswith("C2H6O-")


def test_states_have_no_centre_of_mass_and_decode_to_what_was_encoded():
    table = torch.tensor([1, 6, 8])
    graph = batch_frames([molecule(4), molecule(2, 1), molecule(1, 2)], dtype=torch.float64)
    state = diffusion.encode(graph.pos, graph.x, table, 1.5, graph.batch, 3)
    noise = diffusion.noise_like(state, graph.batch, 3)
    for value in (state, noise):
        sums = torch.zeros(3, 3, dtype=torch.float64).index_add(0, graph.batch, value[:, :3])
        assert sums.abs().max() < 1e-12
    pos, numbers = diffusion.decode(state, table, 1.5)
    assert torch.equal(numbers, graph.x[:, 0].long())
    torch.testing.assert_close(pos, diffusion.centre(graph.pos, graph.batch, 3))


def test_the_denoising_loss_is_the_weighted_error_of_the_denoised_state():
    from plugins.generative.parameterizations import EDMDenoiser

    torch.manual_seed(0)
    network = PONITA(in_scalars=4, out_scalars=3, out_vectors=1, hidden=8, layers=1, orientations=0).double()
    denoiser = diffusion.MoleculeDenoiser(network)
    graph = batch_frames([molecule(4), molecule(3, 1)], dtype=torch.float64).replace(y={})
    state = diffusion.encode(graph.pos, graph.x, torch.tensor([1, 6, 8]), 1.5, graph.batch, 2)
    sigma = torch.tensor([0.3, 2.0], dtype=torch.float64)
    loss = diffusion.denoising_loss(denoiser, graph, state, sigma, generator=torch.Generator().manual_seed(1))
    noise = diffusion.noise_like(state, graph.batch, 2, torch.Generator().manual_seed(1))
    level = sigma[graph.batch][:, None]
    model = EDMDenoiser(lambda x, c: denoiser(graph, x, c), 1.0)
    denoised = []
    for g in range(2):  # level by level, as a solver calls it
        denoised.append(model(state + level * noise, sigma[g])[graph.batch == g])
    weight = (level**2 + 1) / level**2
    expected = (weight * (torch.cat(denoised) - state) ** 2).mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", ["Heun", "DPMSolverPP2M", "DPMSolverPP2MSDE"])
def test_samples_have_the_sizes_asked_for_no_centre_of_mass_and_a_seed(name):
    from plugins.generative import solvers
    from plugins.generative.grids import karras

    torch.manual_seed(0)
    network = PONITA(in_scalars=4, out_scalars=3, out_vectors=1, hidden=8, layers=1, orientations=0)
    denoiser = diffusion.MoleculeDenoiser(network)
    table, solver = torch.tensor([1, 6, 8]), getattr(solvers, name)()

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return diffusion.sample_molecules(
            denoiser, [3, 1, 5], table, 1.5, solver, karras(6, 10.0, 0.01), 1.0, generator
        )

    frames = draw(0)
    assert [len(f) for f in frames] == [3, 1, 5]
    assert max(np.abs(f.pos.mean(0)).max() for f in frames) < 1e-4
    assert all(set(f.numbers.tolist()) <= {1, 6, 8} for f in frames)
    again, other = draw(0), draw(1)
    assert np.array_equal(frames[2].pos, again[2].pos) and not np.array_equal(frames[2].pos, other[2].pos)
    with pytest.raises(ValueError, match="sizes"):
        diffusion.sample_molecules(denoiser, [0], table, 1.5, solver, karras(6, 10.0, 0.01))


def test_small_molecules_are_closed_shell_and_known():
    pytest.importorskip("ase")
    data = SmallMoleculesData(batch_size=8, repeats=2)
    data.setup()
    assert len(data.train_frames) == 73 and len(data.sets["train"]) == 146
    assert {"CH4", "H2O", "CH3CH2OH"} <= {frame.info["name"] for frame in data.train_frames}
    assert len(PROPERTIES) == 15
    assert next(iter(data.train_dataloader())).num_graphs == 8
    with pytest.raises(ValueError, match="source"):
        SmallMoleculesData(source="zinc")


@pytest.mark.parametrize("experiment", ["ethanol", "molecules"])
def test_the_splits_of_the_experiments_exist(experiment):
    """At full size: under `fast` any numbers will do."""
    path = Path(plugins.equivariant.__path__[0]) / "conf/experiment/equivariant" / f"{experiment}.yaml"
    options = OmegaConf.to_container(OmegaConf.load(path)["data"]) | {"fast": False, "radius": 5.0}
    if not (data_dir() / options["train_file"]).is_file():
        pytest.skip(f"FRAMEWORK_DATA does not hold {options['train_file']}")
    data = instantiate(options)
    data.setup()
    sizes = {name: len(frames) for name, frames in data.sets.items()}
    assert sizes == {
        "ethanol": {"train": 950, "test": 1000, "val": 50},
        "molecules": {"train": 380, "test": 100, "val": 20},
    }[experiment]
