"""DPM-Solver-v3 and its statistics: closed forms, degenerate identities, orders."""

import math

import numpy as np
import pytest
import torch

from plugins.generative.grids import append_zero, karras, log_snr
from plugins.generative.mixtures import reference_trajectory, toy_mixture
from plugins.generative.solvers import DPMSolverPP2M, Euler, Past
from plugins.generative.solvers.dpm_solver_v3 import DPMSolverV3, v3_update
from plugins.generative.solvers.ems import EMS, cached_ems, compute_ems, problem_statistics
from plugins.generative.solvers.exponential import Exponential
from plugins.generative.solvers.registry import ORDERS, SOLVERS, Problem
from plugins.generative.solvers.taylor import derivative_weights

MAX, MIN = 80.0, 0.002
MU, STD = 0.4, 0.5


def lambdas(points, sigma_max=MAX, sigma_min=MIN):
    return torch.linspace(-math.log(sigma_max), -math.log(sigma_min), points, dtype=torch.float64)


def gaussian(y, sigma):
    return (STD**2 * y + sigma**2 * MU) / (STD**2 + sigma**2)


def gaussian_data(count, generator):
    return MU + STD * torch.randn(count, 3, generator=generator, dtype=torch.float64)


def gaussian_end(y, sigma=MIN):
    return MU + (y - MU) * math.sqrt((STD**2 + sigma**2) / (STD**2 + MAX**2))


@pytest.fixture(scope="module")
def toy():
    """The planar mixture with fine statistics around sigma in [0.2, 3]."""
    mixture = toy_mixture()
    generator = torch.Generator().manual_seed(0)
    ems = compute_ems(mixture, mixture.sample, lambdas(361, 3.0, 0.2), 256, generator)
    return mixture, ems


