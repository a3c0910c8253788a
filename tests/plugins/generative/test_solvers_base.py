"""What every solver owes its caller, whatever its method."""

import math
from pathlib import Path

import hydra
import pytest
import torch
import yaml

import plugins.generative
from plugins.generative.grids import append_zero, karras, log_snr
from plugins.generative.mixtures import toy_mixture
from plugins.generative.solvers import (
    DDIM,
    GHVB,
    PLMS,
    PROVEN,
    READY_MADE,
    Angular,
    DormandPrince,
    DPMSolverPP2M,
    DPMSolverPP2MSDE,
    DPMSolverPP3M,
    Euler,
    Exponential,
    HeavyBall,
    Heun,
    Multistep,
    Past,
    RhoAB,
    RungeKutta,
    TimeAB,
    UniPC,
)

MIXTURE = toy_mixture()
GRID = karras(12, 40.0, 0.01)
START = 40 * torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EVERY = {**READY_MADE, "ddim_eta": DDIM(0.5), "churn": Heun(churn=5.0), "2m_sde": DPMSolverPP2MSDE()}


class Counting:
    def __init__(self, denoiser=MIXTURE):
        self.denoiser, self.levels = denoiser, []

    def __call__(self, y, sigma):
        assert sigma.shape == () and sigma.dtype == torch.float64
        self.levels.append(sigma.item())
        return self.denoiser(y, sigma)


@pytest.mark.parametrize("name", EVERY)
def test_counts_evaluations_keeps_its_input_and_repeats_itself(name):
    solver, before = EVERY[name], START.clone()
    for grid in (GRID, append_zero(GRID)):
        counting = Counting()
        first = solver.sample(counting, START, grid, generator=torch.Generator().manual_seed(1))
        assert len(counting.levels) == solver.nfe(grid)
        assert min(counting.levels) > 0
        assert torch.equal(START, before) and first.shape == START.shape and bool(torch.isfinite(first).all())
        again = solver.sample(MIXTURE, START, grid, generator=torch.Generator().manual_seed(1))
        assert torch.equal(first, again)
    assert solver.nfe(karras(solver.steps_for(60), 40.0, 0.01)) <= 60


@pytest.mark.parametrize("name", EVERY)
def test_float32_follows_float64(name):
    solver = EVERY[name]
    mixture32 = MIXTURE.to(torch.float32)
    seen = []

    def network(y, sigma):
        seen.append(y.dtype)
        return mixture32(y, sigma.to(y.dtype))

    noise = {}

    def source(a, b):
        key = (round(a, 9), round(b, 9))
        return noise.setdefault(key, torch.randn(START.shape, generator=torch.Generator().manual_seed(len(noise))))

    low = solver.sample(network, START.float(), GRID, noise=source)
    high = solver.sample(MIXTURE, START, GRID, noise=lambda a, b: source(a, b).double())
    assert low.dtype == torch.float32 and set(seen) == {torch.float32}
    assert torch.allclose(low.double(), high, atol=2e-3)


@pytest.mark.parametrize("name", READY_MADE)
def test_converges_to_the_exact_flow(name):
    solver = READY_MADE[name]
    y = START
    radius = lambda s: math.sqrt(0.49 + s * s)  # noqa: E731
    gaussian = lambda y, s: y * 0.49 / (0.49 + s**2)  # noqa: E731
    exact = y * radius(0.01) / radius(40.0)
    errors = [(solver.sample(gaussian, y, karras(n, 40.0, 0.01)) - exact).abs().max().item() for n in (60, 240)]
    assert errors[1] < 0.45 * errors[0] or errors[1] < 1e-9


@pytest.mark.parametrize("name", [name for name in READY_MADE if not name.startswith("angular")])
def test_a_constant_denoiser_is_solved_exactly(name):
    """y then moves on a straight line towards D: eps and D are both constant along it."""
    target = torch.ones_like(START)
    y = READY_MADE[name].sample(lambda y, s: target, START, GRID)
    assert torch.allclose(y, target + (START - target) * (0.01 / 40.0), atol=1e-11)


def test_angular_is_exact_on_gaussian_data_of_its_scale():
    gaussian = lambda y, s: y * 0.09 / (0.09 + s**2)  # noqa: E731
    y = Angular(2, data_std=0.3).sample(gaussian, START, karras(2, 40.0, 0.01))
    assert torch.allclose(y, START * math.sqrt(0.0901) / math.sqrt(0.09 + 1600), rtol=1e-12)


LOGARITHMIC = ["dpm_solver_pp_2m", "dpm_solver_pp_3m_exact", "unipc3", "data_lambda4", "log_rho4", "heun", "rho_rk4"]


