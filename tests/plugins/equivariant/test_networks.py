"""Grids, invariants, kernels and networks: exactness where it is exact, and agreement with the form on paper."""

import math

import pytest
import torch

from plugins.equivariant.bases import PolynomialFeatures
from plugins.equivariant.equivariance import equivariance_error, random_cloud
from plugins.equivariant.geometry import (
    PolynomialCutoff,
    circle,
    dodecahedral,
    fibonacci,
    icosahedral,
    make_grid,
    moments,
    position_orientation,
    random_orthogonal,
    repulsion,
)
from plugins.equivariant.graphs import Graph, collate, fully_connected, radius_graph, scatter_sum
from plugins.equivariant.models import EGNN, PONITA, SteerableNet
from plugins.equivariant.readout import energy_and_forces, pool
from plugins.equivariant.studies.equivariance import _fivefold
from plugins.equivariant.studies.straightforward import StraightforwardPONITA, copy_weights

SIZE = {"in_scalars": 3, "in_vectors": 1, "out_scalars": 1, "out_vectors": 1, "hidden": 16, "layers": 2}
EXACT = {
    "pnita": lambda: PONITA(orientations=0, **SIZE),
    "frames": lambda: PONITA(orientations=12, frames="graph", **SIZE),
    "compressed": lambda: PONITA(orientations=0, compress=1.0, **SIZE),
    "edges": lambda: PONITA(orientations="edges", attributes="universal", **SIZE),
    "edges-ponita": lambda: PONITA(orientations="edges", radius=3.0, smooth=True, **SIZE),
    "egnn": lambda: EGNN(**SIZE),
    "steerable": lambda: SteerableNet(**SIZE),
}
GRIDDED = {
    "icosahedral": lambda: PONITA(orientations=12, grid="icosahedral", **SIZE),
    "universal": lambda: PONITA(orientations=12, grid="icosahedral", attributes="universal", **SIZE),
    "smooth": lambda: PONITA(orientations=12, grid="icosahedral", smooth=True, compress=2.0, radius=6.0, **SIZE),
    "fibonacci": lambda: PONITA(orientations=16, grid="fibonacci", **SIZE),
    "zonal": lambda: PONITA(orientations=12, zonal_degree=3, compress=2.0, radius=6.0, **SIZE),
    "zonal-fibonacci": lambda: PONITA(orientations=16, grid="fibonacci", zonal_degree=4, **SIZE),
}
EVERY = EXACT | GRIDDED


def build(name, seed=0):
    torch.manual_seed(seed)
    network = EVERY[name]().double()
    cloud = random_cloud([6, 4, 1, 2], 3, 1, seed=seed, dtype=torch.float64)
    if isinstance(network, PONITA):
        network.calibrate_(cloud)
    return network, cloud


# geometry


@pytest.mark.parametrize("make, count, angle", [(icosahedral, 12, 63.4349), (dodecahedral, 20, 41.8103)])
def test_platonic_grids(make, count, angle):
    points, weights = make()
    assert points.shape == (count, 3) and weights.sum() == pytest.approx(1, abs=1e-14)
    assert (points.norm(dim=1) - 1).abs().max() < 1e-12 and points.mean(0).abs().max() < 1e-15
    assert (points.T @ points / count - torch.eye(3).double() / 3).abs().max() < 1e-15
    cosine = (points @ points.T - 2 * torch.eye(count)).max()
    assert math.degrees(math.acos(float(cosine))) == pytest.approx(angle, abs=1e-3)


@pytest.mark.parametrize("make, count", [(fibonacci, 16), (fibonacci, 64), (repulsion, 20), (repulsion, 16)])
def test_other_grids_are_unit_even_and_the_same_every_time(make, count):
    points, _ = make(count)
    assert (points.norm(dim=1) - 1).abs().max() < 1e-6 and torch.equal(points, make(count)[0])
    assert points.mean(0).norm() < 0.02 and (points.T @ points / count - torch.eye(3) / 3).abs().max() < 0.02


def test_the_circle_is_regular():
    points, _ = circle(10)
    angle = torch.atan2(points[:, 1], points[:, 0])
    assert torch.allclose(
        torch.remainder(angle.diff(), 2 * math.pi), torch.full((9,), math.pi / 5).double(), atol=1e-12
    )


def test_quadrature_weights_integrate_better():
    plain, better = make_grid("fibonacci", 20), make_grid("fibonacci", 20, quadrature=True)
    assert float(moments(better, 2).abs().max()) < 0.1 * float(moments(plain, 2).abs().max())