def start(mixture, sigma, count=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x0 = mixture.sample(count, generator)
    return x0 + sigma * torch.randn(x0.shape, generator=generator, dtype=x0.dtype)


# --- derivative estimates


@pytest.mark.parametrize("offsets", [[-0.5], [0.7, -1.0], [0.3, -0.4, -1.5]])
def test_derivative_weights_are_exact_on_polynomials(offsets):
    n = len(offsets)
    polynomial = np.polynomial.Polynomial(np.arange(1.0, n + 2))
    values = np.array([polynomial(x) for x in (0.0, *offsets)])
    weights = derivative_weights(offsets)
    for order in range(n + 1):
        assert weights[order] @ values == pytest.approx(polynomial.deriv(order)(0.0) if order else values[0], rel=1e-10)


def test_pseudo_derivatives_are_divided_differences():
    weights = derivative_weights([-1.0, -3.0], pseudo=True)
    g = np.array([5.0, 2.0, -7.0])
    first, second = (g[0] - g[1]) / 1.0, (g[1] - g[2]) / 2.0
    assert weights[1] @ g == pytest.approx(first)
    assert weights[2] @ g == pytest.approx(2 * (first - second) / 3.0)
    assert not np.allclose(weights[1], derivative_weights([-1.0, -3.0])[1])


def test_coinciding_nodes_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        derivative_weights([-0.5, -0.5])


# --- the statistics


def test_statistics_of_gaussian_data_in_closed_form():
    grid = lambdas(121)
    ems = compute_ems(gaussian, gaussian_data, grid, 16, torch.Generator().manual_seed(0))
    sigma = torch.exp(-grid)[:, None]
    assert torch.allclose(ems.l, (sigma**2 / (sigma**2 + STD**2)).expand_as(ems.l), atol=1e-12)
    # f = -l mu is the same everywhere, so s is 0 and b its slope
    assert ems.s.abs().max() == 0
    slope = 2 * sigma**2 * STD**2 / (sigma**2 + STD**2) ** 2
    assert torch.allclose(ems.b, (MU * slope).expand_as(ems.b), atol=4e-3)


def test_l_matches_the_closed_form_jacobian(toy):
    mixture, ems = toy
    for index in (0, 180, 360):
        sigma = torch.exp(-ems.lambdas[index])
        y = start(mixture, sigma, 20000)
        expected = 1 - mixture.jacobian_diagonal(y, sigma).mean(0)
        assert torch.allclose(ems.l[index], expected, atol=0.05)


def test_l_runs_from_one_at_high_noise_to_zero_at_low_noise():
    mixture = toy_mixture()
    ems = compute_ems(mixture, mixture.sample, lambdas(41), 256, torch.Generator().manual_seed(0), probes=4)
    assert ems.l[0].min() > 0.999 and ems.l[-1].abs().max() < 1e-3
    assert ems.l.min() > -0.05 and ems.l.max() < 1.05


def test_s_and_b_are_the_least_squares_fit_of_the_derivative_along_the_ode(toy):
    mixture, ems = toy
    index = 100
    lam = ems.lambdas[index]
    y = start(mixture, torch.exp(-lam), 4000, seed=5)

    def f(step):
        """f on the exact trajectory through y, at lambda + step."""
        state = y
        if step != 0:
            ends = torch.exp(-torch.stack([lam, lam + step]))
            state = reference_trajectory(mixture, y, ends, steps=4)[-1] if step > 0 else None
        value = ems.l_at(float(lam + step))
        return (1 - value) * state - mixture(state, torch.exp(-(lam + step)))

    h = float(ems.lambdas[1] - ems.lambdas[0])
    rate = (-3 * f(0) + 4 * f(h) - f(2 * h)) / (2 * h)
    here = f(0)
    for dim in range(2):
        slope, intercept = np.polyfit(here[:, dim].numpy(), rate[:, dim].numpy(), 1)
        assert float(ems.s[index, dim]) == pytest.approx(slope, abs=0.15)
        assert float(ems.b[index, dim]) == pytest.approx(intercept, abs=0.15)


def test_double_backward_gives_the_same_statistics():
    mixture = toy_mixture()
    results = [
        compute_ems(mixture, mixture.sample, lambdas(5), 32, torch.Generator().manual_seed(0), jvp=mode)
        for mode in ("forward", "double_backward")
    ]
    for name in ("l", "s", "b"):
        assert torch.allclose(*(getattr(ems, name) for ems in results), atol=1e-10)


def test_batches_do_not_change_the_statistics():
    mixture = toy_mixture()
    whole, pieces = (
        compute_ems(mixture, mixture.sample, lambdas(5), 50, torch.Generator().manual_seed(0), batch_size=size)
        for size in (50, 7)
    )
    assert torch.allclose(whole.l, pieces.l, atol=1e-12) and torch.allclose(whole.b, pieces.b, atol=1e-9)


def test_ridge_tames_a_dimension_that_hardly_varies():
    def denoiser(y, sigma):
        # second dimension: constant but for a rare, steep event
        quiet = 1e-6 * torch.exp(2 * y[:, 1:] / sigma)
        return torch.cat([torch.tanh(y[:, :1]), quiet], dim=1)

    def data(count, generator):
        return torch.randn(count, 2, generator=generator, dtype=torch.float64)

    args = (denoiser, data, lambdas(9, 4.0, 2.0), 64)
    plain, shrunk = (compute_ems(*args, torch.Generator().manual_seed(3), ridge=ridge) for ridge in (0.0, 0.02))
    assert torch.allclose(plain.s[:, 0], shrunk.s[:, 0], rtol=0.05, atol=0.05)
    assert plain.s[:, 1].abs().max() > 0.1 > 1e-3 > shrunk.s[:, 1].abs().max()


def test_statistics_survive_saving_and_are_weights_only(tmp_path, toy):
    _, ems = toy
    path = ems.save(tmp_path / "deep" / "ems.pt")
    loaded = EMS.load(path)
    assert all(torch.equal(getattr(ems, name), getattr(loaded, name)) for name in ("lambdas", "l", "s", "b"))
    assert loaded.fingerprint() == ems.fingerprint()
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="does not hold model statistics"):
        EMS.load(tmp_path / "other.pt")


