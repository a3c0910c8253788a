"""Orders of convergence with exact start values, as the experiment measures them."""

import pytest
import torch

from plugins.generative.mixtures import toy_mixture
from plugins.generative.solvers import ORDERS, PLMS, PROVEN, OrderCase, RhoAB
from plugins.generative.studies.convergence_orders import Convergence, ExactTrajectories, measure_all, study_grid


@pytest.fixture(scope="module")
def measured():
    with torch.no_grad():
        return measure_all(list(PROVEN), steps=(40, 80, 160, 320), batch=64)


@pytest.mark.parametrize("name", PROVEN)
def test_order(name, measured):
    result = measured[name]
    assert result.order == pytest.approx(result.expected, abs=0.2), result.errors
    assert all(a > b for a, b in zip(result.errors, result.errors[1:], strict=False))


def test_claims_are_the_solvers_own():
    for name, (solver, order, _, history) in PROVEN.items():
        assert history >= solver.history_length
        # Constant-step weights keep their nominal order on equal steps only.
        assert order == (2 if name in ("plms4_karras", "ghvb4_table_karras") else solver.order), name


def test_ramp_start_leaves_second_order():
    """The reason why exact start values are needed to see an order above 2."""
    with torch.no_grad():
        ORDERS["temporary"] = OrderCase(lambda problem: RhoAB(3), 2, "karras", 0)
        try:
            result = measure_all(["temporary"], steps=(160, 320, 640), batch=4)["temporary"]
        finally:
            del ORDERS["temporary"]
    assert result.order < 2.6


def test_exact_trajectories_nest():
    mixture = toy_mixture()
    exact = ExactTrajectories(mixture, "karras", (8, 16), history=3, batch=2, seed=0)
    for n in (8, 16):
        levels, states, target = exact.on(n, 3)
        assert torch.allclose(levels, study_grid("karras", n, 3), rtol=1e-12)
        assert states.shape == (n + 4, 2, 2) and torch.equal(states[-1], target)
    with pytest.raises(ValueError, match="12 does not"):
        ExactTrajectories(mixture, "karras", (12, 16), 0, 1, 0)


def test_slope_and_names():
    assert Convergence((10, 20, 40), (1.0, 0.125, 0.015625), 3).order == pytest.approx(3.0)
    with pytest.raises(ValueError, match="no order case is called 'plms9'"):
        measure_all(["plms9"])
    with pytest.raises(ValueError, match="grid 'cubic'"):
        study_grid("cubic", 4, 0)
    assert PLMS(4).order == 4