@pytest.mark.parametrize("name", LOGARITHMIC)
def test_a_last_step_to_zero_lands_on_the_denoiser(name):
    info = []
    y = READY_MADE[name].sample(MIXTURE, START, append_zero(GRID), callback=info.append)
    assert torch.allclose(y, info[-1].denoised, atol=1e-13)
    assert torch.allclose(info[-1].denoised, MIXTURE(info[-2].y, GRID[-1]), atol=1e-3)
    assert info[-1].sigma_next == 0.0 and info[-1].nfe == READY_MADE[name].nfe(append_zero(GRID))


def test_callback_sees_every_step():
    seen = []
    y = DPMSolverPP2M().sample(MIXTURE, START, GRID, callback=seen.append)
    assert [info.step for info in seen] == list(range(12))
    assert [info.sigma for info in seen] == GRID[:-1].tolist()
    assert torch.equal(seen[-1].y, y) and seen[-1].nfe == 12


@pytest.mark.parametrize("name", READY_MADE)
def test_nan_is_reported_with_step_and_level(name):
    solver = READY_MADE[name]

    def broken(y, sigma):
        return torch.full_like(y, math.nan) if sigma <= GRID[5] else MIXTURE(y, sigma)

    with pytest.raises(ValueError, match=r"NaN or infinity at step \d+, sigma = \d"):
        solver.sample(broken, START, GRID)
    with pytest.raises(ValueError, match=f"step 0, sigma = {GRID[0].item():g}"):
        solver.sample(lambda y, s: y / 0, START, GRID)


def test_nan_is_found_once_at_the_end_where_each_look_would_wait_for_the_device():
    from plugins.generative.solvers.base import Evaluator

    evaluate = Evaluator(lambda y, sigma: y)
    for step, finite in enumerate((True, False, False)):
        evaluate._flags.append((torch.tensor(finite), step, torch.tensor(0.5 - 0.1 * step)))
    with pytest.raises(ValueError, match="step 1, sigma = 0.4"):
        evaluate.finish()


@pytest.mark.parametrize("name", EVERY)
def test_no_step_reads_back_from_the_device(name, monkeypatch):
    """Tensors without values (device "meta") raise when the host asks for one; only the final check may."""
    from plugins.generative.solvers.base import Evaluator

    checked = []
    monkeypatch.setattr(Evaluator, "finish", lambda self: checked.append(len(self._flags)))
    y = EVERY[name].sample(lambda y, s: y * s, torch.zeros(4, 3, device="meta"), GRID)
    assert y.device.type == "meta" and y.shape == (4, 3)
    assert checked == [EVERY[name].nfe(GRID)]


def test_large_finite_values_are_not_mistaken_for_infinity():
    huge = torch.full((4, 3), 3e38)
    y = Euler().sample(lambda y, s: huge, torch.zeros(4, 3), [2.0, 1.0])
    assert bool(torch.isfinite(y).all())


def test_wrong_shape_and_grid_are_refused():
    with pytest.raises(ValueError, match="shape"):
        Euler().sample(lambda y, s: y[:, :1], START, GRID)
    with pytest.raises(ValueError, match=r"sigmas\[1\] = 2 exceeds"):
        Euler().sample(MIXTURE, START, [1.0, 2.0])


@pytest.mark.parametrize(
    "solver", [PLMS(4), RhoAB(3), TimeAB(3), Exponential(4), DPMSolverPP3M(), UniPC(3), GHVB(4), Angular(4)]
)
def test_an_order_above_the_number_of_steps_is_an_error(solver):
    with pytest.raises(ValueError, match=r"needs at least \d steps, the grid has 2"):
        solver.sample(MIXTURE, START, karras(2, 40.0, 0.01))


def test_history_is_checked():
    point = Past(50.0, START, START)
    with pytest.raises(ValueError, match="history of 1 earlier points, got 0"):
        DPMSolverPP2M(start="exact").sample(MIXTURE, START, GRID)
    with pytest.raises(ValueError, match='start="exact"'):
        DPMSolverPP2M().sample(MIXTURE, START, GRID, history=[point])
    with pytest.raises(ValueError, match="history level 20 is not above"):
        DPMSolverPP2M(start="exact").sample(MIXTURE, START, GRID, history=[Past(20.0, START, START)])
    with pytest.raises(ValueError, match="history level 50 is not above"):
        RhoAB(2, start="exact").sample(MIXTURE, START, GRID, history=[point, Past(60.0, START, START)])


WITHOUT_MOMENTUM = [n for n, c in PROVEN.items() if c[3] and isinstance(c[0], Multistep) or n.startswith("unip")]


