import math

import pytest
import torch

from plugins.generative.grids import angular, check_grid, explicit, karras, log_snr, time_quadratic, time_uniform
from plugins.generative.schedules import EDM, Flow, VPCosine, VPLinear
from plugins.generative.solvers import Euler, Heun

GRIDS = {
    "karras": lambda n, end="sigma_min": karras(n, 80.0, 0.002, end=end),
    "log_snr": lambda n, end="sigma_min": log_snr(n, 80.0, 0.002, end=end),
    "angular": lambda n, end="sigma_min": angular(n, 80.0, 0.002, end=end),
    "time_uniform": lambda n, end="sigma_min": time_uniform(VPLinear(), n, end=end),
    "time_quadratic": lambda n, end="sigma_min": time_quadratic(VPCosine(), n, end=end),
    "flow": lambda n, end="sigma_min": time_uniform(Flow(), n, end=end),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("steps", [2, 7, 50])
def test_length_order_and_both_ends(name, steps):
    for end in ("sigma_min", "zero"):
        grid = GRIDS[name](steps, end)
        assert grid.shape == (steps + 1,) and grid.dtype == torch.float64
        assert bool((grid.diff() < 0).all())
        assert (grid[-1] == 0) == (end == "zero")
    first, last = GRIDS[name](steps)[[0, -1]]
    with_zero = GRIDS[name](steps, "zero")
    assert with_zero[0] == first and with_zero[-2] == last
    assert Euler().nfe(with_zero) == Euler().nfe(GRIDS[name](steps)) == steps
    assert Heun().nfe(GRIDS[name](steps)) == 2 * steps and Heun().nfe(with_zero) == 2 * steps - 1


def test_closed_forms():
    grid = karras(10, 80.0, 0.002, rho=7.0)
    i = torch.arange(11, dtype=torch.float64)
    assert torch.allclose(grid, (80 ** (1 / 7) + i / 10 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, rtol=1e-12)
    assert grid[0] == 80.0 and grid[-1] == 0.002
    assert torch.allclose(karras(8, 3.0, 1.0, rho=1.0), torch.linspace(3, 1, 9, dtype=torch.float64))
    steps = log_snr(10, 80.0, 0.002).log().diff()
    assert torch.allclose(steps, steps[:1].expand(10), rtol=1e-12)
    angles = torch.atan(angular(10, 80.0, 0.002, data_std=0.5, rho=2.0) / 0.5).sqrt().diff()
    assert torch.allclose(angles, angles[:1].expand(10), rtol=1e-12)
    times = VPLinear().inverse_sigma_tilde(time_quadratic(VPLinear(), 10)).sqrt().diff()
    assert torch.allclose(times, times[:1].expand(10), rtol=1e-10)
    assert torch.allclose(time_uniform(EDM(), 4, 5.0, 1.0), torch.tensor([5.0, 4, 3, 2, 1], dtype=torch.float64))


@pytest.mark.parametrize("make", [karras, log_snr])
def test_levels_ahead_continue_the_same_grid(make):
    plain, ahead = make(8, 2.0, 0.1), make(8, 2.0, 0.1, ahead=3)
    assert len(ahead) == 12 and torch.equal(ahead[3:], plain)
    finer = make(16, 2.0, 0.1, ahead=6)
    assert torch.allclose(finer[::2], ahead, rtol=1e-12)


@pytest.mark.parametrize(
    "levels, message",
    [
        ([3.0, 2.0, 2.0, 1.0], r"sigmas\[2\] = 2 repeats sigmas\[1\] = 2"),
        ([3.0, 1.0, 2.0], r"sigmas\[2\] = 2 exceeds sigmas\[1\] = 1"),
        ([3.0, math.nan], r"sigmas\[1\] = nan"),
        ([math.inf, 1.0], r"sigmas\[0\] = inf"),
        ([1.0, -0.5], r"sigmas\[1\] = -0.5"),
        ([1.0], "at least two"),
        ([[1.0, 0.5]], "one-dimensional"),
    ],
)
def test_bad_levels_are_named(levels, message):
    with pytest.raises(ValueError, match=message):
        check_grid(levels)
    with pytest.raises(ValueError, match=message):
        explicit(levels)


def test_bad_arguments():
    with pytest.raises(ValueError, match="sigma_min > 0"):
        log_snr(5, 80.0, 0.0)
    with pytest.raises(ValueError, match="steps = 0"):
        karras(0)
    with pytest.raises(ValueError, match="steps = 1"):
        karras(1, end="zero")
    with pytest.raises(ValueError, match="end = 'middle'"):
        karras(5, end="middle")
    with pytest.raises(ValueError, match="rho"):
        karras(5, rho=0.0)
    with pytest.raises(ValueError, match="t_max > t_min"):
        time_uniform(VPLinear(), 5, 0.1, 0.5)
