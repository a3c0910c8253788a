"""The digits benchmark: the numbers it must reproduce, and its peers beside ours."""

import math

import pytest
import torch

from plugins.generative.grids import karras
from plugins.generative.mixtures import toy_mixture
from plugins.generative.solvers import READY_MADE, SOLVERS, Heun, Problem
from plugins.generative.studies.solver_benchmark import (
    GRIDS,
    SIGMA_MAX,
    SIGMA_MIN,
    DigitsProblem,
    SolverBenchmark,
    overhead_ratio,
    run_ours,
)
from plugins.generative.studies.solver_peers import PEERS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore::FutureWarning:diffusers")

TOY = toy_mixture()
STATE = 80 * torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def diffusers():
    return pytest.importorskip("diffusers", reason="comparing with peers needs the package diffusers (extra 'peers')")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    with torch.no_grad():
        return DigitsProblem.build(0.3, 64, 0, 400, tmp_path_factory.mktemp("reference"))


# (RMS, median, correct of 64) on the Karras grid, 80 to 0.002; the RMS of the exact problem to four digits.
PUBLISHED = {
    ("euler", 10): (0.1578, 0.118, 45),
    ("euler", 20): (0.09997, 0.0571, 53),
    ("heun", 20): (0.09429, 0.0717, 58),
    ("rho_ab4", 10): (0.1092, 0.0656, 54),
    ("dpm_solver_pp_2m", 5): (0.2535, 0.225, 43),
    ("dpm_solver_pp_2m_final", 10): (0.1118, 0.0703, 53),
    ("dpm_solver_pp_3m_final", 5): (0.1946, 0.171, 43),
    ("unipc2", 20): (0.02056, 0.0121, 63),
    ("unipc3_final", 20): (0.01871, 0.0121, 63),
    ("log_rho3", 20): (0.02274, 0.0059, 62),
    ("plms4", 10): (0.0750, 0.0256, 56),
    ("ghvb4_table", 20): (0.01209, 0.0080, 63),
    ("heavy_ball_plms4", 5): (0.1861, 0.132, 43),
}


@pytest.mark.parametrize("name, nfe", PUBLISHED)
def test_known_figures(digits, name, nfe):
    solver = READY_MADE[name]
    with torch.no_grad():
        y = solver.sample(digits.mixture, digits.start, GRIDS["karras"](nfe // solver.evaluations))
    rms, median, correct = PUBLISHED[name, nfe]
    score = digits.score(y)
    assert score.rms == pytest.approx(rms, rel=2e-3)
    assert score.median == pytest.approx(median, rel=2e-2)
    assert score.correct == correct


def test_best_of_ours_beats_the_best_peer(digits, diffusers):
    """A slice of the experiment: two of our solvers against the peers' strongest, each on any of three grids."""
    with torch.no_grad():
        for nfe, wanted in ((5, 0.8), (10, 0.8), (20, 0.8), (50, 1.0)):
            grids = [GRIDS[name](nfe) for name in ("vp_quadratic", "cosine_uniform", "angular_rho1.25")]
            ours = min(
                digits.score(READY_MADE[n].sample(digits.mixture, digits.start, g)).rms
                for n in ("angular2", "angular3", "angular4") for g in grids if len(g) > int(n[-1])
            )
            peers = min(
                digits.score(PEERS[n].sample(digits.mixture, digits.start, g)).rms
                for n in ("ipndm4", "unipc3", "unipc2") for g in grids
            )
            assert ours <= wanted * peers, (nfe, ours, peers)


EXACT = ["heun", "lms4", "unipc2", "unipc3", "unipc3_bh1", "unipc3_plain", "deis2", "deis3", "deis3_plain"]


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.ours])
def test_ours_and_diffusers_agree(name, diffusers):
    """To rounding where diffusers computes in float64, to single precision where it casts down."""
    peer = PEERS[name]
    tolerance = 1e-12 if name in EXACT else 3e-6
    for steps in (6, 14):  # from 15 on, diffusers' "final" options switch themselves off
        grid = karras(steps, SIGMA_MAX, SIGMA_MIN)
        ours = SOLVERS[peer.ours](None).sample(TOY, STATE, grid)
        assert torch.allclose(peer.sample(TOY, STATE, grid).double(), ours, atol=tolerance), steps


def test_every_grid_spans_the_range():
    for make in GRIDS.values():
        grid = make(7)
        assert len(grid) == 8 and grid[0] == SIGMA_MAX and grid[-1] == SIGMA_MIN and bool((grid.diff() < 0).all())


def test_budgets_are_kept_and_short_runs_left_out(digits):
    spent = []

    class Counting(DigitsProblem):
        pass

    problem = Counting(lambda y, s: spent.append(1) or digits.mixture(y, s), digits.start[:2], digits.target[:2])
    object.__setattr__(problem, "score", lambda y: y)
    context = Problem(digits.mixture, SIGMA_MAX, SIGMA_MIN)
    rows = run_ours(["heun", "rho_rk4", "plms4"], (3, 6), ["karras"], problem, context)
    assert set(rows["heun"].scores) == {3, 6} and set(rows["plms4"].scores) == {6}
    assert set(rows["rho_rk4"].scores) == {6}
    assert len(spent) == (2 + 6) + 4 + 6


def test_a_configuration_with_its_own_grid(digits):
    SOLVERS["temporary"] = lambda problem: {4: (Heun(), karras(2, SIGMA_MAX, SIGMA_MIN))}
    try:
        rows = run_ours(["temporary"], (4, 8), ["karras"], digits, Problem(digits.mixture, SIGMA_MAX, SIGMA_MIN))
    finally:
        del SOLVERS["temporary"]
    assert set(rows["temporary"].scores) == {4} and rows["temporary"].best(4)[0] == "own"


def test_overhead_is_measured(diffusers):
    ratio = overhead_ratio(READY_MADE["unipc3"], PEERS["unipc3"], steps=5, shape=(2, 3), repeats=1)
    assert math.isfinite(ratio) and ratio > 0


def test_a_diverged_run_scores_infinity(digits):
    score = digits.score(torch.full_like(digits.target, math.nan))
    assert score.rms == math.inf and score.correct == 0


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no grid is called 'cubic'"):
        SolverBenchmark(grids=["cubic"])
    with pytest.raises(ValueError, match="no solver is called 'euller'"):
        SolverBenchmark(solvers=["euller"])