def test_quadrature_of_a_symmetric_grid_changes_nothing():
    weights = make_grid("icosahedral", 12, quadrature=True).weights
    assert (weights * 12 - 1).abs().max() < 1e-12
    dense = make_grid("fibonacci", 64, quadrature=True)
    assert dense.weights.min() >= 0 and float(moments(dense, 7).max()) < 1e-7


def test_window_values():
    u = PolynomialCutoff(2.0)
    r = 2 * torch.tensor([0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.5], dtype=torch.float64)
    expected = torch.tensor([1, 0.99577, 0.85546875, 0.32145691, 0.03809179, 0, 0], dtype=torch.float64)
    assert (u(r) - expected).abs().max() < 1e-5
    x = torch.tensor([2.0 - 1e-9], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(u(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert abs(float(slope)) < 1e-6 and abs(float(bend)) < 1e-6


def test_polynomial_lengths_and_folding():
    assert PolynomialFeatures(2, 3).tensor_length == 14 and PolynomialFeatures(1, 3).tensor_length == 3
    features, weight = PolynomialFeatures(2, 3), torch.randn(5, 14, dtype=torch.float64)
    a = torch.randn(7, 2, dtype=torch.float64)
    powers = torch.cat([a, torch.einsum("ni,nj->nij", a, a).flatten(1),
                        torch.einsum("ni,nj,nk->nijk", a, a, a).flatten(1)], 1)  # fmt: skip
    assert torch.allclose(features(a) @ features.fold(weight).T, powers @ weight.T, atol=1e-12)


def test_universal_attributes_tell_pairs_apart_that_three_do_not():
    n, r = torch.tensor([[0.0, 0, 1]]), torch.tensor([[1.0, 0, 0]])
    senders = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0, 1, 0]])
    three = [position_orientation(r, n, m, "ponita") for m in senders]
    four = [position_orientation(r, n, m, "universal") for m in senders]
    assert torch.allclose(*three) and not torch.allclose(*four)


# graphs


def test_radius_graph_is_all_close_pairs_within_graphs():
    g = torch.Generator().manual_seed(0)
    pos, batch = torch.randn(40, 3, generator=g), torch.arange(2).repeat_interleave(20)
    edge_index, shifts = radius_graph(pos, 1.2, batch)
    near = ((pos[:, None] - pos[None]).norm(dim=-1) <= 1.2) & (batch[:, None] == batch) & ~torch.eye(40, dtype=bool)
    found = torch.zeros(40, 40, dtype=torch.bool)
    found[edge_index[0], edge_index[1]] = True
    assert torch.equal(found, near) and shifts is None


def test_periodic_images():
    pos, cell = torch.tensor([[0.1, 0.1, 0.1]], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    edge_index, shifts = radius_graph(pos, 1.1, cell=cell, pbc=(True, True, True))
    assert edge_index.shape == (2, 6) and sorted(shifts.norm(dim=1).tolist()) == pytest.approx([1.0] * 6)


def test_collate_and_pool_with_empty_graphs():
    graphs = [
        Graph(torch.zeros(k, 3), torch.ones(k, 2), fully_connected([k]), torch.zeros(k, dtype=torch.long), 1)
        for k in (2, 0, 3)
    ]
    batch = collate(graphs)
    assert batch.num_graphs == 3 and batch.edge_index.shape == (2, 2 + 6)
    assert pool(batch.x, batch.batch, 3).tolist() == [[2, 2], [0, 0], [3, 3]]
    assert torch.autograd.gradgradcheck(
        lambda v: scatter_sum(v, torch.tensor([0, 2, 0]), 3), torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    )


# exactness


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", EVERY)
def test_translations_and_permutations_are_exact(name, seed):
    network, cloud = build(name, seed)
    g = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(k, generator=g) + s for k, s in ((6, 0), (4, 6), (1, 10), (2, 11))])
    assert equivariance_error(network, cloud, translation=torch.randn(3, generator=g).double()).largest < 1e-12
    assert equivariance_error(network, cloud, permutation=order).largest < 1e-12


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", EXACT)
def test_rotations_and_reflections_are_exact_without_a_fixed_grid(name, seed):
    network, cloud = build(name, seed)
    turn = random_orthogonal(1, cloud.pos, proper=True)[0]
    cloud = random_cloud([6, 4], 3, 1, seed=seed, dtype=torch.float64)  # frames need more than two atoms
    assert equivariance_error(network, cloud, turn).largest < 1e-12
    if name != "frames":
        assert equivariance_error(network, cloud, -turn).largest < 1e-12


