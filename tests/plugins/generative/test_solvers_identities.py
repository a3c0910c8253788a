"""Methods that are the same under two names are the same to rounding, and match formulas written out anew."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from plugins.generative.grids import append_zero, karras, log_snr, time_uniform
from plugins.generative.mixtures import toy_mixture
from plugins.generative.schedules import Flow, VPLinear
from plugins.generative.solvers import (
    DDIM,
    GHVB,
    PLMS,
    Angular,
    DPMSolverPP2M,
    DPMSolverPP2MSDE,
    DPMSolverPP3M,
    Euler,
    Exponential,
    HeavyBall,
    Heun,
    RhoAB,
    RungeKutta,
    TimeAB,
    UniPC,
    log_rho,
)
from plugins.generative.solvers.lagrange import exponential_kernel_weights, moment_weights, uniform_kernel_weights
from plugins.generative.solvers.phi import phi

MIXTURE = toy_mixture()
GRIDS = {"karras": karras(15, 80.0, 0.002), "log_snr": log_snr(15, 80.0, 0.002), "vp": time_uniform(VPLinear(), 15)}
START = 80 * torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

SAME = {
    "ddim is euler": (DDIM(0.0), Euler()),
    "rk1 is euler": (RungeKutta("euler"), Euler()),
    "heun is rho-RK2": (RungeKutta("heun2"), Heun()),
    "plms1 is euler": (PLMS(1), Euler()),
    "deis-0 is euler": (RhoAB(0), Euler()),
    "t-AB-0 is euler": (TimeAB(0), Euler()),
    "log-rho 1 is euler": (log_rho(1), Euler()),
    "data-lambda 1 is euler": (Exponential(1), Euler()),
    "unip1 is euler": (UniPC(1, corrector=False), Euler()),
    "2m heun is data-lambda 2": (DPMSolverPP2M("heun"), Exponential(2)),
    "2m is unip2 bh2": (DPMSolverPP2M(), UniPC(2, corrector=False)),
    "sde at eta 0 is 2m": (DPMSolverPP2MSDE(eta=0.0), DPMSolverPP2M()),
    "sde at eta 0 is 2m heun": (DPMSolverPP2MSDE(eta=0.0, kind="heun"), DPMSolverPP2M("heun")),
    "ghvb4 at beta 1 is plms4": (GHVB(4, 1.0, "table"), PLMS(4)),
    "ghvb5 at beta 1 is plms5": (GHVB(5, 1.0, "table"), PLMS(5)),
    "ghvb log at beta 1 is log-rho": (GHVB(4, 1.0), log_rho(4)),
    "ghvb sigma at beta 1 is rho-AB": (GHVB(4, 1.0, "sigma"), RhoAB(3)),
    "heavy ball at beta 1 is its base": (HeavyBall(PLMS(4), 1.0), PLMS(4)),
    "nesterov at beta 1 is its base": (HeavyBall(DPMSolverPP2M(), 1.0, nesterov=True), DPMSolverPP2M()),
    "heavy ball on order 1 is ghvb1": (HeavyBall(PLMS(1), 0.7), GHVB(1, 0.7)),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("pair", SAME)
def test_identities(pair, grid):
    one, other = SAME[pair]
    a, b = (solver.sample(MIXTURE, START, GRIDS[grid]) for solver in (one, other))
    assert torch.allclose(a, b, rtol=0, atol=1e-12 * max(1.0, a.abs().max().item()))


@pytest.mark.parametrize("grid", GRIDS)
def test_both_bases_of_unipc_are_the_exact_integral_where_no_half_is_fixed(grid):
    nodes, target = GRIDS[grid][[6, 5, 4]].tolist(), GRIDS[grid][7].item()
    scale, exact = Exponential(3).weights(tuple(nodes), target)
    for basis in ("bh1", "bh2"):
        unip = UniPC(3, basis).weights(nodes, target, with_target=False)
        assert (unip[0], *unip[1]) == pytest.approx((scale, *exact), rel=1e-10)
    one, two = (UniPC(3, basis).weights(nodes, target, with_target=True)[1] for basis in ("bh1", "bh2"))
    assert one == pytest.approx(two, rel=1e-9)


def test_flow_matching_euler_is_the_same_step():
    """Euler on the velocity u = eps - x0 over t, x = (1 - t) x0 + t eps."""
    schedule, times = Flow(), torch.linspace(0.98, 0.01, 12, dtype=torch.float64)
    grid = schedule.sigma_tilde(times)
    y = START / 80 * grid[0]
    x = y * (1 - times[0])
    for t, after in zip(times, times[1:], strict=False):
        x0 = MIXTURE(x / (1 - t), t / (1 - t))
        x = x + (after - t) * (x - x0) / t
    assert torch.allclose(x / (1 - times[-1]), Euler().sample(MIXTURE, y, grid), atol=1e-12)


def test_uniform_grid_makes_rho_ab_plms():
    grid = karras(20, 5.0, 0.5, rho=1.0)
    for order in (1, 2, 3, 4, 5):
        a, b = PLMS(order).sample(MIXTURE, START / 16, grid), RhoAB(order - 1).sample(MIXTURE, START / 16, grid)
        assert torch.allclose(a, b, atol=1e-11)


@pytest.mark.parametrize("grid", GRIDS)
def test_exact_3m_is_data_lambda_3_and_the_reference_halves_the_curvature(grid):
    nodes = tuple(GRIDS[grid][[6, 5, 4]].tolist())
    target = GRIDS[grid][7].item()
    scale, exact = DPMSolverPP3M("exact").weights(nodes, target)
    assert (scale, *exact) == pytest.approx((target / nodes[0], *Exponential(3).weights(nodes, target)[1]), rel=1e-10)
    _, reference = DPMSolverPP3M("reference").weights(nodes, target)
    h = math.log(nodes[0] / target)
    r0, r1 = math.log(nodes[1] / nodes[0]) / h, math.log(nodes[2] / nodes[1]) / h
    curvature = h * phi(3, -h) / (r0 + r1)
    expected = curvature / r0, -curvature / r0 - curvature / r1, curvature / r1
    assert [e - r for e, r in zip(exact, reference, strict=True)] == pytest.approx(expected, rel=1e-9)


def test_2m_written_out():
    grid = GRIDS["karras"].tolist()
    y, old = START, None
    for i in range(15):
        denoised = MIXTURE(y, grid[i])
        h = math.log(grid[i] / grid[i + 1])
        direction = denoised
        if old is not None:
            r = math.log(grid[i - 1] / grid[i]) / h
            direction = denoised + (denoised - old) / (2 * r)
        y = grid[i + 1] / grid[i] * y - math.expm1(-h) * direction
        old = denoised
    assert torch.allclose(y, DPMSolverPP2M().sample(MIXTURE, START, GRIDS["karras"]), atol=1e-12)


def test_unipc_written_out():
    """UniPC-2 (bh2) with corrector, step by step from the paper's algorithm."""
    sigma = GRIDS["log_snr"].tolist()
    lam = [-math.log(s) for s in sigma]
    y, outputs, states = START, [], [START]

    def parts(i, hh):
        b = math.expm1(hh)
        psi = [math.expm1(hh) / hh - 1]
        psi.append(psi[0] / hh - 0.5)
        return b, [psi[0] / b, 2 * psi[1] / b]

    for i in range(15):
        new = MIXTURE(y, sigma[i])
        if i > 0:
            h = lam[i] - lam[i - 1]
            b, right = parts(i, -h)
            base = sigma[i] / sigma[i - 1] * states[-1] - math.expm1(-h) * outputs[-1]
            if i == 1:
                y = base - b * 0.5 * (new - outputs[-1])
            else:
                r = (lam[i - 2] - lam[i - 1]) / h
                rho = np.linalg.solve([[1.0, 1.0], [r, 1.0]], right)
                y = base - b * (rho[0] * (outputs[-2] - outputs[-1]) / r + rho[1] * (new - outputs[-1]))
            states.append(y)
        outputs.append(new)
        h = lam[i + 1] - lam[i]
        y = sigma[i + 1] / sigma[i] * y - math.expm1(-h) * new
        if i > 0:
            r = (lam[i - 1] - lam[i]) / h
            y = y - math.expm1(-h) * 0.5 * (outputs[-2] - new) / r
    assert torch.allclose(y, UniPC(2).sample(MIXTURE, START, GRIDS["log_snr"]), atol=1e-11)


