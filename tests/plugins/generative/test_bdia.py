"""BDIA: DDIM as a special case, exact inversion, orders, and its warnings."""

import math
import warnings

import pytest
import torch

from plugins.generative.grids import append_zero, karras, log_snr
from plugins.generative.mixtures import reference_trajectory, toy_mixture
from plugins.generative.schedules import VPLinear
from plugins.generative.solvers import Euler, Heun
from plugins.generative.solvers.bdia import BDIA, BDIAWarning, ddim_invert
from plugins.generative.solvers.registry import ORDERS, SOLVERS

MIXTURE = toy_mixture()


def noise(count=16, sigma=80.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return (sigma * torch.randn(count, 2, generator=generator, dtype=torch.float64)).to(dtype)


def single(y, sigma):
    return MIXTURE(y.double(), sigma).to(y.dtype)


@pytest.mark.parametrize("grid", [karras(9), log_snr(9), append_zero(karras(8))])
def test_gamma_zero_is_ddim_and_heun(grid):
    assert (BDIA(0.0).sample(MIXTURE, noise(), grid) - Euler().sample(MIXTURE, noise(), grid)).abs().max() < 1e-12
    for increment in ("heun", "heun_reuse"):
        ours = BDIA(0.0, increment).sample(MIXTURE, noise(), grid)
        assert (ours - Heun().sample(MIXTURE, noise(), grid)).abs().max() < 1e-12


def test_the_step_is_the_published_one_in_x():
    """z_{i-1} = z_{i+1} - (1-g)(z_{i+1} - z_i) - g D(i -> i+1 | z_i) + D(i -> i-1 | z_i) for variance preservation."""
    schedule, gamma = VPLinear(), 0.7
    t = torch.tensor([0.6, 0.5, 0.4, 0.3], dtype=torch.float64)
    alpha, sigma, levels = schedule.alpha(t), schedule.sigma(t), schedule.sigma_tilde(t)

    def increment(i, j, z):
        eps = (z - alpha[i] * MIXTURE(z / alpha[i], levels[i])) / sigma[i]
        return alpha[j] * (z - sigma[i] * eps) / alpha[i] + sigma[j] * eps - z

    y = noise(5, float(levels[0]))
    z = [alpha[0] * y]
    z.append(z[0] + increment(0, 1, z[0]))
    for i in (1, 2):
        moved = z[i - 1] - (1 - gamma) * (z[i - 1] - z[i])
        z.append(moved - gamma * increment(i, i - 1, z[i]) + increment(i, i + 1, z[i]))
    ours = BDIA(gamma, schedule=schedule).sample(MIXTURE, y, levels)
    assert (alpha[-1] * ours - z[-1]).abs().max() < 1e-12
    assert (BDIA(gamma).sample(MIXTURE, y, levels) - ours).abs().max() > 1e-4


@pytest.mark.filterwarnings("ignore::plugins.generative.solvers.bdia.BDIAWarning")
@pytest.mark.parametrize("increment", ["ddim", "heun"])
@pytest.mark.parametrize("steps", [2, 10, 80])
@pytest.mark.parametrize("schedule", [None, VPLinear()])
def test_round_trip_is_exact(increment, steps, schedule):
    gamma = 1.0 if schedule is None else 0.95
    sampler = BDIA(gamma, increment, schedule)
    y, grid = noise(), karras(steps, 80.0, 0.01)
    if schedule is not None:
        grid = log_snr(steps, 2.0, 0.05)
        y = noise(sigma=2.0)
    pair = sampler.sample_pair(MIXTURE, y, grid)
    assert torch.equal(pair[1], sampler.sample(MIXTURE, y, grid))
    bound = 1e-12 if schedule is None else 1e-9
    assert (sampler.invert(MIXTURE, pair, grid) - y).abs().max() / y.abs().max() < bound


def test_round_trip_on_a_grid_that_ends_in_zero():
    grid = append_zero(karras(30))
    pair = BDIA().sample_pair(MIXTURE, noise(), grid)
    assert (BDIA().invert(MIXTURE, pair, grid) - noise()).abs().max() < 1e-11


def test_naive_inversion_is_first_order_and_far_worse():
    errors = []
    for steps in (40, 80, 160):
        grid = karras(steps, 20.0, 0.05)
        y = noise(sigma=20.0)
        errors.append((ddim_invert(MIXTURE, Euler().sample(MIXTURE, y, grid), grid) - y).square().mean().sqrt().item())
    assert errors[-1] > 1e-3
    assert 0.6 < math.log2(errors[0] / errors[2]) / 2 < 1.4


def test_a_single_image_is_inverted_by_one_ddim_step_and_comes_back_exactly():
    grid = karras(40, 80.0, 0.01)
    image = BDIA().sample(MIXTURE, noise(), grid)
    pair = BDIA().invert_pair(MIXTURE, image, grid)
    neighbour = ddim_invert(MIXTURE, image, grid[-2:])
    assert torch.equal(pair[0], BDIA().invert(MIXTURE, (neighbour, image), grid))
    assert (BDIA().sample_from_pair(MIXTURE, pair, grid) - image).abs().max() < 1e-9
    # the pair is another trajectory than the sampler's own, whose first step is DDIM
    assert (BDIA().sample(MIXTURE, pair[0], grid) - image).abs().max() > 1e-4


def test_both_directions_agree_on_the_samplers_own_trajectory():
    for increment in ("ddim", "heun"):
        sampler, grid = BDIA(1.0, increment), karras(30)
        final = sampler.sample_pair(MIXTURE, noise(), grid)
        pair = sampler.invert_pair(MIXTURE, final, grid)
        assert (sampler.sample_from_pair(MIXTURE, pair, grid) - final[1]).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [(BDIA(), 2), (BDIA(0.5), 1), (BDIA(1.0, "heun"), 2), (BDIA(0.5, "heun"), 2), (BDIA(0.5, "heun_reuse"), 2)],
)
def test_order_of_convergence(sampler, expected):
    fine = karras(160, 2.0, 0.2)
    y = MIXTURE.sample(16, torch.Generator().manual_seed(1)) + noise(sigma=2.0)
    exact = reference_trajectory(MIXTURE, y, fine, steps=160)[-1]
    errors = [
        (sampler.sample(MIXTURE, y, fine[:: 160 // n]) - exact).square().mean().sqrt().item() for n in (40, 80, 160)
    ]
    assert abs(math.log2(errors[0] / errors[-1]) / 2 - expected) < 0.15
    assert sampler.order == expected


def test_below_one_the_error_constant_is_that_of_euler_times_a_known_factor():
    grid = karras(160, 2.0, 0.2)
    y = MIXTURE.sample(16, torch.Generator().manual_seed(1)) + noise(sigma=2.0)
    exact = reference_trajectory(MIXTURE, y, grid, steps=160)[-1]

    def error(sampler):
        return (sampler.sample(MIXTURE, y, grid) - exact).square().mean().sqrt().item()

    for gamma in (0.25, 0.5):
        assert error(BDIA(gamma)) / error(Euler()) == pytest.approx((1 - gamma) / (1 + gamma), rel=0.1)


@pytest.mark.parametrize("increment", ["ddim", "heun", "heun_reuse"])
@pytest.mark.parametrize("grid", [karras(40), append_zero(karras(40))])
def test_evaluations_are_counted_as_spent(increment, grid):
    calls = []

    def counted(y, sigma):
        calls.append(sigma)
        return MIXTURE(y, sigma)

    sampler = BDIA(0.9, increment)
    sampler.sample(counted, noise(2), grid)
    assert len(calls) == sampler.nfe(grid)
    if grid[-1] > 0:
        assert sampler.steps_for(len(calls)) == len(grid) - 1


# --- warnings and errors


def test_instability_warns_where_it_hurts_and_only_there():
    y = noise()
    with pytest.warns(BDIAWarning, match="unstable on this grid of 7 steps"):
        BDIA().sample(MIXTURE, y, karras(7))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BDIA().sample(MIXTURE, y, karras(41))
        BDIA(0.5).sample(MIXTURE, y, karras(11))
    # and the warning tells the truth about this mixture
    exact = reference_trajectory(MIXTURE, y, log_snr(1), steps=600)[-1]

    def error(gamma, steps):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (BDIA(gamma).sample(MIXTURE, y, karras(steps)) - exact).square().mean().sqrt()

    assert error(1.0, 7) > 0.5 * error(0.0, 7) and error(1.0, 41) < 0.5 * error(0.0, 41)


def test_instability_of_heun_increments_is_noticed_too():
    with pytest.warns(BDIAWarning, match="unstable"):
        BDIA(1.0, "heun").sample(MIXTURE, noise(), karras(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BDIA(1.0, "heun").sample(MIXTURE, noise(), karras(60))


@pytest.mark.filterwarnings("ignore:BDIA with gamma.*unstable")
@pytest.mark.parametrize(
    ("gamma", "dtype", "steps", "lost"),
    [
        (1.0, torch.float32, 80, False),
        (0.9, torch.float64, 80, False),
        (0.5, torch.float64, 80, True),
        (0.5, torch.float32, 40, True),
        (0.75, torch.float32, 80, True),
    ],
)
def test_rounding_warns_exactly_where_the_round_trip_is_lost(gamma, dtype, steps, lost):
    y, grid = noise(dtype=dtype), karras(steps, 80.0, 0.002)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pair = BDIA(gamma).sample_pair(single, y, grid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = (BDIA(gamma).invert(single, pair, grid) - y).abs().max() / y.abs().max()
    assert any("round trip is lost" in str(w.message) for w in caught) == lost
    assert bool(error > 0.01) == lost


@pytest.mark.parametrize(
    ("options", "message"),
    [({"gamma": 1.5}, "gamma"), ({"increment": "rk4"}, "increment"), ({"data_std": 0.0}, "data_std")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BDIA(**options)


def test_what_has_no_inverse_says_so():
    y, grid = noise(), karras(40)
    with pytest.raises(ValueError, match="gamma = 0 has no exact inverse"):
        BDIA(0.0).invert(MIXTURE, (y, y), grid)
    with pytest.raises(ValueError, match="heun_reuse"):
        BDIA(1.0, "heun_reuse").invert(MIXTURE, (y, y), grid)
    with pytest.raises(ValueError, match="sigma = 0"):
        BDIA().invert(MIXTURE, y, append_zero(grid))
    with pytest.raises(ValueError, match="last sigma > 0"):
        ddim_invert(MIXTURE, y, append_zero(grid))


def test_ready_made_solvers_are_registered():
    assert {"bdia", "bdia_half", "bdia_heun", "bdia_heun_reuse"} <= set(SOLVERS) & set(ORDERS)


def test_the_studys_round_trips_report_error_and_warning():
    from plugins.generative.studies.exact_inversion import bdia_round_trip, ddim_round_trip

    y, grid = noise(), karras(80)
    good, lost = (bdia_round_trip(BDIA(gamma), MIXTURE, y, grid) for gamma in (1.0, 0.5))
    assert good.error < 1e-12 and not good.warned
    assert lost.error > 1.0 and lost.warned
    assert ddim_round_trip(MIXTURE, y, grid).error > 1.0
