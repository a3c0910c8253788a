import math

import pytest
import torch

from plugins.generative.schedules import EDM, VE, Flow, VPCosine, VPDiscrete, VPLinear

SCHEDULES = [VPLinear(), VPCosine(), VPDiscrete.linear(), VPDiscrete.scaled_linear(), VE(), EDM(), Flow()]
name = lambda schedule: type(schedule).__name__  # noqa: E731


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_two_measures_of_noise_invert_and_agree(schedule):
    t = torch.linspace(schedule.t_min, schedule.t_max, 501, dtype=torch.float64)
    alpha, sigma, tilde = schedule.alpha(t), schedule.sigma(t), schedule.sigma_tilde(t)
    assert torch.allclose(sigma / alpha, tilde, rtol=1e-12, atol=0)
    assert bool((tilde.diff() > 0).all())
    assert torch.allclose(schedule.inverse_sigma_tilde(tilde), t, rtol=1e-12, atol=1e-14)
    assert torch.allclose(schedule.inverse_lambda(schedule.lambda_(t)), t, rtol=1e-11, atol=1e-13)
    assert torch.allclose(schedule.alpha_at(tilde), alpha, rtol=1e-12)


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if name(s).startswith("VP")], ids=name)
def test_variance_preserving(schedule):
    t = torch.linspace(schedule.t_min, schedule.t_max, 101, dtype=torch.float64)
    assert torch.allclose(schedule.alpha(t).square() + schedule.sigma(t).square(), torch.ones_like(t), atol=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_shapes_dtypes_and_numbers(schedule):
    t = torch.full((2, 3), schedule.t_max, dtype=torch.float32)
    for function in (schedule.alpha, schedule.sigma, schedule.sigma_tilde, schedule.lambda_):
        assert function(t).shape == (2, 3) and function(t).dtype == torch.float32
        assert function(schedule.t_max).shape == () and function(schedule.t_max).dtype == torch.float64
    back = schedule.inverse_sigma_tilde(schedule.sigma_tilde(t))
    assert back.dtype == torch.float32 and torch.allclose(back, t, rtol=1e-4)


def test_vp_linear_closed_form():
    schedule, t = VPLinear(0.1, 20.0), 0.37
    log_alpha = -(20.0 - 0.1) * t**2 / 4 - 0.1 * t / 2
    assert schedule.alpha(t).item() == pytest.approx(math.exp(log_alpha), rel=1e-14)
    assert schedule.lambda_(t).item() == pytest.approx(
        log_alpha - 0.5 * math.log(1 - math.exp(2 * log_alpha)), rel=1e-12
    )


def test_vp_cosine_reaches_pure_noise_and_pure_data():
    schedule = VPCosine()
    assert schedule.alpha(1.0).item() == 0.0 and schedule.sigma(1.0).item() == pytest.approx(1.0, abs=1e-15)
    assert schedule.alpha(0.0).item() == pytest.approx(1.0, abs=1e-15) and schedule.sigma(0.0).item() == 0.0
    assert schedule.inverse_sigma_tilde(0.0).item() == pytest.approx(0.0, abs=1e-16)
    assert schedule.inverse_sigma_tilde(math.inf).item() == pytest.approx(1.0, abs=1e-15)
    t, s = 0.6, 0.008
    ratio = math.cos(math.pi / 2 * (t + s) / (1 + s)) / math.cos(math.pi / 2 * s / (1 + s))
    assert schedule.alpha(t).item() == pytest.approx(ratio, rel=1e-13)


def test_vp_discrete_passes_through_the_discrete_values():
    schedule = VPDiscrete.linear()
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - betas, 0)
    t = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    assert torch.allclose(schedule.alpha(t), alpha_bar.sqrt(), rtol=1e-12)
    assert torch.allclose(schedule.index(t), torch.arange(1000, dtype=torch.float64), atol=1e-10)
    assert schedule.sigma_tilde(schedule.t_min).item() == pytest.approx(0.010001, abs=1e-6)
    assert schedule.sigma_tilde(1.0).item() == pytest.approx(157.407, abs=1e-3)
    middle = schedule.log_alpha(0.5 * (t[10] + t[11])).item()
    assert middle == pytest.approx(0.25 * (alpha_bar[10].log() + alpha_bar[11].log()).item(), rel=1e-12)


def test_flow_at_both_ends():
    schedule = Flow()
    assert schedule.inverse_sigma_tilde(0.0).item() == 0.0
    assert schedule.inverse_sigma_tilde(math.inf).item() == 1.0
    assert schedule.sigma_tilde(1.0).item() == math.inf


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="beta_min < beta_max"):
        VPLinear(5.0, 1.0)
    with pytest.raises(ValueError, match="betas"):
        VPDiscrete([0.1, 1.0])
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        VE(1.0, 0.5)
    with pytest.raises(ValueError, match="outside"):
        VPLinear().require_in_range(torch.tensor([0.5, 1.2]))
