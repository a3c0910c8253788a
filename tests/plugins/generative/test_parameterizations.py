import itertools

import pytest
import torch

from plugins.generative.mixtures import toy_mixture
from plugins.generative.parameterizations import (
    PREDICTIONS,
    EDMDenoiser,
    NetworkDenoiser,
    Threshold,
    cfg,
    convert,
    from_x0_eps,
    to_x0_eps,
)
from plugins.generative.schedules import EDM, VE, Flow, VPCosine, VPDiscrete, VPLinear

MIXTURE = toy_mixture()
STATE = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("source, target", list(itertools.product(PREDICTIONS, PREDICTIONS)))
@pytest.mark.parametrize("alpha, sigma", [(0.8, 0.6), (0.3, 0.7), (1.0, 5.0)])
def test_conversions_round_trip(source, target, alpha, sigma):
    generator = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    alpha, sigma = (torch.tensor(a, dtype=torch.float64) for a in (alpha, sigma))
    x = alpha * x0 + sigma * eps
    value = from_x0_eps(x0, eps, source, alpha, sigma)
    there = convert(value, source, target, x, alpha, sigma)
    assert torch.allclose(there, from_x0_eps(x0, eps, target, alpha, sigma), atol=1e-12)
    assert torch.allclose(convert(there, target, source, x, alpha, sigma), value, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("alpha, sigma", [(1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ends_are_finite_and_consistent(prediction, alpha, sigma, dtype):
    x, value = torch.randn(2, 4, 3, dtype=dtype, generator=torch.Generator().manual_seed(2))
    if sigma == 0 and prediction == "x0":
        value = x  # the only x0 prediction consistent with a state without noise
    if alpha == 0 and prediction == "epsilon":
        value = x
    if alpha == 0 and prediction == "score":
        value = -x
    alpha, sigma = torch.tensor(alpha), torch.tensor(sigma)
    x0, eps = to_x0_eps(value, prediction, x, alpha, sigma, prior_mean=0.25)
    assert x0.dtype == dtype and bool(torch.isfinite(x0).all()) and bool(torch.isfinite(eps).all())
    assert torch.allclose(alpha.to(dtype) * x0 + sigma.to(dtype) * eps, x, atol=1e-6)
    if alpha == 0 and prediction in ("epsilon", "score"):
        assert bool((x0 == 0.25).all())


def test_infinite_score_is_refused():
    with pytest.raises(ValueError, match="sigma = 0"):
        from_x0_eps(STATE, STATE, "score", torch.tensor(1.0), torch.tensor(0.0))
    with pytest.raises(ValueError, match="not one of"):
        convert(STATE, "noise", "x0", STATE, torch.tensor(1.0), torch.tensor(1.0))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    "schedule", [VPLinear(), VPCosine(), VPDiscrete.linear(), VE(), EDM(), Flow()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("level", [0.02, 0.7, 40.0])
def test_a_perfect_network_of_any_kind_becomes_the_exact_denoiser(schedule, prediction, level):
    seen = []

    def network(x, t):
        assert t.shape == (len(x),)
        seen.append(t)
        time = (t + 1) / 1000 if isinstance(schedule, VPDiscrete) else t
        alpha, sigma = schedule.alpha(time[0]), schedule.sigma(time[0])
        x0 = MIXTURE(x / alpha, sigma / alpha)
        return from_x0_eps(x0, (x - alpha * x0) / sigma, prediction, alpha, sigma)

    sigma = torch.tensor(level, dtype=torch.float64)
    denoised = NetworkDenoiser(network, schedule, prediction)(level * STATE, sigma)
    assert torch.allclose(denoised, MIXTURE(level * STATE, sigma), atol=1e-9 * max(1.0, level))
    assert seen


def test_edm_preconditioning_inverts_and_is_finite_at_zero():
    raw = lambda x, c: torch.tanh(x) * c[:, None].clamp(-1, 1)  # noqa: E731
    denoiser = EDMDenoiser(raw, sigma_data=0.5)
    sigma = torch.tensor(2.0, dtype=torch.float64)
    skip, out, scale, noise = (c.item() for c in denoiser.coefficients(sigma))
    assert skip == pytest.approx(0.25 / 4.25) and out == pytest.approx(1.0 / 4.25**0.5)
    assert scale == pytest.approx(4.25**-0.5) and noise == pytest.approx(torch.log(sigma).item() / 4)
    expected = skip * STATE + out * raw(scale * STATE, torch.full((7,), noise, dtype=torch.float64))
    assert torch.allclose(denoiser(STATE, sigma), expected)
    assert torch.allclose(denoiser(STATE, torch.tensor(0.0, dtype=torch.float64)), STATE)
    with pytest.raises(ValueError, match="sigma_data"):
        EDMDenoiser(raw, 0.0)


def test_network_dtype_is_its_own():
    def network(x, t):
        assert x.dtype == t.dtype == torch.float32
        return torch.zeros_like(x)

    denoised = NetworkDenoiser(network, VPLinear(), "epsilon", dtype=torch.float32)(STATE, torch.tensor(0.5).double())
    assert denoised.dtype == torch.float64 and torch.equal(denoised, STATE)


def test_guidance_extrapolates_and_switches_off():
    conditional, unconditional = (lambda y, s: 2 * y), (lambda y, s: y)
    sigma = torch.tensor(1.0, dtype=torch.float64)
    assert torch.allclose(cfg(conditional, unconditional, 3.0)(STATE, sigma), 4 * STATE)
    assert torch.equal(cfg(conditional, unconditional, 1.0)(STATE, sigma), 2 * STATE)
    assert torch.allclose(cfg(conditional, unconditional, 0.0)(STATE, sigma), STATE)
    limited = type(cfg(conditional, unconditional, 3.0))(conditional, unconditional, 3.0, interval=(2.0, 4.0))
    assert torch.allclose(limited(STATE, sigma), 2 * STATE)
    assert torch.allclose(limited(STATE, 3 * sigma), 4 * STATE)


def test_thresholding():
    values = torch.tensor([[0.5, -0.2, 0.1], [4.0, -2.0, 1.0]], dtype=torch.float64)
    sigma = torch.tensor(1.0)
    static = Threshold(lambda y, s: y, bound=1.0)(values, sigma)
    assert torch.equal(static, values.clamp(-1, 1))
    dynamic = Threshold(lambda y, s: y, bound=1.0, quantile=0.5)(values, sigma)
    assert torch.equal(dynamic[0], values[0])
    assert torch.allclose(dynamic[1], torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64))
    for q in (0.3, 0.995, 1.0):
        size = torch.quantile(values.abs(), q, dim=1).clamp_min(1.0)[:, None]
        expected = values.clamp(-size, size) / size
        assert torch.allclose(Threshold(lambda y, s: y, 1.0, q)(values, sigma), expected)
    with pytest.raises(ValueError, match="quantile"):
        Threshold(lambda y, s: y, 1.0, 1.5)