def test_cache_is_keyed_by_settings(tmp_path):
    made = []

    def compute():
        made.append(1)
        return EMS.constant(lambdas(3), 1.0, 0.0)

    for seed in (0, 0, 1):
        cached_ems(tmp_path, {"points": 3, "seed": seed}, compute)
    assert len(made) == 2


def test_problem_statistics_are_cached_and_tell_denoisers_apart(tmp_path):
    mixture = toy_mixture()

    def problem(denoiser):
        return Problem(denoiser, 2.0, 0.2, data=mixture.means, cache=tmp_path, fast=True)

    first = problem_statistics(problem(mixture))
    assert len(list(tmp_path.iterdir())) == 1
    assert problem_statistics(problem(mixture)).fingerprint() == first.fingerprint()
    assert len(list(tmp_path.iterdir())) == 1
    problem_statistics(problem(lambda y, sigma: 0.5 * mixture(y, sigma)))
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match="data"):
        problem_statistics(Problem(mixture, 2.0, 0.2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_samples": 1}, "n_samples"),
        ({"lambdas": lambdas(5).flip(0)}, "increasing"),
        ({"jvp": "reverse"}, "jvp"),
        ({"denoiser": lambda y, sigma: y * float("nan")}, "not finite at sigma = 80"),
    ],
)
def test_bad_statistics_are_refused(change, message):
    arguments = {"denoiser": gaussian, "data": gaussian_data, "lambdas": lambdas(5), "n_samples": 8} | change
    with pytest.raises(ValueError, match=message):
        compute_ems(**arguments)


# --- one step


def test_one_step_is_exact_on_gaussian_data_up_to_the_grid_of_the_statistics():
    y = MAX * torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors = []
    for points in (61, 241, 961):
        ems = compute_ems(gaussian, gaussian_data, lambdas(points), 2, torch.Generator().manual_seed(1))
        sample = DPMSolverV3(ems, order=1).sample(gaussian, y, log_snr(1))
        errors.append((sample - gaussian_end(y)).abs().max().item())
    euler = (Euler().sample(gaussian, y, log_snr(1)) - gaussian_end(y)).abs().max().item()
    assert errors[-1] < 1e-4 * euler
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert 13 < coarse / fine < 19  # second order: 16 for each factor of 4


def test_update_is_exact_where_g_is_a_polynomial():
    """f' = s f + b with constant l, s, b has a closed-form solution that the first-order step must hit."""
    l, s, b, start_, end = 0.3, -0.7, 0.4, -0.5, 1.2  # noqa: E741
    ems = EMS.constant(torch.linspace(-1, 2, 7, dtype=torch.float64), l, s, b)
    update = v3_update(ems, start_, [], end, derivative_weights([]))
    y0, f0, h = 1.7, 0.9, end - start_
    # f = (f0 + b/s) e^{s u} - b/s; y' = -l y - f
    a, c = f0 + b / s, -b / s
    expected = math.exp(-l * h) * (y0 - a * math.expm1((l + s) * h) / (l + s) - c * math.expm1(l * h) / l)
    value = update(torch.tensor(y0, dtype=torch.float64), [torch.tensor(f0, dtype=torch.float64)])
    assert float(value) == pytest.approx(expected, rel=1e-12)


