"""Optimised perturbations: the table of targets, the bounds, the cache."""

import warnings

import pytest
import torch

from plugins.state_space.diagnostics import apriori_bound, deviation_sup, h2_norm, hippo_resolvent, resolvent
from plugins.state_space.hippo import hippo
from plugins.state_space.ptd import (
    IllConditionedWarning,
    PTDResult,
    PTDSolver,
    cached_solve,
    diagonalize,
    evaluate_perturbation,
)
from plugins.state_space.ptd.objective import objective
from plugins.state_space.studies.quality import bound_samples, linearity_slope, random_perturbation, s4d_deviation

# n, γ, largest κ, largest deviation
TARGETS = [
    (8, 10, 12, 0.10),
    (16, 20, 25, 0.12),
    (16, 150, 65, 0.02),
    (32, 30, 45, 0.12),
    (64, 300, 500, 0.05),
    (128, 200, 600, 0.06),
    (256, 200, 4000, 0.08),
]


@pytest.mark.parametrize("n,gamma,kappa,deviation", TARGETS)
def test_reaches_the_targets(n: int, gamma: float, kappa: float, deviation: float) -> None:
    result = PTDSolver(gamma=gamma).solve("legs", n)
    assert result.kappa <= kappa
    assert result.deviation <= deviation
    assert result.abscissa < -0.1
    a, _ = hippo("legs", n)
    rebuilt = (result.V * result.lam) @ torch.linalg.inv(result.V)
    error = torch.linalg.matrix_norm(rebuilt - a - result.E) / torch.linalg.matrix_norm(a)
    assert error < 1e-11 * result.kappa
    assert torch.allclose(torch.linalg.vector_norm(result.V, dim=0), torch.ones(n, dtype=torch.float64))
    # a real E keeps conjugate pairs, adjacent and exact
    pairs = result.lam[result.lam.imag != 0]
    assert torch.equal(pairs[0::2], pairs[1::2].conj())


@pytest.mark.parametrize("n,expected", [(8, 4.78), (16, 10.0), (32, 20.3), (64, 40.7)])
def test_s4d_deviation_grows_linearly(n: int, expected: float) -> None:
    assert s4d_deviation(n) == pytest.approx(expected, rel=0.01)


def test_optimised_beats_random_of_equal_size() -> None:
    result = PTDSolver(gamma=30).solve("legs", 32)
    chance = evaluate_perturbation("legs", random_perturbation(32, result.eps, 0))
    assert result.deviation < chance.deviation / 5
    assert result.kappa < chance.kappa


@pytest.mark.parametrize("measure", ["legt", "fout"])
@pytest.mark.parametrize("start", ["corner", "random"])
def test_other_measures_are_stable(measure: str, start: str) -> None:
    result = PTDSolver(gamma=100, start=start).solve(measure, 16)
    assert result.abscissa <= -0.1
    assert result.kappa < 100
    assert result.deviation < 1


def test_stability_is_enforced_where_size_is_cheap() -> None:
    result = PTDSolver(gamma=1e-3, start="random", start_size=50.0, steps=3, abscissa_limit=-0.3).solve("legs", 8)
    assert result.abscissa <= -0.3


def test_the_solver_is_deterministic() -> None:
    for solver in (PTDSolver(gamma=30), PTDSolver(gamma=30, start="random", seed=3)):
        assert torch.equal(solver.solve("legs", 16).E, solver.solve("legs", 16).E)
    other = PTDSolver(gamma=30, start="random", seed=4, steps=2).solve("legs", 16)
    assert not torch.equal(other.E, PTDSolver(gamma=30, start="random", seed=3, steps=2).solve("legs", 16).E)


def test_gradient_of_the_objective() -> None:
    torch.manual_seed(0)
    a, _ = hippo("legs", 5)
    e = torch.randn(5, 5, dtype=torch.float64)
    direction = torch.randn(5, 5, dtype=torch.float64)
    for limit in (-0.1, -3.0):  # with and without an active stability penalty
        _, gradient = objective(a, e, 7.0, limit, 11.0)
        step = 1e-6
        up, down = (objective(a, e + s * step * direction, 7.0, limit, 11.0)[0] for s in (1, -1))
        assert (up - down) / (2 * step) == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_objective_bounds_the_condition_number() -> None:
    a, _ = hippo("legs", 8)
    e = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    value, _ = objective(a, e, 1e-12, 10.0, 0.0)
    _, _, kappa = diagonalize(a + e)
    assert kappa <= value <= 8 * kappa


