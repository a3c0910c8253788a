import pytest
import torch

from plugins.generative.mixtures import (
    GaussianMixture,
    cached_reference,
    digits_mixture,
    reference_trajectory,
    toy_mixture,
)

MIXTURE = toy_mixture()
STATE = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
def test_score_is_the_gradient_of_the_density_and_gives_the_denoiser(sigma):
    y = (STATE * max(sigma, 1.0)).requires_grad_()
    (gradient,) = torch.autograd.grad(MIXTURE.log_prob(y, sigma).sum(), y)
    assert torch.allclose(MIXTURE.score(y, sigma), gradient, rtol=1e-9, atol=1e-12)
    assert torch.allclose(MIXTURE(y, sigma), y + sigma**2 * gradient, rtol=1e-9, atol=1e-9)


def test_density_integrates_to_one():
    axis = torch.linspace(-6, 6, 401, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    mass = MIXTURE.log_prob(points, 0.4).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.8])
def test_jacobian(sigma):
    tangent = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    full = torch.stack([torch.autograd.functional.jacobian(lambda y: MIXTURE(y[None], sigma)[0], y) for y in STATE])
    value, product = MIXTURE.jvp(STATE, sigma, tangent)
    assert torch.allclose(value, MIXTURE(STATE, sigma), atol=1e-14)
    assert torch.allclose(product, (full @ tangent[..., None])[..., 0], atol=1e-12)
    assert torch.allclose(MIXTURE.jacobian_diagonal(STATE, sigma), full.diagonal(dim1=1, dim2=2), atol=1e-12)


def test_samples_have_the_mixtures_moments():
    samples = MIXTURE.sample(200_000, torch.Generator().manual_seed(2))
    mean = MIXTURE.weights @ MIXTURE.means
    variance = 0.35**2 + MIXTURE.weights @ (MIXTURE.means - mean).square()
    assert torch.allclose(samples.mean(0), mean, atol=0.01)
    assert torch.allclose(samples.var(0), variance, rtol=0.02)


def test_zero_std_is_the_empirical_distribution():
    mixture = GaussianMixture(MIXTURE.means, 0.0)
    assert torch.allclose(mixture(MIXTURE.means + 1e-3, 0.01), MIXTURE.means, atol=1e-12)
    assert torch.equal(mixture.nearest(MIXTURE.means + 0.05), torch.arange(5))


def test_bad_mixtures_and_empty_batches():
    with pytest.raises(ValueError, match="means"):
        GaussianMixture(torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="std"):
        GaussianMixture(torch.zeros(3, 2), -1.0)
    with pytest.raises(ValueError, match="weights"):
        GaussianMixture(torch.zeros(3, 2), 1.0, torch.tensor([1.0, 0.0, 1.0]))
    assert MIXTURE(STATE[:0], 1.0).shape == (0, 2)


def test_digits_mixture():
    mixture = digits_mixture()
    assert mixture.means.shape == (1797, 64) and mixture.std == 0.3
    assert mixture.means.min() == -1 and mixture.means.max() == 1


def test_reference_is_exact_on_gaussian_data_and_fourth_order():
    single = GaussianMixture(torch.tensor([[0.5, -0.2]], dtype=torch.float64), 0.6)
    sigmas = torch.tensor([5.0, 1.0, 0.05], dtype=torch.float64)
    start = 5 * STATE
    radius = (0.36 + sigmas.square()).sqrt()
    exact = single.means + (start - single.means) * (radius / radius[0])[:, None, None]
    errors = [(reference_trajectory(single, start, sigmas, n) - exact).abs().max().item() for n in (100, 200)]
    assert errors[1] < 1e-7 and 12 < errors[0] / errors[1] < 20
    with pytest.raises(ValueError, match="sigma = 0"):
        reference_trajectory(single, start, torch.tensor([5.0, 1.0, 0.0]))


def test_cached_reference_is_keyed_by_everything(tmp_path):
    sigmas = torch.tensor([5.0, 0.5], dtype=torch.float64)
    calls = []

    def counting(y, sigma):
        calls.append(1)
        return MIXTURE(y, sigma)

    first = cached_reference(counting, STATE, sigmas, 20, tmp_path, "toy")
    count = len(calls)
    again = cached_reference(counting, STATE, sigmas, 20, tmp_path, "toy")
    assert len(calls) == count and torch.equal(first, again)
    assert torch.equal(first, cached_reference(counting, STATE, sigmas, 20, None, "toy"))
    for other in ((STATE + 1, sigmas, 20, "toy"), (STATE, sigmas * 0.9, 20, "toy"), (STATE, sigmas, 20, "other")):
        before = len(calls)
        cached_reference(counting, other[0], other[1], other[2], tmp_path, other[3])
        assert len(calls) > before