def test_ancestral_is_the_ddpm_posterior():
    """eta = 1: mean D + (s'/s)^2 (y - D), variance s'^2 (s^2 - s'^2) / s^2."""
    z = torch.randn(8, 2, dtype=torch.float64)
    s, after = 2.0, 0.7
    y = DDIM(1.0).sample(MIXTURE, START / 40, [s, after], noise=lambda a, b: z)
    denoised = MIXTURE(START / 40, torch.tensor(s))
    expected = denoised + (after / s) ** 2 * (START / 40 - denoised) + after * math.sqrt(1 - (after / s) ** 2) * z
    assert torch.allclose(y, expected, atol=1e-12)


def test_weights_against_quadrature():
    nodes, target = (3.0, 4.1, 6.0, 9.5), 1.2

    def basis(j, x):
        return math.prod((x - n) / (nodes[j] - n) for k, n in enumerate(nodes) if k != j)

    plain = [integrate.quad(lambda x, j=j: basis(j, x), 3.0, target, epsabs=0, epsrel=1e-13)[0] for j in range(4)]
    assert uniform_kernel_weights(nodes, target) == pytest.approx(plain, rel=1e-11)
    for sign in (-1.0, 1.0):
        weighted = [
            integrate.quad(
                lambda x, j=j, sign=sign: math.exp(sign * (target - x)) * basis(j, x), 3.0, target, epsrel=1e-13
            )[0]
            for j in range(4)
        ]
        assert exponential_kernel_weights(nodes, target, sign) == pytest.approx(weighted, rel=1e-9)
    moulton = uniform_kernel_weights((2.0, 1.0, 0.0), 2.0, start=1.0)
    assert moulton == pytest.approx([5 / 12, 8 / 12, -1 / 12], rel=1e-13)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("z", [-30.0, -6.1, -2.0, -1e-3, -1e-12, 0.0, 1e-9, 0.5, 4.9, 9.0])
