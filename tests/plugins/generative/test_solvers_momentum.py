"""Momentum methods: published tables, stability limits, and what the variable-step weights repair."""

import math

import numpy as np
import pytest
import torch

from plugins.generative.grids import karras
from plugins.generative.mixtures import toy_mixture
from plugins.generative.solvers import GHVB, PLMS, DPMSolverPP2M, HeavyBall
from plugins.generative.solvers.momentum import ghvb_table

MIXTURE = toy_mixture()


def growth(weights, beta, z):
    """Spectral radius of y' = y + z sum_k w_k v_{n-k}, v_n = (1 - beta) v_{n-1} + beta y_n, on dy/dx = z y."""
    k = len(weights)
    # State (y_n, v_{n-1}, ..., v_{n-k}).
    matrix = np.zeros((k + 1, k + 1))
    v_now = np.zeros(k + 1)
    v_now[0], v_now[1] = beta, 1 - beta
    matrix[0, 0] = 1.0
    matrix[0] += z * weights[0] * v_now
    for j in range(1, k):
        matrix[0, j] += z * weights[j]
    matrix[1] = v_now
    for j in range(2, k + 1):
        matrix[j, j - 1] = 1.0
    return max(abs(np.linalg.eigvals(matrix)))


def limit(weights, beta):
    """Largest |z| on the negative real axis that does not grow, by bisection."""
    low, high = 1e-3, 10.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if growth(weights, beta, -middle) <= 1 + 1e-9 else (low, middle)
    return low


def late_weights(solver, steps=60):
    """The solver's own weights on a uniform grid, per unit step, once its momentum is old."""
    sigmas = karras(steps, 61.0, 1.0, rho=1.0)
    _, weights = solver.plan(tuple(sigmas.tolist()), ())[40]
    return [w / -1.0 for w in weights]


LIMITS = {
    1: lambda b: 2 * (2 - b) / b,
    2: lambda b: 2 - b,
    3: lambda b: 6 * (2 - b) / (12 - b),
    4: lambda b: 3 * (2 - b) / (11 - b),
}


@pytest.mark.parametrize("beta", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("order", LIMITS)
@pytest.mark.parametrize("kind", ["table", "sigma"])
def test_ghvb_stability_limits(order, beta, kind):
    weights = late_weights(GHVB(order, beta, kind))
    assert limit(weights, beta) == pytest.approx(LIMITS[order](beta), abs=0.005)


@pytest.mark.parametrize("order, expected", [(1, 2.0), (2, 1.0), (3, 6 / 11), (4, 0.3)])
def test_adams_bashforth_stability_limits_and_what_heavy_ball_adds(order, expected):
    weights = PLMS(order).weights(tuple(range(order)), 1.0)[1]
    assert limit(list(weights), 1.0) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("beta", [0.6, 0.8])
@pytest.mark.parametrize("order, base", [(1, 2.0), (2, 1.0), (3, 6 / 11), (4, 0.3)])
def test_heavy_ball_widens_the_interval(order, base, beta):
    """Run on the test equation itself: bounded just inside the widened limit, growing just outside."""
    sizes = []
    for factor in (0.97, 1.03):
        z = base * (2 - beta) / beta * factor
        grid = karras(400, 401.0, 1.0, rho=1.0)  # steps of -1 in sigma; eps = z y makes dy/dsigma = z y
        y = torch.ones(1, 1, dtype=torch.float64)
        solver = HeavyBall(PLMS(order), beta)
        sizes.append(solver.sample(lambda y, s, z=z: y - s * z * y, y, grid).abs().item())
    assert sizes[0] < 1.0 < sizes[1]


def test_tables():
    assert ghvb_table(4, 1.0) == pytest.approx((55 / 24, -59 / 24, 37 / 24, -9 / 24))
    assert ghvb_table(5, 1.0) == pytest.approx(
        (1901 / 720, -2774 / 720, 2616 / 720, -1274 / 720, 251 / 720), abs=1e-14
    )
    for order in range(1, 6):
        assert sum(ghvb_table(order, 0.7)) == pytest.approx(1.0, abs=1e-13)
    with pytest.raises(ValueError, match="order = 6"):
        ghvb_table(6, 0.5)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("beta", [0.6, 0.8])
def test_variable_weights_become_the_table_where_steps_are_equal(order, beta):
    matched = late_weights(GHVB(order, beta, "sigma"))
    assert matched == pytest.approx(ghvb_table(order, beta), rel=1e-8)


@pytest.mark.parametrize("kind", ["log", "sigma"])
def test_variable_weights_integrate_polynomials_exactly_on_any_grid(kind):
    """The averages of eps that the v's hold, fed by a cubic, give its exact integral from the first full step on."""
    solver, sigmas = GHVB(4, 0.7, kind), karras(9, 10.0, 0.5).tolist()
    variable = (lambda s: math.log(s)) if kind == "log" else (lambda s: s)
    plan = solver.plan(tuple(sigmas), ())
    for power in range(4):
        v, momenta = None, []
        for i, (sigma, weights) in enumerate(plan):
            eps = variable(sigma) ** power
            v = eps if v is None else 0.3 * v + 0.7 * eps
            momenta.insert(0, v)
            if i < 3:
                continue
            step = sum(w * m for w, m in zip(weights, momenta, strict=False))
            x, q = np.polynomial.legendre.leggauss(30)
            s = 0.5 * (sigmas[i + 1] - sigma) * (x + 1) + sigma
            exact = 0.5 * (sigmas[i + 1] - sigma) * float(q @ np.array([variable(t) ** power for t in s]))
            assert step == pytest.approx(exact, rel=1e-9, abs=1e-10)


def test_heavy_ball_written_out():
    sigmas = karras(6, 5.0, 0.1).tolist()
    y = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for nesterov in (False, True):
        state, old, v = y, None, None
        for s, after in zip(sigmas, sigmas[1:], strict=False):
            eps = (state - MIXTURE(state, s)) / s
            p = eps if old is None else 1.5 * eps - 0.5 * old
            v = (eps if v is None else v) * 0.25 + 0.75 * p
            state = state + (after - s) * ((0.25 * v + 0.75 * p) if nesterov else v)
            old = eps
        ours = HeavyBall(PLMS(2), 0.75, nesterov).sample(MIXTURE, y, sigmas)
        assert torch.allclose(ours, state, atol=1e-12)


def test_heavy_ball_on_a_data_predictor_keeps_the_fixed_point():
    """With a constant D the momentum is D itself, and the step lands where the base's does."""
    target = torch.full((2, 2), 0.3, dtype=torch.float64)
    y = HeavyBall(DPMSolverPP2M(), 0.5).sample(lambda y, s: target, 0 * target, [4.0, 1.0, 0.1, 0.0])
    assert torch.allclose(y, target, atol=1e-14)
