"""Samplers, weights, volumes, structured rules and the plan."""

import math

import numpy as np
import pytest
import torch

from plugins.liegroups.groups import make_group, random_elements
from plugins.liegroups.haar import (
    CoordinateBox,
    CoordinateGrid,
    CoordinateNormal,
    FiniteGroupRule,
    HaarBallSL2,
    HaarUniformSO,
    LogNormalSPD,
    PolarBall,
    ProductSampler,
    SamplePlan,
    StarGrid,
    integrate,
    polar_ball_volume,
    rotation_group_volume,
    sl2_ball_volume,
    spd_constant,
    stratified_angles,
)
from plugins.liegroups.studies.haar import closed_form_integrals, error_slope, invariance, localised_function

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ones(g):
    return torch.ones(len(g), dtype=g.dtype)


SAMPLERS = [
    HaarUniformSO(2),
    HaarUniformSO(2, stratified=True),
    HaarUniformSO(3),
    HaarUniformSO(4),
    LogNormalSPD(make_group("gl2")),
    LogNormalSPD(make_group("sl3")),
    PolarBall(make_group("gl3"), 0.7),
    PolarBall(make_group("sl2"), 0.7, stratified=True),
    HaarBallSL2(1.0),
    CoordinateBox(make_group("sim2"), [1.0, 1.0, 0.3, math.pi]),
    CoordinateNormal(make_group("aff2"), 0.4),
    ProductSampler(make_group("aff2"), PolarBall(make_group("gl2"), 0.5), 2.0),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}-{s.group.name}")
def test_samples_belong_and_carry_their_inverses(sampler):
    samples = sampler(50, rng())
    identity = sampler.group.identity(50, dtype=F64)
    torch.testing.assert_close(samples.g @ samples.g_inv, identity, rtol=0, atol=1e-12)
    assert sampler.group.belongs(samples.g).all() and samples.log_weight.isfinite().any()
    again = sampler(50, rng())
    assert torch.equal(samples.g, again.g)
    assert len(sampler(0, rng())) == 0
    with pytest.raises(ValueError, match="n=-1"):
        sampler(-1)


def test_closed_forms_within_three_standard_errors():
    for name, comparison in closed_form_integrals(40_000, seed=0).items():
        assert abs(comparison.deviation) < 3, name
        assert comparison.error < 0.05 * abs(comparison.exact), name


@pytest.mark.parametrize(
    "name", ["so3", "se2", "se3", "sim2", "sl2", "gl2", "sl3", "gl3", "aff2", "centred_homography"]
)
def test_integrals_are_invariant(name):
    for case, comparison in invariance(make_group(name), 40_000, seed=3).items():
        assert abs(comparison.deviation) < 3, case
        # a wrong density would move these by far more than the tolerance
        assert comparison.error < 0.15 * abs(comparison.exact), case


def test_dropping_the_weights_breaks_invariance():
    group = make_group("gl3")
    sampler = CoordinateNormal(group, 0.5)
    h = random_elements(group, 1, 0.3, rng(1))[0]
    samples = sampler(100_000, rng())
    f = localised_function(group)
    values = f(h @ samples.g) - f(samples.g)
    weighted = values * samples.log_weight.exp()
    assert weighted.mean().abs() < 3 * weighted.std() / len(samples) ** 0.5
    assert values.mean().abs() > 5 * values.std() / len(samples) ** 0.5


def test_error_falls_with_the_square_root_of_samples():
    assert abs(error_slope([16, 64, 256, 1024], 300, seed=0) + 0.5) < 0.07