def test_nodes_before_and_beyond_the_start_transport_f_exactly():
    """Where f' = s f + b holds exactly, derivatives of g vanish, so other nodes must change nothing."""
    l, s, b = 0.3, -0.7, 0.4  # noqa: E741
    ems = EMS.constant(torch.linspace(-2, 2, 9, dtype=torch.float64), l, s, b)
    others = [1.0, -1.3, -1.9]
    update = v3_update(ems, -0.5, others, 1.0, derivative_weights([x + 0.5 for x in others]))
    alone = v3_update(ems, -0.5, [], 1.0, derivative_weights([]))

    def f(at):
        return torch.tensor((0.9 + b / s) * math.exp(s * (at + 0.5)) - b / s, dtype=torch.float64)

    y = torch.tensor(1.7, dtype=torch.float64)
    values = [f(x) for x in (-0.5, *others)]
    assert float(update(y, values)) == pytest.approx(float(alone(y, values[:1])), rel=1e-11)


# --- the solver


@pytest.mark.parametrize("grid", [log_snr, karras])
def test_data_prediction_is_the_degenerate_case(grid):
    mixture = toy_mixture()
    y = start(mixture, MAX)
    ems = EMS.constant(lambdas(50), 1.0, 0.0)
    assert (DPMSolverV3(ems, 1).sample(mixture, y, grid(8)) - Euler().sample(mixture, y, grid(8))).abs().max() < 1e-12
    ours = DPMSolverV3(ems, 2, corrector=False).sample(mixture, y, grid(8))
    assert (ours - DPMSolverPP2M(kind="heun").sample(mixture, y, grid(8))).abs().max() < 1e-11


@pytest.mark.parametrize(("l", "s", "prediction"), [(1.0, 0.0, "data"), (0.0, -1.0, "noise")])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_degenerate_statistics_give_the_exact_lagrange_integrators(l, s, prediction, order):  # noqa: E741
    mixture = toy_mixture()
    levels = log_snr(12, 2.0, 0.2)
    states = reference_trajectory(mixture, start(mixture, 2.0), levels, steps=200)
    past = [Past(levels[j].item(), states[j], mixture(states[j], levels[j])) for j in range(order - 1)]
    grid = levels[order - 1 :]
    ems = EMS.constant(lambdas(100, 2.0, 0.2), l, s)
    ours = DPMSolverV3(ems, order, corrector=False, start="exact").sample(
        mixture, states[order - 1], grid, history=past or None
    )
    lagrange = Exponential(order, prediction, start="exact")
    theirs = lagrange.sample(mixture, states[order - 1], grid, history=past or None)
    assert (ours - theirs).abs().max() < 1e-11


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"order": 1}, 1),
        ({"order": 2}, 2),
        ({"order": 3}, 3),
        ({"order": 2, "corrector": False}, 2),
        ({"order": 3, "corrector": False}, 3),
        ({"order": 3, "corrector": False, "predictor_pseudo": True}, 2),
        ({"order": 3, "corrector_pseudo": True}, 2),
    ],
)
def test_order_of_convergence(toy, options, expected):
    mixture, ems = toy
    history = options["order"] - 1
    fine = log_snr(160, 2.0, 0.2, ahead=4 * history)
    states = reference_trajectory(mixture, start(mixture, fine[0]), fine, steps=len(fine))
    errors = []
    for stride in (4, 2, 1):
        first = 4 * history - stride * history
        levels, exact = fine[first::stride], states[first::stride]
        past = [Past(levels[j].item(), exact[j], mixture(exact[j], levels[j])) for j in range(history)]
        solver = DPMSolverV3(ems, start="exact", **options)
        sample = solver.sample(mixture, exact[history], levels[history:], history=past or None)
        errors.append((sample - states[-1]).square().mean().sqrt().item())
    order = math.log2(errors[0] / errors[-1]) / 2
    assert abs(order - expected) < 0.25, (errors, order)


def test_ready_made_solvers_are_registered():
    assert {"dpm_solver_v3", "dpm_solver_v3_2"} <= set(SOLVERS)
    assert ORDERS["dpm_solver_v3_3"].order == 3


