"""The unified framework: known samplers as special genes, evaluations as counted, schedules as plain text."""

import json
import math
from dataclasses import replace

import pytest
import torch
import yaml

from plugins.generative.grids import append_zero, karras, log_snr
from plugins.generative.mixtures import toy_mixture
from plugins.generative.solvers import DPMSolverPP2M, Euler, UniPC, log_rho
from plugins.generative.solvers.dpm_solver_v3 import DPMSolverV3
from plugins.generative.solvers.ems import EMS, compute_ems
from plugins.generative.solvers.exponential import Exponential
from plugins.generative.solvers.unified import (
    SolverSchedule,
    StepGenes,
    Unified,
    relaxation_factor,
    uniform_schedule,
)

MIXTURE = toy_mixture()
GRIDS = [karras(9), log_snr(9)]


def noise(count=16):
    return 80 * torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def ems():
    lambdas = torch.linspace(-math.log(80), -math.log(0.002), 61, dtype=torch.float64)
    return compute_ems(MIXTURE, MIXTURE.sample, lambdas, 128, torch.Generator().manual_seed(0))


def run(genes, grid, statistics=None, **options):
    return uniform_schedule(grid, genes, **options).sample(MIXTURE, noise(), statistics)


def differ(a, b):
    return (a - b).abs().max().item()


# --- identities


@pytest.mark.parametrize("grid", [*GRIDS, append_zero(karras(8))])
@pytest.mark.parametrize("prediction", ["noise", "data"])
def test_order_one_is_ddim(grid, prediction):
    assert differ(run(StepGenes(1, prediction), grid), Euler().sample(MIXTURE, noise(), grid)) < 1e-12


@pytest.mark.parametrize("grid", GRIDS)
def test_data_order_two_relaxed_by_bh2_is_dpm_solver_pp_2m(grid):
    ours = run(StepGenes(2, "data", relaxation="bh2"), grid)
    assert differ(ours, DPMSolverPP2M().sample(MIXTURE, noise(), grid)) < 1e-12
    assert differ(run(StepGenes(2, "data"), grid), DPMSolverPP2M(kind="heun").sample(MIXTURE, noise(), grid)) < 1e-12


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("order", [2, 3, 4])
def test_noise_with_full_differences_is_log_rho_deis_and_data_the_lagrange_integrator(grid, order):
    assert differ(run(StepGenes(order, "noise"), grid), log_rho(order).sample(MIXTURE, noise(), grid)) < 1e-11
    assert differ(run(StepGenes(order, "data"), grid), Exponential(order).sample(MIXTURE, noise(), grid)) < 1e-11


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("basis", ["bh1", "bh2"])
def test_unipc_is_a_pseudo_corrector_with_its_relaxations(grid, p, basis):
    steps = []
    for i in range(len(grid) - 1):
        order = min(p, i + 1)
        corrector = "pseudo" if i < len(grid) - 2 else "none"
        relaxed = order == 2 or (order == 1 and corrector == "pseudo")
        steps.append(StepGenes(order, "data", relaxation=basis if relaxed else "none", corrector=corrector))
    ours = SolverSchedule(grid, tuple(steps)).sample(MIXTURE, noise())
    assert differ(ours, UniPC(p, basis).sample(MIXTURE, noise(), grid)) < 1e-11


@pytest.mark.parametrize("order", [1, 2, 3])
def test_v3_prediction_is_dpm_solver_v3(ems, order):
    ours = run(StepGenes(order, "v3"), karras(8), ems)
    assert differ(ours, DPMSolverV3(ems, order, corrector=False).sample(MIXTURE, noise(), karras(8))) < 1e-12


def test_v3_with_trivial_statistics_is_data_prediction():
    trivial = EMS.constant(torch.linspace(-5, 7, 50, dtype=torch.float64), 1.0, 0.0)
    for corrector in ("none", "pseudo", "implicit"):
        genes = StepGenes(3, "v3", corrector=corrector)
        assert differ(run(genes, karras(8), trivial), run(replace(genes, prediction="data"), karras(8))) < 1e-10


def test_singlestep_order_two_is_the_published_midpoint_method():
    """DPM-Solver-2 (Lu et al. 2022, algorithm 1) on log-SNR pairs, with full first derivative: from s over s' to t."""
    grid = log_snr(6, 5.0, 0.5)
    genes = StepGenes(2, "noise", relaxation="bh2")
    y = 5 * torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours = uniform_schedule(grid, genes, singlestep=True).sample(MIXTURE, y)
    for s, middle, t in zip(grid[:-1:2], grid[1::2], grid[2::2], strict=True):
        h = torch.log(s / t)
        eps = (y - MIXTURE(y, s)) / s
        u = y - middle * torch.expm1(h / 2) * eps
        eps_middle = (u - MIXTURE(u, middle)) / middle
        y = y - t * torch.expm1(h) * eps - t * torch.expm1(h) * (eps_middle - eps)
    assert differ(ours, y) < 1e-12


