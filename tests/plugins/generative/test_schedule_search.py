"""The schedule search: valid children, a kept budget, determinism, and gains on held-out noise."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from plugins.generative.grids import log_snr
from plugins.generative.mixtures import reference_trajectory, toy_mixture
from plugins.generative.solvers.ems import EMS
from plugins.generative.solvers.registry import SOLVERS, Problem
from plugins.generative.solvers.schedule_predictor import SchedulePredictor, encode_schedule
from plugins.generative.solvers.schedule_search import (
    SearchSpace,
    TrajectoryObjective,
    crossover,
    find_schedule,
    fixed_schedules,
    hard_subset,
    mutate,
    search_schedule,
)
from plugins.generative.solvers.unified import SolverSchedule, StepGenes, uniform_schedule

MIXTURE = toy_mixture()
MAX, MIN = 80.0, 0.01


@pytest.fixture(scope="module")
def halves():
    """Objectives on held-in and on held-out noise."""
    generator = torch.Generator().manual_seed(0)
    y = MAX * torch.randn(256, 2, dtype=torch.float64, generator=generator)
    exact = reference_trajectory(MIXTURE, y, log_snr(1, MAX, MIN), steps=300)[-1]
    return TrajectoryObjective(MIXTURE, y[:128], exact[:128]), TrajectoryObjective(MIXTURE, y[128:], exact[128:])


def test_fixed_schedules_cover_the_field_within_the_budget():
    found = fixed_schedules(5, MAX, MIN, ("noise", "data"))
    assert len(found) == len(set(found.values())) >= 8 * 2 * 14
    for schedule in found.values():
        assert schedule.nfe == 5 and schedule.sigmas[0] == MAX and schedule.sigmas[-1] == MIN
    assert found["log_snr/data/2/bh2"] == uniform_schedule(log_snr(5, MAX, MIN), StepGenes(2, "data", relaxation="bh2"))


@pytest.mark.parametrize("nfe", [1, 2, 6])
def test_children_are_valid_within_budget_and_varied(nfe):
    space = SearchSpace(nfe, first_evaluations=("model", "zero"))
    generator = np.random.default_rng(0)
    pool = list(fixed_schedules(nfe, MAX, MIN).values())
    seen = set()
    for _ in range(400):
        first, second = (pool[generator.integers(len(pool))] for _ in range(2))
        child = mutate(crossover(first, second, space, generator), space, generator)
        assert child.nfe <= nfe and child.sigmas[0] == MAX and child.sigmas[-1] == MIN
        pool.append(child)
        seen.add(child)
    assert len(seen) > (20 if nfe == 1 else 200)
    if nfe == 6:
        genes = [step for schedule in seen for step in schedule.steps]
        for name, kinds in (("order", 4), ("prediction", 2), ("relaxation", 6), ("corrector", 3), ("start", 3)):
            assert len({getattr(step, name) for step in genes}) >= kinds, name
        assert {step.difference for step in genes} >= {None, 1, 2}
        assert len({len(schedule.steps) for schedule in seen}) >= 3
        assert {schedule.first_evaluation for schedule in seen} == {"model", "zero"}


def test_the_space_is_respected():
    space = SearchSpace(5, ("data",), 2, ("none",), ("none", "pseudo"), singlestep=False)
    generator = np.random.default_rng(1)
    schedule = fixed_schedules(5, MAX, MIN, ("data",))["log_snr/data/1"]
    for _ in range(200):
        schedule = mutate(schedule, space, generator)
        assert {step.prediction for step in schedule.steps} == {"data"}
        assert all(step.order <= 2 and step.relaxation == "none" and step.start == 1 for step in schedule.steps)
        assert all(step.corrector != "implicit" for step in schedule.steps)


def test_crossover_takes_every_gene_from_a_parent():
    a = uniform_schedule(log_snr(5, MAX, MIN), StepGenes(2, "data", relaxation="bh2"))
    b = uniform_schedule(log_snr(5, MAX, 0.02), StepGenes(2, "noise", corrector="pseudo"), lower_order_final=True)
    b = SolverSchedule((*b.sigmas[:-1], MIN), (*b.steps[:-1], StepGenes(1, "noise")))
    generator = np.random.default_rng(2)
    children = [crossover(a, b, SearchSpace(5), generator) for _ in range(60)]
    assert {child.sigmas for child in children} == {a.sigmas, b.sigmas}
    for child in children:
        for own, one, other in zip(child.steps, a.steps, b.steps, strict=True):
            for name in ("order", "prediction", "corrector"):
                assert getattr(own, name) in (getattr(one, name), getattr(other, name))
    assert len(set(children)) > 10
    shorter = uniform_schedule(log_snr(3, MAX, MIN), StepGenes())
    assert crossover(a, shorter, SearchSpace(5), generator) == a


def test_the_objective_is_the_rms_distance_and_unstable_schedules_are_merely_bad(halves):
    held_in, _ = halves
    schedule = fixed_schedules(5, MAX, MIN)["log_snr/data/2"]
    sample = schedule.sample(MIXTURE, held_in.y)
    assert held_in(schedule) == pytest.approx((sample - held_in.exact).square().mean().sqrt().item(), rel=1e-12)

    def exploding(y, sigma):
        return y * 1e200 / sigma

    assert TrajectoryObjective(exploding, held_in.y, held_in.exact)(schedule) == math.inf


def test_search_improves_on_every_fixed_schedule_on_noise_it_has_not_seen(halves):
    held_in, held_out = halves
    fixed = fixed_schedules(5, MAX, MIN)
    result = search_schedule(held_in, fixed, SearchSpace(5, candidates=4), 600, np.random.default_rng(0))
    assert result.schedule.nfe <= 5 and len(result.history) == 600 and result.initial == len(fixed)
    assert list(result.history) == sorted(result.history, reverse=True)
    assert held_in(result.schedule) == result.score == result.history[-1]
    best_fixed = min(held_out(schedule) for schedule in fixed.values())
    assert held_out(result.schedule) < 0.85 * best_fixed


@pytest.mark.parametrize("candidates", [1, 4])
def test_search_repeats_under_a_seed(halves, candidates):
    held_in, _ = halves
    start = [fixed_schedules(4, MAX, MIN)["log_snr/data/2"]]
    space = SearchSpace(4, candidates=candidates)
    runs = [search_schedule(held_in, start, space, 40, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] and runs[0].history != runs[2].history
    with torch.inference_mode():  # where a test stage runs
        assert search_schedule(held_in, start, space, 40, np.random.default_rng(3)) == runs[0]


def test_a_hard_subset_stands_for_all_samples():
    generator = torch.Generator().manual_seed(0)
    squares = torch.rand(3, 400, generator=generator, dtype=torch.float64) * 1e-3
    squares[:, ::50] += torch.tensor([1.0, 2.0, 4.0])[:, None]  # eight that stray
    index, weights = hard_subset(squares, 20, 40, generator)
    assert set(range(0, 400, 50)) <= set(index[:20].tolist()) and len(set(index.tolist())) == 60
    assert weights.sum() == pytest.approx(1.0)
    for row in squares:
        assert (weights * row[index]).sum() == pytest.approx(row.mean().item(), rel=0.01)
    with pytest.raises(ValueError, match="at most 400"):
        hard_subset(squares, 300, 200)


def test_the_whole_procedure_chooses_on_all_held_in_samples(halves):
    held_in, held_out = halves
    space = SearchSpace(4, candidates=2)
    found = find_schedule(held_in, MAX, MIN, space, 60, np.random.default_rng(0), finalists=6, subset=32)
    assert len(found.finalists) == 6 and found.search.initial == 6 and len(found.search.history) == 60
    assert found.score == pytest.approx(held_in(found.schedule), rel=1e-12)
    for schedule, score in found.finalists.values():
        assert score == pytest.approx(held_in(schedule), rel=1e-9) and score >= found.score
    assert all(held_in(schedule) >= found.score for schedule in found.search.leaders)
    assert held_out(found.schedule) < max(held_out(schedule) for schedule, _ in found.finalists.values())


def test_the_predictor_ranks_schedules_it_has_not_seen(halves):
    held_in, _ = halves
    generator = np.random.default_rng(0)
    pool = list(fixed_schedules(5, MAX, MIN).values())
    while len(pool) < 500:
        pool.append(mutate(pool[generator.integers(len(pool))], SearchSpace(5), generator))
    pool = [pool[i] for i in generator.permutation(len(pool))]
    scores = [held_in(schedule) for schedule in pool]
    predictor = SchedulePredictor(generator=torch.Generator().manual_seed(0))
    untrained = kendalltau(predictor(pool[400:]).detach(), scores[400:]).statistic
    predictor.fit(pool[:400], scores[:400], steps=300)
    assert abs(untrained) < 0.35 and kendalltau(predictor(pool[400:]).detach(), scores[400:]).statistic > 0.5


def test_predictions_do_not_depend_on_what_is_ranked_beside(halves):
    predictor = SchedulePredictor(generator=torch.Generator().manual_seed(0))
    short, long = fixed_schedules(3, MAX, MIN)["log_snr/data/2"], fixed_schedules(6, MAX, MIN)["log_snr/data/2"]
    together = predictor([short, long])
    assert torch.allclose(together, torch.cat([predictor([short]), predictor([long])]), atol=1e-6)
    assert encode_schedule(short).shape[1] == encode_schedule(long).shape[1]
    changed = SolverSchedule(short.sigmas, (*short.steps[:-1], StepGenes(2, "noise")))
    assert not torch.allclose(predictor([changed]), predictor([short]))


def test_bad_searches_are_refused(halves):
    held_in, _ = halves
    fixed = fixed_schedules(4, MAX, MIN)
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="evaluations"):
        search_schedule(held_in, fixed, SearchSpace(4), 3, generator)
    with pytest.raises(ValueError, match="budget of 3"):
        search_schedule(held_in, fixed, SearchSpace(3), 500, generator)
    with pytest.raises(ValueError, match="share their first"):
        other = fixed_schedules(4, MAX, 0.5)["log_snr/data/1"]
        search_schedule(held_in, [other, next(iter(fixed.values()))], SearchSpace(4), 500, generator)
    with pytest.raises(ValueError, match="probability"):
        SearchSpace(4, crossover=1.5)
    with pytest.raises(ValueError, match="one choice"):
        SearchSpace(4, predictions=())
    with pytest.raises(ValueError, match="one shape"):
        TrajectoryObjective(MIXTURE, held_in.y, held_in.exact[:3])


def test_the_benchmark_gets_one_schedule_for_each_small_budget_from_the_cache(tmp_path):
    problem = Problem(MIXTURE, MAX, MIN, data=MIXTURE.means, nfes=(3, 4, 50), cache=tmp_path, fast=True)
    prepared = SOLVERS["searched_schedule"](problem)
    assert set(prepared) == {3, 4}
    for nfe, (solver, sigmas) in prepared.items():
        assert solver.nfe(sigmas) <= nfe
    files = sorted(tmp_path.glob("schedule-nfe*.yaml"))
    assert len(files) == 2
    written = [file.stat().st_mtime_ns for file in files]
    again = SOLVERS["searched_schedule"](problem)
    assert [file.stat().st_mtime_ns for file in files] == written
    y = MAX * torch.randn(4, 2, dtype=torch.float64)
    for nfe in prepared:
        (one, levels), (other, same) = prepared[nfe], again[nfe]
        assert torch.equal(levels, same) and torch.equal(one.sample(MIXTURE, y, levels), other.sample(MIXTURE, y, same))


def test_statistics_enter_the_search(halves):
    held_in, _ = halves
    ems = EMS.constant(torch.linspace(-5, 5, 40, dtype=torch.float64), 1.0, 0.0)
    objective = TrajectoryObjective(MIXTURE, held_in.y, held_in.exact, ems)
    found = fixed_schedules(4, MAX, MIN, ("data", "v3"), 2)
    assert objective(found["log_snr/v3/2"]) == pytest.approx(objective(found["log_snr/data/2"]), rel=1e-9)
