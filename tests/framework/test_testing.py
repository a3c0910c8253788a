"""The contract finds every way in which a plugin can break it, and passes one that does not."""

from __future__ import annotations

import pytest

from framework import testing
from framework.testing import Broken, DataMissing


def test_a_sound_experiment_keeps_the_contract(plugin, workplace, tmp_path):
    testing.hold("toy/example", tmp_path / "runs")
    assert (tmp_path / "runs" / "first" / "metrics.json").is_file()


LINES = """
import time

import pytorch_lightning as pl
import torch

from framework import fetch
from framework.study import Study
from toy.modules import Line

calls = []


class Clocked(Line):
    def test_step(self, batch, batch_idx):
        self.log("test/now", float(time.perf_counter_ns() % 10**6))


class Slow(Line):
    def test_step(self, batch, batch_idx):
        self.log("seconds/test", time.perf_counter())


class SometimesMore(Line):
    def test_step(self, batch, batch_idx):
        self.log("test/loss", 1.0)
        if calls:
            self.log("test/more", 1.0)

    def on_test_end(self):
        calls.append(1)


class Forgetful(Line):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["state_dict"]["layers.0.bias"] += 1

    def on_load_checkpoint(self, checkpoint):
        checkpoint["state_dict"] = {k: v * 0 for k, v in checkpoint["state_dict"].items()}


class Grows(Line):
    def setup(self, stage):
        self.extra = torch.nn.Linear(1, 1)


class Hyper(Line):
    def __init__(self, width: int, optimizer) -> None:
        super().__init__(width, optimizer)
        self.save_hyperparameters()


class Fetches(Study):
    def study(self):
        return {"size": len(fetch("nowhere.bin").read_bytes())}
"""


@pytest.fixture
def toy(plugin, workplace):
    plugin.write("lines.py", LINES)
    return plugin


def with_model(toy, name: str, rest: str = "") -> str:
    return toy.experiment("one", f"description: One.\nmodel: {{_target_: toy.lines.{name}}}\n{rest}")


@pytest.mark.parametrize(
    ("name", "rest", "says"),
    [
        ("Clocked", "", "not deterministic under its seed: test/now is"),
        ("SometimesMore", "", "not deterministic under its seed: test/more is None in one run and 1.0 in the next"),
        ("Forgetful", "stages: [fit]\n", "does not come back whole"),
        ("Grows", "stages: [fit]\n", "cannot be loaded again: RuntimeError"),
        ("Hyper", "stages: [fit]\n", "cannot be loaded again: UnpicklingError"),
    ],
)
def test_what_breaks_the_contract(name, rest, says, toy, tmp_path):
    experiment = with_model(toy, name, rest)
    with pytest.raises(Broken, match=says):
        testing.hold(experiment, tmp_path / "runs")


def test_times_may_differ(toy, tmp_path):
    testing.hold(with_model(toy, "Slow"), tmp_path / "runs")


@pytest.mark.parametrize("description", ["''", "'  '", '"two\\nlines"'])
def test_a_description_of_one_line_is_required(description, toy, tmp_path):
    experiment = toy.experiment("one", f"description: {description}\n")
    with pytest.raises(Broken, match="needs a `description` of one line"):
        testing.hold(experiment, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_missing_data_is_not_a_broken_contract(toy, tmp_path):
    experiment = toy.experiment(
        "one", "description: One.\nstages: [test]\nmodel: {_target_: toy.lines.Fetches}\n", base=None
    )
    with pytest.raises(DataMissing, match=r"nowhere\.bin"):
        testing.hold(experiment, tmp_path / "runs")


def test_check_lists_a_verdict_for_each_experiment(toy, cli):
    with_model(toy, "Clocked")
    toy.experiment("data", "description: D.\nstages: [test]\nmodel: {_target_: toy.lines.Fetches}\n", base=None)
    toy.experiment("typo", "description: T.\nmodel: {wdth: 1}\n")
    toy.write("conf/model/stray.yaml", "x: 1\n")
    checked = cli("check", "toy")
    assert checked.status == 1
    words = [line.split() for line in checked.out.splitlines() if line.startswith(("ok ", "data ", "FAIL "))]
    verdicts = {name.rstrip(":"): verdict for verdict, name, *_ in words}
    assert verdicts == {"toy/example": "ok", "toy/data": "data", "toy/one": "FAIL", "toy/typo": "FAIL", "the": "FAIL"}
    assert "Did you mean 'width'?" in checked.out and "model/stray does not stand under" in checked.out
    assert checked.out.endswith("toy: 3 failures\n")


def test_check_of_one_experiment_and_of_none(toy, cli):
    with_model(toy, "Clocked")
    assert cli("check", "toy", "--experiment", "toy/example").out.splitlines() == [
        "ok    toy/example",
        "toy: keeps the contract",
    ]
    refused = cli("check", "toy", "--experiment", "exampel")
    assert refused.status == 1 and "has no experiment 'exampel'" in refused.err
    assert "Did you mean 'toy'?" in cli("check", "toyy").err


@pytest.mark.parametrize(
    ("metric", "machine"),
    [
        ("seconds/naive", True),
        ("time_per_step_ms", True),
        ("peak_memory_bytes", True),
        ("milliseconds", True),
        ("fft/speedup", True),
        ("runtime", True),
        ("mebibytes/mamba", True),
        ("val/loss", False),
        ("sentiment/accuracy", False),
        ("rms/euler/nfe5", False),
        ("timestep_error", False),
    ],
)
def test_measurements_of_the_machine_are_known_by_their_names(metric, machine):
    assert testing.is_measurement_of_this_machine(metric) is machine
