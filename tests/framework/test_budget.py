"""Equal training time: whose turn it is, what counts, what a checkpoint keeps."""

import pytest
import pytorch_lightning as pl
import torch

from framework import budget as module
from framework.budget import Budget


class _Trainer:
    world_size = 1


@pytest.fixture
def clock(monkeypatch):
    """A Lightning module on the CPU, and a clock that stands still but for what a test adds to it."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    learner = pl.LightningModule()
    learner._trainer = _Trainer()
    return learner, now


def test_the_learner_that_has_trained_least_takes_the_batch(clock):
    learner, now = clock
    budget, costs, turns = Budget(["quick", "slow"], seconds=10.0), {"quick": 1.0, "slow": 3.0}, []
    while budget.used < 1:
        (name,) = budget.turn()
        now[0] += 5.0  # what happens outside a step is free
        with budget.spend(name, learner):
            now[0] += costs[name]
        turns.append(name)
        assert abs(budget.seconds["quick"] - budget.seconds["slow"]) <= 3.0
    # each overruns its ten seconds by less than one step
    assert turns.count("slow") == 4 and 10 <= budget.seconds["quick"] <= 12
    assert budget.seconds["slow"] == 12.0 and budget.taken == {"quick": turns.count("quick"), "slow": 4}


def test_with_steps_everyone_takes_every_batch(clock):
    learner, now = clock
    budget = Budget(["a", "b"], steps=4)
    for name in budget.turn():
        with budget.spend(name, learner):
            now[0] += 2.0
    assert budget.taken == {"a": 1, "b": 1} and budget.used == 0.25 and budget.seconds["a"] == 2.0


def test_fast_takes_two_steps_of_a_sound_budget():
    budget = Budget(["a", "b"], seconds=100.0, fast=True)
    assert budget.turn() == ["a", "b"] and budget.limit == 2
    with pytest.raises(ValueError, match="must be positive"):
        Budget(["a"], steps=0, fast=True)


def test_what_is_used_has_names():
    budget = Budget(["a"], steps=4)
    budget.seconds, budget.taken = {"a": 1.5}, {"a": 3}
    assert budget.metrics("train_") == {"train_seconds/a": 1.5, "train_steps/a": 3.0}


def test_an_interrupted_step_counts_for_nothing(clock):
    learner, _ = clock
    budget = Budget(["a"], steps=4)
    with pytest.raises(KeyboardInterrupt), budget.spend("a", learner):
        raise KeyboardInterrupt
    assert budget.taken == {"a": 0}


def test_a_checkpoint_keeps_it(tmp_path):
    budget = Budget(["a", "b"], seconds=10.0)
    budget.seconds, budget.taken = {"a": 1.5, "b": 2.25}, {"a": 3, "b": 4}
    torch.save(torch.nn.ModuleDict({"budget": budget}).state_dict(), tmp_path / "state.pt")
    again = torch.nn.ModuleDict({"budget": Budget(["a", "b"], seconds=10.0)})
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again["budget"].seconds == budget.seconds and again["budget"].taken == budget.taken
    assert again["budget"].turn() == ["a"] and again["budget"].share("b") == 0.225


@pytest.mark.parametrize(
    "names, options, message",
    [
        (["a"], {}, "one of seconds and steps"),
        (["a"], {"seconds": 1.0, "steps": 1}, "one of seconds and steps"),
        (["a"], {"steps": 0}, "must be positive"),
        (["a"], {"seconds": -1.0}, "must be positive"),
        ([], {"steps": 1}, "at least one learner"),
    ],
)
def test_wrong_budgets_are_told(names, options, message):
    with pytest.raises(ValueError, match=message):
        Budget(names, **options)
