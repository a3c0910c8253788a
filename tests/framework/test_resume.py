"""Runs that are killed, stopped and continued end with the same bits as runs that are not."""

import csv
import os
import signal
from pathlib import Path

import pytest
import torch

from framework import load_run
from framework.__main__ import main
from framework.record import read_json
from framework.resume import newest_checkpoint

SIGNAL_AT = '''
"""Sends a signal to this process, or to the one that supervises it, at the start of a training step."""

import os

import pytorch_lightning as pl


class SignalAt(pl.Callback):
    def __init__(self, step: int, signum: int, hook: str = "on_train_batch_start", once: str = "") -> None:
        self.step, self.signum, self.hook, self.once = step, signum, hook, once

    def _send(self, trainer) -> None:
        if trainer.global_step != self.step or os.path.exists(self.once):
            return
        if trainer.global_rank == trainer.world_size - 1:
            open(self.once, "w").close()
            supervised = "FRAMEWORK_RANK_OF" in os.environ and self.signum != 9
            os.kill(os.getppid() if supervised else os.getpid(), self.signum)

    def on_train_batch_start(self, trainer, *_):
        if self.hook == "on_train_batch_start":
            self._send(trainer)

    def on_validation_batch_start(self, trainer, *_):
        if self.hook == "on_validation_batch_start":
            self._send(trainer)

    def on_test_batch_start(self, trainer, *_):
        if self.hook == "on_test_batch_start":
            self._send(trainer)
'''

CALLBACKS = """
description: A line through points, with checkpoints in the middle of epochs.
callbacks:
  ema:
    _target_: pytorch_lightning.callbacks.EMAWeightAveraging
    decay: 0.8
  steps:
    _target_: pytorch_lightning.callbacks.ModelCheckpoint
    dirpath: ${paths.run}/checkpoints
    filename: "steps-{step}"
    every_n_train_steps: 3
    save_top_k: -1
"""


def in_fork(*argv: str) -> int:
    """The exit status of a command in a child process: fast, since torch is loaded already, and free to be killed."""
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        status = 70
        try:
            status = main(list(argv))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "final.ckpt", weights_only=True)["state_dict"]


def assert_same(a: Path, b: Path) -> None:
    one, two = weights(a), weights(b)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    assert load_run(a).metrics == load_run(b).metrics


@pytest.fixture
def stopping(plugin):
    """The toy plugin, with checkpoints every three steps and a way to be stopped at any step."""
    plugin.write("stop.py", SIGNAL_AT)
    plugin.experiment("stopping", CALLBACKS)

    def overrides(folder: Path, step: int | None = None, signum: int = 9, hook: str = "on_train_batch_start", **values):
        out = ["experiment=toy/stopping", f"hydra.run.dir={folder}", *(f"{k}={v}" for k, v in values.items())]
        if step is not None:
            target = "_target_:toy.stop.SignalAt"
            once = folder.with_name(f"{folder.name}.sent")
            out.append(f"+callbacks.stop={{{target},step:{step},signum:{signum},hook:{hook},once:'{once}'}}")
        return out

    return overrides


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_any_step_ends_bitwise_equal(stopping, workplace, workers):
    options = {"data.workers": workers}  # an argument that the YAML does not mention
    assert in_fork(*stopping(workplace / "whole", **options)) == 0
    cases = [
        (1, "on_train_batch_start"),
        (5, "on_train_batch_start"),
        (8, "on_train_batch_start"),
        (8, "on_validation_batch_start"),
        (14, "on_train_batch_start"),
        (16, "on_validation_batch_start"),
        (16, "on_test_batch_start"),
    ]
    for step, hook in cases if workers == 0 else cases[1:4]:
        folder = workplace / f"killed-{hook}-{step}"
        assert in_fork(*stopping(folder, step, signal.SIGKILL, hook, **options)) == -signal.SIGKILL
        assert read_json(folder / "record.json")["status"] == "running"
        assert in_fork("resume", str(folder)) == 0
        assert_same(workplace / "whole", folder)
        record = read_json(folder / "record.json")
        assert record["status"] == "finished" and len(record["resumed"]) == 1


def test_metrics_csv_of_a_resumed_run_is_that_of_a_whole_one(stopping, workplace):
    assert in_fork(*stopping(workplace / "whole")) == 0
    assert in_fork(*stopping(workplace / "killed", 11)) == -signal.SIGKILL
    assert in_fork("resume", str(workplace / "killed")) == 0

    def rows(folder):
        with (folder / "metrics.csv").open() as file:
            return {
                (r["step"], name, r[name]) for r in csv.DictReader(file) for name in r if r[name] and name != "epoch"
            }

    # rows still in the logger's memory when the process is killed are lost; none is repeated or changed
    assert rows(workplace / "killed") <= rows(workplace / "whole")
    assert {r for r in rows(workplace / "whole") if int(r[0]) >= 9} <= rows(workplace / "killed")
    assert not list((workplace / "killed").glob("metrics.session*"))


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_writes_a_checkpoint_and_says_so(stopping, workplace, signum, status):
    assert in_fork(*stopping(workplace / "whole")) == 0
    folder = workplace / "stopped"
    assert in_fork(*stopping(folder, 4, signum)) == status
    record = read_json(folder / "record.json")
    assert record["status"] == "interrupted" and str(int(signum)) in record["reason"]
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 5  # the step that was under way is not lost
    assert in_fork("resume", str(folder)) == 0
    assert_same(workplace / "whole", folder)