def test_a_defective_matrix_is_infinite() -> None:
    jordan = torch.tensor([[-1.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    value, gradient = objective(jordan, torch.zeros(2, 2, dtype=torch.float64), 1.0, -0.1, 1.0)
    assert value == float("inf")
    assert torch.equal(gradient, torch.zeros_like(jordan))


def test_deviation_is_linear_in_the_perturbation() -> None:
    assert linearity_slope(16, 0) == pytest.approx(1.0, abs=0.1)


def test_the_apriori_bound_holds_for_200_random_perturbations() -> None:
    sizes, deviations = bound_samples(200, 0)
    assert len(sizes) == 200
    assert all(d <= apriori_bound(size) for size, d in zip(sizes, deviations, strict=True))
    assert max(d / apriori_bound(size) for size, d in zip(sizes, deviations, strict=True)) > 0.01
    assert apriori_bound(0.5) == float("inf")


def test_warns_where_float64_cannot_be_trusted() -> None:
    with pytest.warns(IllConditionedWarning, match="digits"):
        diagonalize(hippo("legs", 24)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagonalize(hippo("legs", 8)[0])


def test_cache_names_every_setting(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached_solve("legs", 8, PTDSolver(gamma=10), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(PTDSolver, "solve", lambda *_: pytest.fail("solved again"))
    again = cached_solve("legs", 8, PTDSolver(gamma=10, progress=True), tmp_path)
    assert torch.equal(first.V, again.V) and first.kappa == again.kappa
    monkeypatch.undo()
    for solver in (PTDSolver(gamma=11), PTDSolver(gamma=10, steps=3), PTDSolver(gamma=10, start="random", seed=1)):
        cached_solve("legs", 8, solver, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_damaged_cache_is_replaced(tmp_path) -> None:
    cached_solve("legs", 4, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"nonsense")
    result = cached_solve("legs", 4, folder=tmp_path)
    assert torch.equal(PTDResult.load(file).E, result.E)


@pytest.mark.parametrize("measure", ["legs", "legt"])
def test_resolvents_solve_the_shifted_system(measure: str) -> None:
    a, b = hippo(measure, 12)
    omega = torch.tensor([0.3, 40.0], dtype=torch.float64)
    for x in (resolvent(a, b, omega), hippo_resolvent(measure, 12, omega)):
        for w, row in zip(omega, x, strict=True):
            residual = 1j * w * row - a.to(row.dtype) @ row - b
            assert residual.abs().max() < 1e-10


def test_fourier_resolvent_is_finite_at_zero() -> None:
    x = hippo_resolvent("fout", 8, torch.zeros(1, dtype=torch.float64))
    assert torch.isfinite(x.abs()).all() and x[0, 1] == 0


def test_h2_norm_against_quadrature() -> None:
    lam = torch.tensor([-0.5 + 3j, -0.5 - 3j, -2.0], dtype=torch.complex128)
    b, c = torch.ones_like(lam), torch.tensor([1 + 1j, 1 - 1j, 0.5], dtype=torch.complex128)
    t = torch.linspace(0, 40, 400_001, dtype=torch.float64)
    response = (c * b * torch.exp(lam * t[:, None])).sum(1)
    assert h2_norm(lam, b, c).item() ** 2 == pytest.approx(torch.trapezoid(response.abs() ** 2, t).item(), rel=1e-6)
    with pytest.raises(ValueError, match="Re"):
        h2_norm(lam * 0, b, c)


def test_deviation_of_the_exact_system_is_zero() -> None:
    a, b = hippo("legs", 6)
    lam, v, _ = diagonalize(a)
    assert deviation_sup("legs", lam, torch.linalg.solve(v, b + 0j), v) < 1e-10


def test_bad_settings() -> None:
    for bad in ({"gamma": 0}, {"steps": 0}, {"start": "middle"}, {"start_size": -1.0}, {"abscissa_limit": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            PTDSolver(**bad)