@pytest.mark.parametrize("name", GRIDDED)
def test_a_grid_that_turns_with_the_cloud_is_exact_and_one_that_stands_is_not(name):
    network, cloud = build(name)
    turn = random_orthogonal(1, cloud.pos, proper=True)[0]
    frames = turn.expand(cloud.num_graphs, 3, 3)
    assert equivariance_error(network, cloud, turn, turned=lambda g: network(g, frames)).largest < 1e-12
    assert equivariance_error(network, cloud, turn).largest > 1e-6


@pytest.mark.parametrize("name", ["icosahedral", "universal", "smooth", "zonal"])
def test_the_grid_s_own_symmetries_are_exact(name):
    network, cloud = build(name)
    fivefold = _fivefold(network.grid.points)
    for element in (fivefold, fivefold @ fivefold, -torch.eye(3).double(), -fivefold):
        assert equivariance_error(network, cloud, element).largest < 1e-12


@pytest.mark.parametrize("options", [{}, {"attributes": "universal"}, {"zonal_degree": 3}])
def test_in_the_plane_the_circle_s_own_rotations_are_exact_and_handedness_is_seen(options):
    torch.manual_seed(0)
    network = PONITA(n=2, orientations=10, **SIZE, **options).double()
    cloud = random_cloud([6, 4, 1], 3, 1, n=2, dtype=torch.float64)
    network.calibrate_(cloud)

    def turn(angle):
        c, s = math.cos(angle), math.sin(angle)
        return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)

    for k in (1, 3, 5):
        assert equivariance_error(network, cloud, turn(2 * math.pi * k / 10)).largest < 1e-12
    frames = turn(0.4).expand(cloud.num_graphs, 2, 2)
    assert equivariance_error(network, cloud, turn(0.4), turned=lambda g: network(g, frames)).largest < 1e-12
    assert equivariance_error(network, cloud, turn(0.4)).largest > 1e-6
    mirror = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))  # of the cloud and of the circle
    assert equivariance_error(network, cloud, mirror).largest > 1e-3