@pytest.mark.parametrize("name", [n for n in WITHOUT_MOMENTUM if not n.startswith(("unipc", "unip1"))])
def test_exact_history_continues_a_longer_run(name):
    """Started in the middle of its own run with that run's points as history, a multistep method goes on alike."""
    solver, _, _, count = PROVEN[name]
    grid = karras(14, 40.0, 0.01)
    points = []
    ramp = type(solver)(**{**{f: getattr(solver, f) for f in solver.__dataclass_fields__}, "start": "ramp"})

    def recording(y, sigma):
        denoised = MIXTURE(y, sigma)
        points.append(Past(sigma.item(), y, denoised))
        return denoised

    whole = ramp.sample(recording, START, grid)
    cut = 6
    rest = solver.sample(MIXTURE, points[cut].y, grid[cut:], history=points[cut - count : cut])
    assert torch.allclose(whole, rest, atol=1e-11)


def test_gradients_flow_through_every_deterministic_solver():
    for name, solver in READY_MADE.items():
        y = START.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(solver.sample(MIXTURE, y, GRID).sum(), y)
        with torch.no_grad():
            shift = torch.zeros_like(START)
            shift[0, 0] = 1e-4
            up, down = (solver.sample(MIXTURE, START + sign * shift, GRID).sum() for sign in (1, -1))
        assert gradient[0, 0].item() == pytest.approx((up - down).item() / 2e-4, rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("shape", [(0, 2), (1, 2)])
def test_empty_and_single_batches(shape):
    for solver in (*READY_MADE.values(), DormandPrince()):
        assert solver.sample(MIXTURE, torch.ones(shape, dtype=torch.float64), GRID).shape == shape


def test_runge_kutta_start_reaches_full_order():
    gaussian = lambda y, s: y * 0.49 / (0.49 + s**2)  # noqa: E731
    exact = START * math.sqrt(0.4901) / math.sqrt(0.49 + 1600)
    for solver, ramp in ((RhoAB(3, start="rk"), RhoAB(3)), (Exponential(3, start="rk"), Exponential(3))):
        grids = [log_snr(n, 40.0, 0.01) for n in (80, 160)]
        counting = Counting(gaussian)
        errors = [(solver.sample(counting, START, g) - exact).abs().max().item() for g in grids]
        assert len(counting.levels) == sum(solver.nfe(g) for g in grids)
        assert math.log2(errors[0] / errors[1]) > solver.order - 0.5
        assert solver.nfe(grids[0]) > ramp.nfe(grids[0])
        assert solver.nfe(log_snr(solver.steps_for(50), 40.0, 0.01)) <= 50


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: RungeKutta("midpoint"), "method"),
        (lambda: PLMS(6), "order = 6"),
        (lambda: RhoAB(-1), "degree"),
        (lambda: Exponential(0), "order = 0"),
        (lambda: Exponential(2, "score"), "prediction"),
        (lambda: DPMSolverPP2M("trapezoid"), "kind"),
        (lambda: DPMSolverPP3M("other"), "variant"),
        (lambda: UniPC(0), "p = 0"),
        (lambda: UniPC(2, "bh3"), "basis"),
        (lambda: GHVB(6), "order = 6"),
        (lambda: GHVB(3, 0.0), "beta"),
        (lambda: GHVB(3, weights="linear"), "weights"),
        (lambda: HeavyBall(beta=1.5), "beta"),
        (lambda: HeavyBall(PLMS(4, start="rk")), "start"),
        (lambda: Angular(0), "points"),
        (lambda: Angular(2, data_std=0.0), "data_std"),
        (lambda: DDIM(-0.1), "eta"),
        (lambda: Heun(churn=-1.0), "churn"),
        (lambda: PLMS(start="cold"), "start"),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


CONF = Path(plugins.generative.__file__).parent / "conf"


@pytest.mark.parametrize("path", sorted(CONF.glob("solver/generative/*.yaml")), ids=lambda p: p.stem)
def test_every_solver_option_builds_and_samples(path):
    solver = hydra.utils.instantiate(yaml.safe_load(path.read_text()))
    y = solver.sample(MIXTURE, START, GRID, generator=torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize("path", sorted(CONF.glob("grid/generative/*.yaml")), ids=lambda p: p.stem)
def test_every_grid_option_builds(path):
    assert hydra.utils.instantiate(yaml.safe_load(path.read_text()))(6).shape == (7,)


@pytest.mark.parametrize("path", sorted(CONF.glob("schedule/generative/*.yaml")), ids=lambda p: p.stem)
def test_every_schedule_option_builds(path):
    schedule = hydra.utils.instantiate(yaml.safe_load(path.read_text()))
    assert schedule.sigma_tilde(schedule.t_max) > schedule.sigma_tilde(schedule.t_min)
