"""Stochastic solvers: exact variances on Gaussian data, and noise that belongs to one path."""

import math

import pytest
import torch

from plugins.generative.grids import karras
from plugins.generative.mixtures import toy_mixture
from plugins.generative.solvers import DDIM, Ancestral, BrownianTree, DPMSolverPP2M, DPMSolverPP2MSDE, Heun

STD = 0.7
SAMPLES = 200_000


def gaussian(y, sigma):
    return y * STD**2 / (STD**2 + sigma**2)


def start(sigma, count=SAMPLES):
    generator = torch.Generator().manual_seed(3)
    return math.sqrt(STD**2 + sigma**2) * torch.randn(count, 1, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("solver", [DDIM(0.4), Ancestral(), DDIM(1.0, noise_scale=1.1)])
def test_variance_follows_the_recursion(solver):
    sigmas = karras(8, 10.0, 0.05).tolist()
    variance = STD**2 + sigmas[0] ** 2
    for s, after in zip(sigmas, sigmas[1:], strict=False):
        up = min(after, solver.eta * math.sqrt(after**2 * (s**2 - after**2) / s**2))
        down = math.sqrt(after**2 - up**2)
        a = STD**2 / (STD**2 + s**2)
        variance = (a + down / s * (1 - a)) ** 2 * variance + (solver.noise_scale * up) ** 2
    y = solver.sample(gaussian, start(10.0), sigmas, generator=torch.Generator().manual_seed(0))
    assert y.var().item() == pytest.approx(variance, rel=0.01)
    assert abs(y.mean().item()) < 4 * math.sqrt(variance / SAMPLES)


def test_churn_variance():
    sigmas = karras(6, 10.0, 0.05).tolist()
    solver = Heun(churn=2.0, churn_min=0.1, churn_max=5.0, noise_scale=1.003)
    variance = STD**2 + sigmas[0] ** 2
    for s, after in zip(sigmas, sigmas[1:], strict=False):
        raised = s * (1 + min(2.0 / 6, math.sqrt(2) - 1)) if 0.1 <= s <= 5.0 else s
        variance += 1.003**2 * (raised**2 - s**2)
        slope = lambda x: x / (STD**2 + x**2)  # noqa: E731
        h = after - raised
        factor = 1 + h / 2 * (slope(raised) + slope(after) * (1 + h * slope(raised)))
        variance *= factor**2
    y = solver.sample(gaussian, start(10.0), sigmas, generator=torch.Generator().manual_seed(0))
    assert y.var().item() == pytest.approx(variance, rel=0.01)
    assert Heun(churn=0.0).stochastic is False and solver.stochastic is True


@pytest.mark.parametrize("kind", ["midpoint", "heun"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_2m_sde_variance(eta, kind):
    sigmas = karras(10, 10.0, 0.05).tolist()
    solver = DPMSolverPP2MSDE(eta, kind)
    # Covariance of (y_n, D_{n-1}) under the linear recursion.
    covariance = torch.tensor([[STD**2 + 100.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    for i, (s, after) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        a = STD**2 / (STD**2 + s**2)
        nodes = (s,) if i == 0 else (s, sigmas[i - 1])
        scale, weights = solver.weights(nodes, after)
        older = weights[1] if i else 0.0
        step = torch.tensor([[scale + weights[0] * a, older], [a, 0.0]], dtype=torch.float64)
        covariance = step @ covariance @ step.T
        covariance[0, 0] += after**2 * (1 - (after / s) ** (2 * eta))
    y = solver.sample(gaussian, start(10.0), sigmas, generator=torch.Generator().manual_seed(0))
    assert y.var().item() == pytest.approx(covariance[0, 0].item(), rel=0.01)


def test_2m_sde_approaches_the_marginal_and_2m_as_eta_vanishes():
    fine = karras(200, 10.0, 0.05)
    y = DPMSolverPP2MSDE().sample(gaussian, start(10.0, 50_000), fine, generator=torch.Generator().manual_seed(0))
    assert y.var().item() == pytest.approx(STD**2 + 0.05**2, rel=0.02)
    y0 = start(10.0, 50)
    small = DPMSolverPP2MSDE(1e-9).sample(gaussian, y0, fine, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(small, DPMSolverPP2M().sample(gaussian, y0, fine), atol=1e-3)


def tree(seeds, eta=1.0, **options):
    return BrownianTree((len(seeds), 3), 20.0, 0.01, seeds, eta, **options)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_refining_the_grid_refines_one_path(eta):
    """With a constant denoiser the SDE's step is exact, so any grid must end at the same point."""
    seeds = list(range(4))
    target = torch.full((4, 3), 0.2, dtype=torch.float64)
    ends = []
    for grid in (karras(2, 20.0, 0.01), karras(3, 20.0, 0.01), karras(50, 20.0, 0.01)):
        y = torch.full((4, 3), 5.0, dtype=torch.float64)
        ends.append(DPMSolverPP2MSDE(eta).sample(lambda y, s: target, y, grid, noise=tree(seeds, eta)))
    # The tree resolves levels to log(2000) / 2^24.
    assert torch.allclose(ends[0], ends[1], atol=1e-6) and torch.allclose(ends[1], ends[2], atol=1e-5)


def test_paths_do_not_depend_on_batch_or_order_of_questions():
    alone, together = tree([7]), tree([3, 7, 9])
    together(5.0, 1.0)
    together(0.3, 0.02)
    assert torch.equal(alone(3.0, 2.0)[0], together(3.0, 2.0)[1])
    assert torch.equal(alone(5.0, 1.0)[0], together(5.0, 1.0)[1])
    assert not torch.equal(together(3.0, 2.0)[0], together(3.0, 2.0)[1])
    assert torch.equal(tree([7], dtype=torch.float32)(3.0, 2.0), alone(3.0, 2.0).float())
    single = BrownianTree((2, 3), 20.0, 0.01, seed=5)
    assert not torch.equal(single(3.0, 2.0)[0], single(3.0, 2.0)[1])


def test_increments_are_independent_unit_normals():
    path = BrownianTree((4000, 1), 20.0, 0.01, seed=1, depth=16)
    levels = [20.0, 6.0, 5.0, 0.9, 0.2, 0.01]
    z = torch.cat([path(a, b) for a, b in zip(levels, levels[1:], strict=False)], dim=1)
    covariance = z.T @ z / len(z)
    assert torch.allclose(covariance, torch.eye(5, dtype=torch.float64), atol=0.08)
    assert z.mean(0).abs().max() < 0.07


def test_tree_refuses_what_it_cannot_answer():
    path = tree([0])
    with pytest.raises(ValueError, match="outside the tree's range"):
        path(30.0, 1.0)
    with pytest.raises(ValueError, match="do not decrease"):
        path(1.0, 1.0)
    with pytest.raises(ValueError, match="seeds"):
        BrownianTree((3, 2), 20.0, 0.01, [1, 2])
    with pytest.raises(ValueError, match="eta"):
        tree([0], eta=0.0)


def test_noise_comes_from_the_given_generator_or_source():
    mixture, grid = toy_mixture(), karras(5, 20.0, 0.1)
    y = 20 * torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    runs = [Ancestral().sample(mixture, y, grid, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    asked = []

    def source(a, b):
        asked.append((a, b))
        return torch.zeros_like(y)

    Ancestral().sample(mixture, y, grid, noise=source)
    assert asked == list(zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True))
