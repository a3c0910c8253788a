"""Adaptive Dormand-Prince: tolerance, costs, and what the batch may and may not change."""

import math

import pytest
import torch

from plugins.generative.mixtures import reference_trajectory, toy_mixture
from plugins.generative.solvers import DormandPrince
from plugins.generative.solvers.adaptive import ERROR, NODES, STAGES

MIXTURE = toy_mixture()
START = 20 * torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ENDS = torch.tensor([20.0, 0.02], dtype=torch.float64)
EXACT = reference_trajectory(MIXTURE, START, ENDS, 2000)[-1]


def test_tableau_satisfies_the_order_conditions():
    for row, node in zip(STAGES, NODES, strict=True):
        assert sum(row) == pytest.approx(node, abs=1e-14)
    b = [*STAGES[-1], 0.0]
    for power in range(5):
        assert sum(w * c**power for w, c in zip(b, NODES, strict=True)) == pytest.approx(1 / (power + 1), abs=1e-14)
    for power in range(4):
        assert sum(e * c**power for e, c in zip(ERROR, NODES, strict=True)) == pytest.approx(0.0, abs=1e-14)
    assert abs(sum(e * c**4 for e, c in zip(ERROR, NODES, strict=True))) > 1e-4


@pytest.mark.parametrize("variable", ["log", "sigma"])
def test_error_follows_the_tolerance_and_cost_is_reported(variable):
    errors, costs = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        calls = []

        def counting(y, sigma, calls=calls):
            calls.append(1)
            return MIXTURE(y, sigma)

        result = DormandPrince(tolerance, tolerance, variable).solve(counting, START, ENDS)
        errors.append((result.y - EXACT).abs().max().item())
        costs.append(result.nfe)
        assert result.nfe == len(calls) == 1 + 6 * (result.accepted + result.rejected)
    assert errors[0] < 0.05 and errors[1] < 1e-3 and errors[2] < 1e-5
    assert costs[0] < costs[1] < costs[2]


def test_rejections_happen_and_are_counted():
    result = DormandPrince(1e-6, 1e-6, first_step=3.0).solve(MIXTURE, START, ENDS)
    assert result.rejected > 0
    assert torch.allclose(result.y, EXACT, atol=1e-4)


def test_pid_controllers_all_meet_the_tolerance():
    for pid in ((1.0, 0.0, 0.0), (0.7, -0.4, 0.0), (0.49, -0.34, 0.10)):
        y = DormandPrince(1e-5, 1e-5, pid=pid).sample(MIXTURE, START, ENDS)
        assert torch.allclose(y, EXACT, atol=1e-3)


def test_independent_control_does_not_see_the_batch_and_joint_control_does():
    alone = DormandPrince(1e-3, 1e-3, control="independent")
    whole = alone.solve(MIXTURE, START, ENDS)
    parts = [alone.solve(MIXTURE, part, ENDS) for part in START.split(1)]
    assert torch.equal(whole.y, torch.cat([part.y for part in parts]))
    assert whole.nfe == sum(part.nfe for part in parts)
    joint = DormandPrince(1e-3, 1e-3)
    assert not torch.equal(joint.sample(MIXTURE, START, ENDS)[:1], joint.sample(MIXTURE, START[:1], ENDS))


def test_worst_sample_control_is_no_looser_than_joint():
    far = torch.cat([START[:1], torch.zeros(63, 2, dtype=torch.float64)])
    joint, worst = (DormandPrince(1e-4, 1e-4, control=c).solve(MIXTURE, far, ENDS) for c in ("joint", "worst"))
    assert worst.nfe >= joint.nfe


def test_callback_and_last_step_to_zero():
    seen = []
    y = DormandPrince().sample(MIXTURE, START, [20.0, 0.02, 0.0], callback=seen.append)
    assert seen[-1].sigma_next == 0.0 and torch.equal(y, seen[-1].denoised)
    assert torch.allclose(y, MIXTURE(seen[-2].y, torch.tensor(0.02).double()))
    assert [info.step for info in seen] == list(range(len(seen)))
    assert seen[0].sigma == pytest.approx(20.0) and seen[-2].sigma_next == pytest.approx(0.02)


def test_float32_state():
    y = DormandPrince(1e-3, 1e-3).sample(lambda y, s: MIXTURE(y.double(), s).float(), START.float(), ENDS)
    assert y.dtype == torch.float32 and torch.allclose(y.double(), EXACT, atol=0.05)


def test_errors_are_named():
    with pytest.raises(ValueError, match="sigma = 0 cannot be reached"):
        DormandPrince().sample(MIXTURE, START, [20.0, 0.0])
    with pytest.raises(ValueError, match="max_steps = 5 reached at sigma"):
        DormandPrince(1e-8, 1e-8, max_steps=5).sample(MIXTURE, START, ENDS)
    with pytest.raises(ValueError, match="NaN or infinity at step"):
        DormandPrince().sample(lambda y, s: y * math.nan, START, ENDS)
    with pytest.raises(ValueError, match="rtol"):
        DormandPrince(0.0, 0.0)
    with pytest.raises(ValueError, match="control"):
        DormandPrince(control="each")
