import math

import pytest
import torch

from plugins.generative.metrics import (
    class_coverage,
    class_shares,
    classifier_confidence,
    frechet_distance,
    sliced_wasserstein,
)


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sliced_wasserstein_of_a_shift_is_its_projected_length():
    x = normal(200, 5)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0], dtype=torch.float64)
    # the mean over directions of <shift, theta>^2 is |shift|^2 / d
    expected = shift.norm().item() / math.sqrt(5)
    assert sliced_wasserstein(x, x + shift, projections=20_000) == pytest.approx(expected, rel=0.02)
    assert sliced_wasserstein(x, x[torch.randperm(200)]) == 0


def test_sliced_wasserstein_of_a_scaling():
    x = normal(50_000, 3)
    # between N(0, I) and N(0, 4I) every projection has distance 1
    assert sliced_wasserstein(x, 2 * normal(50_000, 3, seed=1), projections=64) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("n, m", [(6, 4), (7, 3), (1, 5), (4, 4)])
def test_sliced_wasserstein_of_unequal_sizes_equals_that_of_repeated_samples(n, m):
    x, y = normal(n, 2), normal(m, 2, seed=1)
    common = math.lcm(n, m)
    repeated = sliced_wasserstein(x.repeat(common // n, 1), y.repeat(common // m, 1))
    assert sliced_wasserstein(x, y) == pytest.approx(repeated, rel=1e-12)
    assert sliced_wasserstein(x, y) == pytest.approx(sliced_wasserstein(y, x), rel=1e-12)


def test_sliced_wasserstein_matches_scipy_in_one_dimension():
    scipy_stats = pytest.importorskip("scipy.stats")
    x, y = normal(40, 1), 1 + normal(60, 1, seed=1) ** 3
    levels = torch.linspace(0, 1, 24_001, dtype=torch.float64)[:-1] + 0.5 / 24_000
    quantiles = [s.flatten().sort().values[(levels * len(s)).long()] for s in (x, y)]
    expected = (quantiles[0] - quantiles[1]).square().mean().sqrt().item()
    assert sliced_wasserstein(x, y) == pytest.approx(expected, rel=1e-12)
    # W1 <= W2, with scipy's W1
    assert scipy_stats.wasserstein_distance(x.flatten(), y.flatten()) <= expected


def test_frechet_distance_of_commuting_covariances_has_a_closed_form():
    x = normal(500, 4)
    scale, shift = torch.tensor([1.0, 2.0, 0.5, 3.0]).double(), torch.tensor([1.0, 0.0, -1.0, 2.0]).double()
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    expected = shift.square().sum() + (scale - 1).square().sum()
    assert frechet_distance(x, x * scale + shift) == pytest.approx(expected.item(), rel=1e-10)


def test_frechet_distance_against_scipy_sqrtm():
    linalg = pytest.importorskip("scipy.linalg")
    x, y = normal(300, 6) @ normal(6, 6, seed=2), normal(200, 6, seed=1) @ normal(6, 6, seed=3) + 1
    a, b = torch.cov(x.T), torch.cov(y.T)
    root = torch.from_numpy(linalg.sqrtm((a @ b).numpy()).real)
    expected = (x.mean(0) - y.mean(0)).square().sum() + (a + b - 2 * root).trace()
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-8)


def test_frechet_distance_survives_singular_covariances():
    x = normal(100, 1) @ torch.ones(1, 8, dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, 3 * x) == pytest.approx(
        (2 * x.mean(0)).square().sum().item() + 4 * torch.cov(x.T).trace().item(), rel=1e-6
    )
    constant = torch.zeros(5, 8)
    assert frechet_distance(constant, constant + 2) == pytest.approx(8 * 4)


def test_frechet_distance_of_one_feature():
    x = normal(50, 1)
    assert frechet_distance(x, 2 * x) == pytest.approx((x.mean() ** 2 + x.var()).item(), rel=1e-10)


def test_classification_metrics():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    assert classifier_confidence(logits) == pytest.approx((0.5 + 0.75) / 2)
    predictions = torch.tensor([0] * 97 + [1] * 3)
    assert class_shares(predictions, 3).tolist() == pytest.approx([0.97, 0.03, 0.0])
    assert class_coverage(predictions, 3) == 2
    assert class_coverage(predictions, 3, min_share=0.05) == 1


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sliced_wasserstein(torch.zeros(0, 3), torch.zeros(2, 3)), "x must be a non-empty"),
        (lambda: sliced_wasserstein(torch.zeros(2, 3), torch.zeros(2, 4)), "dimension"),
        (lambda: sliced_wasserstein(torch.zeros(2, 3), torch.zeros(2, 3), projections=0), "projections"),
        (lambda: frechet_distance(torch.zeros(1, 3), torch.zeros(2, 3)), "two samples"),
        (lambda: frechet_distance(torch.zeros(2, 3), torch.full((2, 3), math.nan)), "y holds 6 values"),
        (lambda: class_shares(torch.zeros(0, dtype=torch.long), 3), "empty"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