def test_zonal_kernels_do_not_depend_on_how_edges_are_paired():
    torch.manual_seed(0)
    network = PONITA(orientations=12, zonal_degree=3, **SIZE).double()
    cloud = random_cloud([6, 4], 3, 1, dtype=torch.float64)
    order = torch.randperm(cloud.edge_index.shape[1])
    shuffled = cloud.replace(edge_index=cloud.edge_index[:, order], _paired=None)
    assert cloud.paired and not shuffled.paired
    for a, b in zip(network(cloud), network(shuffled), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_band_limited_kernels_turn_better_with_the_cloud_on_the_same_grid():
    errors = {}
    for degree in (None, 3):
        torch.manual_seed(0)
        network = PONITA(orientations=12, zonal_degree=degree, **SIZE).double()
        cloud = random_cloud([9] * 4, 3, 1, dtype=torch.float64)
        network.calibrate_(cloud)
        turns = random_orthogonal(8, cloud.pos, proper=True)
        errors[degree] = sum(equivariance_error(network, cloud, turn).scalar for turn in turns)
    assert errors[3] < errors[None]


def test_the_fast_form_is_the_form_on_paper():
    torch.manual_seed(0)
    for count in (12, 16):
        grid = make_grid("auto", count)
        size = {**SIZE, "basis_dim": 8}
        plain, fast = StraightforwardPONITA(grid, **size).double(), PONITA(orientations=count, **size).double()
        copy_weights(plain, fast)
        cloud = random_cloud([5, 3, 1], 3, 1, dtype=torch.float64)
        for a, b in zip(plain(cloud), fast(cloud), strict=True):
            assert (a - b).norm() <= 1e-12 * a.norm()
        for a, b in zip(energy_and_forces(plain, cloud, True), energy_and_forces(fast, cloud, True), strict=True):
            assert (a - b).norm() <= 1e-10 * a.norm()
        gradients = []
        for network in (plain, fast):
            _, forces = energy_and_forces(network, cloud, create_graph=True)
            network.zero_grad()
            forces.square().sum().backward()
            gradients.append(network.embed.weight.grad)
        assert (gradients[0] - gradients[1]).norm() <= 1e-10 * gradients[0].norm()


def test_calibration_keeps_the_deviation_and_is_saved():
    torch.manual_seed(0)
    network = PONITA(orientations=12, **SIZE)
    cloud = random_cloud([8] * 6, 3, 1)
    assert not network.calibrated
    network.calibrate_(cloud)
    assert network.calibrated
    twin = PONITA(orientations=12, **SIZE)
    twin.load_state_dict(network.state_dict())
    assert twin.calibrated and all(torch.equal(a, b) for a, b in zip(twin(cloud), network(cloud), strict=True))
    before = [block.conv.spatial.weight.clone() for block in network.blocks]
    network.calibrate_(cloud)  # calibrated kernels keep the deviation: nothing changes
    for block, weight in zip(network.blocks, before, strict=True):
        assert (block.conv.spatial.weight / weight - 1).abs().max() < 1e-4


# forces


@pytest.mark.parametrize("name", [n for n in EVERY if n != "frames"])
def test_forces_are_the_gradient_and_sum_to_zero(name):
    network, cloud = build(name)
    _, forces = energy_and_forces(network, cloud)
    g = torch.Generator().manual_seed(0)
    direction = torch.randn(cloud.pos.shape, generator=g, dtype=torch.float64)
    h = 1e-5
    plus, minus = (energy_and_forces(network, cloud.replace(pos=cloud.pos + s * h * direction))[0] for s in (1, -1))
    expected = -(plus - minus).sum() / (2 * h)
    assert float((forces * direction).sum() - expected) == pytest.approx(0, abs=1e-8 * float(forces.abs().sum()))
    assert pool(forces, cloud.batch, cloud.num_graphs).abs().max() <= 1e-12 * forces.abs().sum()


@pytest.mark.parametrize("name", ["pnita", "smooth", "zonal", "edges-ponita", "egnn"])
@pytest.mark.parametrize("places", [[[0, 0, 0], [0, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 1], [0, 0, 2]]])
def test_coincident_and_collinear_atoms_have_finite_hessians(name, places):
    torch.manual_seed(0)
    network = EVERY[name]().double()
    cloud = random_cloud([3], 3, 1, dtype=torch.float64).replace(pos=torch.tensor(places).double())

    def energy(pos):
        return network(cloud.replace(pos=pos))[0].sum()

    hessian = torch.autograd.functional.hessian(energy, cloud.pos)
    assert torch.isfinite(hessian).all()


@pytest.mark.parametrize("name", EVERY)
def test_a_graph_does_not_depend_on_its_batch_and_single_atoms_are_fine(name):
    network, cloud = build(name)
    if name == "frames":
        cloud = random_cloud([6, 4], 3, 1, dtype=torch.float64)
    together = network(cloud)[0]
    sizes = torch.bincount(cloud.batch, minlength=cloud.num_graphs).tolist()
    start = 0
    for size in sizes:
        own = slice(start, start + size)
        alone = cloud.replace(
            pos=cloud.pos[own], x=cloud.x[own], vec=cloud.vec[own], batch=torch.zeros(size, dtype=torch.long),
            num_graphs=1, edge_index=fully_connected([size]), _paired=None,
        )  # fmt: skip
        assert (network(alone)[0] - together[own]).abs().max() <= 1e-12 * together.abs().max()
        start += size


def test_lifted_networks_see_angles_and_change_smoothly_at_the_radius():
    torch.manual_seed(0)
    options = {"orientations": "edges", "attributes": "universal", "radius": 2.0}
    network = PONITA(in_scalars=1, hidden=8, layers=1, **options).double()

    def energies(places):
        pos = torch.tensor(places).double()
        edge_index, _ = radius_graph(pos, 2.0, torch.zeros(len(pos), dtype=torch.long))
        return network(Graph(pos, torch.ones(len(pos), 1).double(), edge_index))[0][:, 0]

    # one layer, the same two neighbours at the same distances, which do not see each other
    bent, straight = ([[0.0, 0, 0], [1.5, 0, 0], [x, y, 0.0]] for x, y in ((-0.3, 1.4697), (-1.5, 0)))
    assert (energies(bent)[0] - energies(straight)[0]).abs() > 1e-5  # 1e-16 if angles were not seen
    inside, outside = ([[0.0, 0, 0], [1.0, 0, 0], [1.0, z, 0]] for z in (1.9999, 2.0001))
    assert (energies(inside) - energies(outside)).abs().max() < 1e-8


def test_wrong_inputs_are_told():
    network = PONITA(orientations=0, in_scalars=3)
    with pytest.raises(ValueError, match="3"):
        network(random_cloud([4], 2))
    for options in ({"grid": "cubical"}, {"frames": "turned"}, {"attributes": "four"}, {"compress": 0.0}):
        with pytest.raises(ValueError, match=next(iter(options.values())) if "compress" not in options else "compress"):
            PONITA(orientations=12, **options)
    for options in ({"orientations": 0}, {"orientations": "edges"}, {"smooth": True}, {"attributes": "universal"}):
        with pytest.raises(ValueError, match="zonal_degree=3 is for kernels on a grid"):
            PONITA(**{"orientations": 12, "zonal_degree": 3, **options})
    with pytest.raises(ValueError, match="at least 1"):
        PONITA(orientations=12, zonal_degree=0)
    with pytest.raises(ValueError, match="'edges', not 'bonds'"):
        PONITA(orientations="bonds")