def test_volumes_agree_with_one_another():
    r = 0.8
    assert abs(polar_ball_volume(2, math.sqrt(2) * r, traceless=True) - sl2_ball_volume(r)) < 1e-12
    for n, traceless in ((2, False), (3, True), (3, False)):
        coarse, fine = polar_ball_volume(n, 1.0, traceless, 40), polar_ball_volume(n, 1.0, traceless, 64)
        assert abs(coarse - fine) < 1e-7
    # slices of the ball of GL+(2) at constant trace are balls of SL(2)
    t, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))
    slices = math.pi * (torch.cosh(math.sqrt(2) * (1 - t**2).sqrt()) - 1)
    assert abs(float((w * slices).sum()) - polar_ball_volume(2, 1.0)) < 1e-6
    assert abs(rotation_group_volume(2) - 2 * math.pi * math.sqrt(2)) < 1e-12
    assert abs(spd_constant(2) - math.pi / 2) < 1e-12 and abs(spd_constant(3) - math.pi**2) < 1e-12
    for bad in ({"n": 4}, {"n": 2, "radius": 0.0}):
        with pytest.raises(ValueError):
            polar_ball_volume(**bad)


def test_ball_sampler_of_sl2():
    samples = HaarBallSL2(1.0)(100_000, rng())
    norm2 = samples.g.square().sum((-2, -1))
    assert abs(norm2.mean() - (1 + math.cosh(2.0))) < 3 * norm2.std() / 100_000**0.5
    assert (torch.linalg.matrix_norm(samples.g, 2) <= math.e * (1 + 1e-12)).all()
    assert samples.log_weight.std() == 0


def test_stratified_angles_exclude_the_end_point():
    angles = stratified_angles(8, rng())
    assert angles.min() >= -math.pi and angles.max() < math.pi
    gaps = angles.sort().values.diff()
    torch.testing.assert_close(gaps, torch.full((7,), math.pi / 4, dtype=F64))
    assert stratified_angles(0).shape == (0,)


@pytest.mark.parametrize("name", ["sl2", "gl2", "scaled_so2"])
def test_star_grid_is_closed_under_inversion_and_its_rotations(name):
    group = make_group(name)
    samples = StarGrid(group, rotations=8, radius=0.3)()
    rotation = make_group("so2").exp(torch.tensor([math.pi / 4], dtype=F64))

    def contained(g):
        return (g[:, None] - samples.g).abs().amax((-2, -1)).amin(1).max() < 1e-12

    assert contained(samples.g_inv) and contained(rotation @ samples.g)
    assert len(samples) == 8 * (2 * (group.dim - 1) + 1)


def test_star_grid_integrates_like_the_ball():
    for radius, tolerance in ((0.3, 2e-5), (0.8, 1e-2)):
        exact = polar_ball_volume(2, radius, traceless=True)
        mass = float(StarGrid(make_group("sl2"), 4, radius)().log_weight.exp().mean())
        assert abs(mass / exact - 1) < tolerance
        exact = polar_ball_volume(2, radius)
        mass = float(StarGrid(make_group("gl2"), 4, radius)().log_weight.exp().mean())
        assert abs(mass / exact - 1) < tolerance
    # degree three in the coordinates: a cubic without its even part vanishes, a quadratic is exact
    group = make_group("gl2")
    samples = StarGrid(group, 4, 0.3)()
    weight = (samples.log_weight - group.haar_log_density(group.coordinates(samples.g))).exp()
    v = group.coordinates(samples.g)[:, :3]
    second = torch.einsum("n,ni,nj->ij", weight, v, v) / weight.sum()
    torch.testing.assert_close(second, torch.eye(3, dtype=F64) * 0.3**2 / 5, rtol=0, atol=1e-14)


def test_coordinate_grid_converges_spectrally():
    group = make_group("sl2")

    def f(g):
        return g[:, 0, 0].square() * torch.exp(-g.square().sum((-2, -1)))

    def estimate(k, angles):
        rule = CoordinateGrid(group, [k, k, angles], [0.7, 0.7, math.pi], [False, False, True])
        samples = rule()
        return float((f(samples.g) * samples.log_weight.exp()).mean())

    fine = estimate(14, 12)
    assert abs(estimate(6, 5) - fine) < 1e-6 * abs(fine)
    assert abs(estimate(2, 3) - fine) > 1e-6 * abs(fine)


def test_normal_coordinates_count_every_element_once():
    """The mass of SO(2) is one however wide the normal, because draws beyond pi have weight zero."""
    estimate = integrate(ones, CoordinateNormal(make_group("so2"), 2.0), 20_000, rng())
    assert abs(estimate.value - 1) < 3 * estimate.error and estimate.error < 0.02