def test_statistics_beat_data_prediction_at_few_steps():
    mixture = toy_mixture()
    y = MAX * torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    exact = reference_trajectory(mixture, y, log_snr(1), steps=600)[-1]
    ems = compute_ems(mixture, mixture.sample, lambdas(121), 256, torch.Generator().manual_seed(0))

    def rms(solver):
        return (solver.sample(mixture, y, log_snr(8)) - exact).square().mean().sqrt()

    assert rms(DPMSolverV3(ems)) < 0.8 * rms(DPMSolverPP2M())


def test_evaluations_and_the_step_to_zero(toy):
    mixture, _ = toy
    ems = EMS.constant(lambdas(20), 1.0, 0.0)
    calls = []

    def counted(y, sigma):
        calls.append(float(sigma))
        return mixture(y, sigma)

    sigmas = append_zero(karras(5))
    sample = DPMSolverV3(ems).sample(counted, start(mixture, MAX), sigmas)
    assert calls == sigmas[:-1].tolist() and DPMSolverV3(ems).nfe(sigmas) == 6
    assert torch.isfinite(sample).all()


def test_snapping_moves_the_grid_to_the_statistics_nodes(toy):
    mixture, _ = toy
    ems = EMS.constant(lambdas(200), 1.0, 0.0)
    sigmas = karras(6)
    snapped = ems.snap(sigmas)
    assert set(snapped.tolist()) <= set(torch.exp(-ems.lambdas).tolist())
    assert (snapped.log() - sigmas.log()).abs().max() <= (ems.lambdas[1] - ems.lambdas[0]) / 2 + 1e-9
    y = start(mixture, MAX)
    ours = DPMSolverV3(ems, snap=True).sample(mixture, y, sigmas)
    assert torch.equal(ours, DPMSolverV3(ems).sample(mixture, y, snapped))
    with pytest.raises(ValueError, match="snap to the same node"):
        DPMSolverV3(EMS.constant(lambdas(5), 1.0, 0.0), snap=True).sample(mixture, y, karras(20))


def test_corrector_below_and_lower_order_final_act(toy):
    mixture, ems = toy
    y, sigmas = start(mixture, 2.0), log_snr(6, 2.0, 0.2)
    full, none = (DPMSolverV3(ems, corrector=c).sample(mixture, y, sigmas) for c in (True, False))
    half = DPMSolverV3(ems, corrector_below=0.6).sample(mixture, y, sigmas)
    assert not torch.allclose(half, full) and not torch.allclose(half, none)
    assert torch.equal(DPMSolverV3(ems, corrector_below=1e-9).sample(mixture, y, sigmas), none)
    assert not torch.allclose(DPMSolverV3(ems, lower_order_final=True).sample(mixture, y, sigmas), full)


def test_float32_images_and_their_own_statistics():
    shape = (2, 3, 3)
    ems = EMS.constant(lambdas(30), 1.0, 0.0, shape=shape)
    y = MAX * torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    sample = DPMSolverV3(ems).sample(lambda y, sigma: torch.tanh(y).float(), y, karras(6))
    double = DPMSolverV3(ems).sample(lambda y, sigma: torch.tanh(y), y.double(), karras(6))
    assert sample.dtype == torch.float32 and (sample - double).abs().max() < 1e-4


def test_bad_solvers_are_refused(toy):
    mixture, ems = toy
    with pytest.raises(ValueError, match="order"):
        DPMSolverV3(ems, 4)
    with pytest.raises(ValueError, match="corrector"):
        DPMSolverV3(ems, corrector=False, corrector_pseudo=True)
    with pytest.raises(ValueError, match="range"):
        DPMSolverV3(ems).sample(mixture, start(mixture, MAX), karras(5))
    with pytest.raises(ValueError, match="at least 3 steps"):
        DPMSolverV3(ems).sample(mixture, start(mixture, 2.0), log_snr(2, 2.0, 0.2))
    with pytest.raises(ValueError, match="shape"):
        DPMSolverV3(ems).sample(mixture, torch.zeros(4, 5, dtype=torch.float64), log_snr(4, 2.0, 0.2))