def test_a_signal_in_the_test_stage_does_not_cost_the_training(stopping, workplace):
    assert in_fork(*stopping(workplace / "whole")) == 0
    folder = workplace / "stopped"
    assert in_fork(*stopping(folder, 16, signal.SIGTERM, "on_test_batch_start")) == 143
    assert read_json(folder / "record.json")["stages_done"] == ["fit"]
    before = (folder / "checkpoints" / "final.ckpt").stat().st_mtime_ns
    assert in_fork("resume", str(folder)) == 0
    assert (folder / "checkpoints" / "final.ckpt").stat().st_mtime_ns == before
    assert_same(workplace / "whole", folder)


def test_two_processes_killed_and_resumed(stopping, plugin, workplace):
    options = {"trainer": "ddp_cpu"}
    assert plugin.python("-m", "framework", *stopping(workplace / "whole", **options)).returncode == 0
    killed = plugin.python("-m", "framework", *stopping(workplace / "killed", 5, signal.SIGKILL, **options))
    assert killed.returncode == 1 and "Process 1 of 2" in killed.stderr
    record = read_json(workplace / "killed" / "record.json")
    assert record["status"] == "failed"
    resumed = plugin.python("-m", "framework", "resume", str(workplace / "killed"))
    assert resumed.returncode == 0, resumed.stderr
    assert_same(workplace / "whole", workplace / "killed")


def test_two_processes_stop_together_on_a_signal(stopping, plugin, workplace):
    options = {"trainer": "ddp_cpu"}
    stopped = plugin.python("-m", "framework", *stopping(workplace / "run", 3, signal.SIGTERM, **options))
    assert stopped.returncode == 143, stopped.stderr
    assert read_json(workplace / "run" / "record.json")["status"] == "interrupted"
    step = torch.load(workplace / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 4 <= step < 8  # whenever the signal reached both, not at the end


def test_a_checkpoint_broken_by_a_kill_is_passed_over(stopping, workplace):
    assert in_fork(*stopping(workplace / "run", 7)) == -signal.SIGKILL
    checkpoints = workplace / "run" / "checkpoints"
    newest = newest_checkpoint(workplace / "run")
    assert torch.load(newest, weights_only=True)["global_step"] == 6
    (checkpoints / "half.ckpt").write_bytes(newest.read_bytes()[:1000])
    assert newest_checkpoint(workplace / "run") == newest


def test_resuming_what_cannot_be_resumed_is_an_error(plugin, cli, workplace):
    assert cli("+experiment=toy/example", "hydra.run.dir=done", "stages=[test]").status == 0
    assert "has finished" in cli("resume", "done").out
    outcome = cli("resume", "nowhere")
    assert outcome.status == 1 and "not a run folder" in outcome.err
    record = read_json(workplace / "done" / "record.json")
    (workplace / "done" / "record.json").write_text(
        __import__("json").dumps({**record, "status": "running", "pid": os.getpid()})
    )
    outcome = cli("resume", "done")
    assert outcome.status == 1 and f"still running, as process {os.getpid()}" in outcome.err


def test_a_moved_run_folder_resumes_where_it_is(stopping, workplace):
    assert in_fork(*stopping(workplace / "whole")) == 0
    assert in_fork(*stopping(workplace / "old", 5)) == -signal.SIGKILL
    (workplace / "old").rename(workplace / "new")
    assert in_fork("resume", str(workplace / "new")) == 0
    assert not (workplace / "old").exists()
    assert_same(workplace / "whole", workplace / "new")


def test_a_signal_ends_a_sweep_and_resume_finishes_it(stopping, workplace):
    folder = workplace / "sweep"
    one_run, *overrides = stopping(folder, 12, signal.SIGTERM)[:1] + stopping(folder, 12, signal.SIGTERM)[2:]
    assert in_fork("-m", one_run, *overrides, "seed=1,2", f"hydra.sweep.dir={folder}") == 143
    assert read_json(folder / "0" / "record.json")["status"] == "interrupted"
    assert not (folder / "1").exists()  # what asks a job to stop asks the sweep to stop
    assert (folder / "sweep.csv").is_file()
    assert in_fork("resume", str(folder)) == 0
    records = [read_json(folder / job / "record.json") for job in "01"]
    assert [r["status"] for r in records] == ["finished", "finished"]
    assert "resumed" in records[0] and "resumed" not in records[1]
    assert in_fork(*stopping(workplace / "alone"), "seed=1") == 0
    assert_same(workplace / "alone", folder / "0")


def test_neither_workers_nor_validations_change_what_a_run_learns(stopping, workplace):
    assert in_fork(*stopping(workplace / "plain")) == 0
    changed = {"data.workers": 2, "trainer.val_check_interval": 0.5, "stages": "[fit]"}
    assert in_fork(*stopping(workplace / "changed", **changed)) == 0
    one, two = weights(workplace / "plain"), weights(workplace / "changed")
    assert all(torch.equal(one[name], two[name]) for name in one)