def test_integrate_reports_its_error():
    estimate = integrate(ones, PolarBall(make_group("gl2"), 1.0), 1000, rng())
    assert estimate.error > 0 and abs(estimate.value - polar_ball_volume(2, 1.0)) < 4 * estimate.error
    with pytest.raises(ValueError, match="n=1"):
        integrate(ones, PolarBall(make_group("gl2"), 1.0), 1)


def test_samples_translate_normalise_and_forget_weights():
    group = make_group("gl2")
    samples = PolarBall(group, 0.5)(20, rng())
    h = random_elements(group, 1, 0.3, rng(1))[0]
    moved = samples.left_translate(group, h)
    torch.testing.assert_close(moved.g @ moved.g_inv, group.identity(20, dtype=F64), rtol=0, atol=1e-12)
    pairs = samples.g_inv[:, None] @ samples.g
    torch.testing.assert_close(moved.g_inv[:, None] @ moved.g, pairs, rtol=0, atol=1e-12)
    assert abs(samples.normalized().log_weight.exp().mean() - 1) < 1e-12
    assert samples.unweighted().log_weight.eq(0).all()


def test_plan_shares_sets_and_repeats_itself_in_evaluation():
    group = make_group("gl2")
    plan = SamplePlan(PolarBall(group, 0.5), n=6, sets=(0, 0, 1), offset=PolarBall(group, 0.3), eval_offsets=3)
    a, b, c = plan()
    assert a is b and a is not c and len(a) == 6 and a.g.dtype == torch.float32
    assert not torch.equal(plan()[0].g, a.g), "training draws anew"
    plan.eval()
    assert torch.equal(plan()[0].g, plan()[0].g)
    draws = plan.evaluation_draws()
    assert len(draws) == 3 and draws[1][0] is draws[1][1]
    same_pairs = draws[1][0].g_inv[:, None] @ draws[1][0].g
    torch.testing.assert_close(same_pairs, draws[0][0].g_inv[:, None] @ draws[0][0].g, rtol=1e-4, atol=1e-5)
    assert plan.double()()[0].g.dtype == F64


def test_plan_follows_the_global_seed_in_training():
    plan = SamplePlan(PolarBall(make_group("sl2"), 0.5), n=4)
    torch.manual_seed(5)
    first = plan()[0].g
    torch.manual_seed(5)
    assert torch.equal(first, plan()[0].g)


def test_finite_rule_and_bad_arguments():
    assert len(FiniteGroupRule(make_group("d4"))()) == 8
    gl2 = make_group("gl2")
    cases = [
        (lambda: FiniteGroupRule(gl2), "not finite"),
        (lambda: PolarBall(gl2, 0.0), "radius"),
        (lambda: PolarBall(make_group("so2")), "polar"),
        (lambda: LogNormalSPD(gl2, -1.0), "variance"),
        (lambda: HaarBallSL2(0.0), "log_norm"),
        (lambda: HaarUniformSO(3, stratified=True), "stratified"),
        (lambda: CoordinateBox(gl2, [1.0]), "half_widths"),
        (lambda: CoordinateNormal(gl2, 0.0), "std"),
        (lambda: ProductSampler(make_group("se2"), PolarBall(gl2)), "semidirect"),
        (lambda: StarGrid(gl2, 8, [0.1]), "radius"),
        (lambda: StarGrid(gl2, 0), "rotations"),
        (lambda: StarGrid(make_group("gl3"), 8), "plane"),
        (lambda: StarGrid(gl2, 8)(5), "56 points"),
        (lambda: CoordinateGrid(gl2, [1], [1.0], [False]), "entries"),
        (lambda: SamplePlan(StarGrid(gl2), sets=()), "sets"),
        (lambda: SamplePlan(StarGrid(gl2), eval_offsets=2), "eval_offsets"),
        (lambda: SamplePlan(StarGrid(gl2), offset=PolarBall(make_group("sl2"))), "offset"),
    ]
    for build, message in cases:
        with pytest.raises(ValueError, match=message):
            build()