def test_linear_relaxation_and_difference_change_the_step_as_stated():
    grid = log_snr(4, 5.0, 0.5)
    plain, relaxed = (
        SolverSchedule(grid[:3], (StepGenes(), StepGenes(2, "data", relaxation=r, relaxation_coefficient=c)))
        for r, c in (("none", 0.0), ("linear", 0.3))
    )
    y = noise(4) / 16
    first = SolverSchedule(grid[:3], (StepGenes(), StepGenes())).sample(MIXTURE, y)
    h = math.log(grid[1] / grid[2])
    change, scaled = plain.sample(MIXTURE, y) - first, relaxed.sample(MIXTURE, y) - first
    assert torch.allclose(scaled, (1 + 0.3 * h) * change, atol=1e-13)
    # order 2 with the derivative from two nodes is not order 2 from one, nor order 3
    steps = (StepGenes(), StepGenes(2, "data"))
    samples = [
        SolverSchedule(grid[:4], (*steps, genes)).sample(MIXTURE, y)
        for genes in (StepGenes(2, "data"), StepGenes(2, "data", difference=2), StepGenes(3, "data"))
    ]
    assert min(differ(samples[i], samples[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-5


@pytest.mark.parametrize("relaxation", ["bh1", "bh2", "half_exp", "minus_half_exp"])
@pytest.mark.parametrize("prediction", ["noise", "data"])
def test_relaxations_tend_to_one(relaxation, prediction):
    genes = StepGenes(2, prediction, relaxation=relaxation)
    h = 0.8
    z = -h if prediction == "data" else h
    expected = {
        "bh1": 0.5 * h * h / (math.exp(z) - 1 - z),
        "bh2": 0.5 * z * (math.exp(z) - 1) / (math.exp(z) - 1 - z),
        "half_exp": 1 + 0.5 * (math.exp(z) - 1),
        "minus_half_exp": 1 - 0.5 * (math.exp(z) - 1),
    }[relaxation]
    assert relaxation_factor(genes, h) == pytest.approx(expected, rel=1e-12)
    assert relaxation_factor(genes, 1e-6) == pytest.approx(1.0, abs=2e-6)


# --- correctors, analytic first step, evaluations


@pytest.mark.parametrize("corrector", ["none", "pseudo", "implicit"])
@pytest.mark.parametrize("first", ["model", "zero", "average"])
def test_evaluations_are_counted_as_spent(corrector, first):
    calls = []

    def counted(y, sigma):
        calls.append(float(sigma))
        return MIXTURE(y, sigma)

    base = uniform_schedule(karras(7), StepGenes(2, "data", corrector=corrector))
    schedule = replace(base, first_evaluation=first)
    schedule.sample(counted, noise(2), average=torch.zeros(2))
    expected = {"none": 7, "pseudo": 8, "implicit": 14}[corrector] - (first != "model")
    assert len(calls) == schedule.nfe == expected


def test_the_implicit_corrector_starts_from_the_corrected_state():
    """Two steps by hand: predict, evaluate, correct to second order, evaluate again."""
    a, b, c = grid = log_snr(2, 2.0, 0.5)
    steps = (StepGenes(1, "data", corrector="implicit"), StepGenes(1, "data"))
    ours = SolverSchedule(grid, steps).sample(MIXTURE, noise() / 40)
    y0 = noise() / 40

    def ddim(y, denoised, s, t):
        return denoised + (t / s) * (y - denoised)

    d0 = MIXTURE(y0, a)
    d1 = MIXTURE(ddim(y0, d0, a, b), b)
    h = torch.log(a / b)
    y1 = ddim(y0, d0, a, b) + (torch.exp(-h) - 1 + h) / h * (d1 - d0)
    assert differ(ours, ddim(y1, MIXTURE(y1, b), b, c)) < 1e-12
    pseudo = SolverSchedule(grid, (replace(steps[0], corrector="pseudo"), steps[1])).sample(MIXTURE, y0)
    assert differ(pseudo, ddim(y1, d1, b, c)) < 1e-12


def test_a_corrected_last_step_helps():
    grid = log_snr(6, 2.0, 0.2)
    y = noise() / 40
    plain = uniform_schedule(grid, StepGenes(1, "data"))
    corrected = replace(plain, steps=(*plain.steps[:-1], StepGenes(1, "data", corrector="pseudo")))
    fine = uniform_schedule(log_snr(300, 2.0, 0.2), StepGenes(3, "data")).sample(MIXTURE, y)
    assert (corrected.sample(MIXTURE, y) - fine).norm() < (plain.sample(MIXTURE, y) - fine).norm()
    assert corrected.nfe == plain.nfe + 1


def test_analytic_first_steps_replace_the_denoiser():
    grid, y = karras(5), noise()
    base = uniform_schedule(grid, StepGenes(1, "data"))
    zero = replace(base, first_evaluation="zero").sample(MIXTURE, y)
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    average = replace(base, first_evaluation="average").sample(MIXTURE, y, average=mean)
    rest = replace(base, sigmas=base.sigmas[1:], steps=base.steps[1:])
    assert differ(zero, rest.sample(MIXTURE, y * grid[1] / grid[0])) < 1e-11
    assert differ(average, rest.sample(MIXTURE, mean + (y - mean) * grid[1] / grid[0])) < 1e-11


def test_states_may_be_float32_images(ems):
    def denoiser(y, sigma):
        return torch.tanh(y)

    schedule = uniform_schedule(karras(6), StepGenes(3, "noise", corrector="pseudo"))
    y = 80 * torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sample = schedule.sample(denoiser, y)
    assert sample.dtype == torch.float32
    assert differ(sample, schedule.sample(denoiser, y.double())) < 1e-3


# --- schedules as data


def mixed_schedule():
    steps = (
        StepGenes(1, "noise", corrector="pseudo", relaxation="bh2"),
        StepGenes(2, "data", relaxation="linear", relaxation_coefficient=-0.05),
        StepGenes(3, "v3", difference=1, start=2, corrector="implicit"),
        StepGenes(),
    )
    return SolverSchedule((80.0, 3.3, 0.1 + 0.2, 0.0123, 0.0), steps, "zero")


def test_schedules_survive_yaml_and_json(tmp_path, ems):
    schedule = mixed_schedule()
    assert SolverSchedule.load(schedule.save(tmp_path / "runs" / "schedule.yaml")) == schedule
    (tmp_path / "schedule.json").write_text(json.dumps(schedule.to_dict()))
    assert SolverSchedule.load(tmp_path / "schedule.json") == schedule
    assert yaml.safe_load((tmp_path / "runs" / "schedule.yaml").read_text())["steps"][-1] == {}
    assert schedule.needs_ems and torch.isfinite(schedule.sample(MIXTURE, noise(), ems)).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sigmas": [2.0, 1.0], "steps": [{"ordre": 1}]}, "ordre"),
        ({"sigmas": [2.0, 1.0]}, "sigmas, steps"),
        ({"sigmas": [2.0, 2.0], "steps": [{}]}, "repeats"),
        ({"sigmas": [2.0, 1.0], "steps": [{}, {}]}, "need 1 steps"),
        ({"sigmas": [2.0, 1.0], "steps": [{"order": 2}]}, "step 0 needs 2 nodes and only 1 exist"),
        ({"sigmas": [2.0, 1.0, 0.5], "steps": [{}, {"start": 3}]}, "step 1 needs 3 nodes"),
        ({"sigmas": [2.0, 1.0, 0.5], "steps": [{}, {"order": 2, "difference": 2}]}, "step 1 needs 3 nodes"),
        ({"sigmas": [2.0, 0.0], "steps": [{"prediction": "noise"}]}, "last step to sigma = 0"),
        ({"sigmas": [2.0, 1.0], "steps": [{}], "first_evaluation": "guess"}, "first_evaluation"),
    ],
)
def test_bad_schedules_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        SolverSchedule.from_dict(content)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ({"order": 5}, "order"),
        ({"prediction": "velocity"}, "prediction"),
        ({"relaxation": "bh3"}, "relaxation"),
        ({"corrector": "explicit"}, "corrector"),
        ({"start": 0}, "start"),
        ({"difference": 1}, "difference"),
        ({"relaxation": "bh2"}, "needs a derivative"),
        ({"order": 2, "relaxation_coefficient": 0.1}, "linear"),
    ],
)
def test_bad_genes_are_refused(genes, message):
    with pytest.raises(ValueError, match=message):
        StepGenes(**genes)


def test_missing_statistics_and_averages_are_refused():
    with pytest.raises(ValueError, match="model statistics"):
        Unified((StepGenes(1, "v3"),))
    with pytest.raises(ValueError, match="mean of the data"):
        Unified((StepGenes(),), "average")
    with pytest.raises(ValueError, match="need 3 steps"):
        Unified((StepGenes(),)).sample(MIXTURE, noise(), karras(3))