def test_phi_functions(k, z):
    # The substitution u = (1 - x) keeps the integrand smooth; 40 Gauss points are exact to rounding here.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u = 0.5 * (nodes + 1)
    exact = float(0.5 * weights @ (np.exp((1 - u) * z) * u ** (k - 1))) / math.factorial(k - 1)
    assert phi(k, z) == pytest.approx(exact, rel=5e-14)
    assert phi(0, z) == math.exp(z)


def test_time_ab_weights_reproduce_polynomials_in_time():
    schedule = VPLinear()
    times = torch.tensor([0.5, 0.62, 0.7, 0.8], dtype=torch.float64)
    target = 0.41
    nodes = tuple(schedule.sigma_tilde(times).tolist())
    weights = TimeAB(3, schedule).weights(nodes, schedule.sigma_tilde(target).item())[1]
    for power in range(4):
        exact = integrate.quad(
            lambda t, p=power: t**p * 0.5 * (0.1 + 19.9 * t) * math.exp(schedule.integrated_beta(t).item())
            / schedule.sigma_tilde(t).item(),
            0.5,
            target,
            epsabs=0,
            epsrel=1e-12,
        )[0]
        assert sum(w * t**power for w, t in zip(weights, times.tolist(), strict=True)) == pytest.approx(exact, rel=1e-9)
    assert sum(weights) == pytest.approx(schedule.sigma_tilde(target).item() - nodes[0], rel=1e-12)


def test_coincident_nodes_are_named():
    with pytest.raises(ValueError, match="nodes 0 and 2 coincide"):
        moment_weights([1.0, 2.0, 1.0], [1.0, 1.0, 1.0])


def test_angular_to_zero_is_an_ordinary_step_of_full_order():
    gaussian = lambda y, s: y * 0.25 / (0.25 + s**2)  # noqa: E731
    grids = [append_zero(karras(n - 1, 20.0, 1.0 / n, rho=3.0)) for n in (40, 80)]
    exact = START / 4 * 0.5 / math.sqrt(400.25)
    coarse, fine = ((Angular(3).sample(gaussian, START / 4, g) - exact).abs().max().item() for g in grids)
    assert fine < coarse / 6
