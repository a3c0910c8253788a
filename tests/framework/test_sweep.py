"""Sweeps: every job recorded, failures listed last, unfinished ones continued, in parallel and by search."""

import csv
import math

import pytest
import torch

from framework.record import read_json


def folders(workplace, name="toy/example"):
    return sorted((workplace / "runs" / name).glob("sweep-*"))


def table(folder):
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_one_failing_job_neither_stops_the_others_nor_is_hidden(plugin, cli, workplace):
    outcome = cli("-m", "+experiment=toy/example", "model.fail_at_step=null,3,null", "seed=1,2")
    assert outcome.status == 1
    (folder,) = folders(workplace)
    rows = table(folder)
    assert [r["status"] for r in rows] == ["finished", "finished", "failed", "failed", "finished", "finished"]
    assert rows[0]["seed"] == "1" and rows[2]["model.fail_at_step"] == "3"
    assert float(rows[0]["val/loss"]) > 0 and rows[2]["val/loss"] == ""
    assert "2 of 6 jobs did not finish" in outcome.err
    assert outcome.err.rstrip().splitlines()[-1].endswith("RuntimeError: told to fail at step 3")
    markdown = (folder / "sweep.md").read_text()
    assert markdown.splitlines()[0].split("|")[1:4] == [" job ", " model.fail_at_step ", " seed "]
    assert len(markdown.splitlines()) == 2 + 6


def test_the_same_seed_gives_the_same_bits_alone_and_in_a_sweep(plugin, cli, workplace):
    assert cli("-m", "+experiment=toy/example", "seed=5,6").status == 0
    assert cli("+experiment=toy/example", "seed=6", "hydra.run.dir=alone").status == 0
    (folder,) = folders(workplace)
    a, b = (
        torch.load(path / "checkpoints" / "final.ckpt", weights_only=True)["state_dict"]
        for path in (folder / "1", workplace / "alone")
    )
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_an_unfinished_sweep_is_continued_without_redoing_finished_jobs(plugin, cli, workplace):
    switch = workplace / "broken"
    switch.touch()
    fails = "if self.global_step == self.fail_at_step"
    text = plugin.path("modules.py").read_text()
    assert fails in text
    text = text.replace(fails, f"{fails} and pathlib.Path({str(switch)!r}).exists()")
    plugin.write("modules.py", text.replace("import time", "import pathlib\nimport time"))
    assert cli("-m", "+experiment=toy/example", "model.fail_at_step=null,9,1000").status == 1
    (folder,) = folders(workplace)
    before = {job: (folder / job / "record.json").stat().st_mtime_ns for job in "012"}
    switch.unlink()
    outcome = cli("resume", str(folder))
    assert outcome.status == 0, outcome.err
    assert [r["status"] for r in table(folder)] == ["finished"] * 3
    after = {job: (folder / job / "record.json").stat().st_mtime_ns for job in "012"}
    assert after["0"] == before["0"] and after["2"] == before["2"] and after["1"] != before["1"]
    record = read_json(folder / "1" / "record.json")
    assert len(record["resumed"]) == 1  # from its checkpoint at the end of the first epoch, not from the start


def test_a_sweep_whose_config_cannot_run_starts_no_job(plugin, cli, workplace):
    outcome = cli("-m", "+experiment=toy/example", "model.width=a,b")
    assert outcome.status == 1 and "model.width (the command line) must be int, not 'a'" in outcome.err
    assert not (workplace / "runs").exists()


def test_several_values_without_m_is_an_error_that_says_so(plugin, cli, workplace):
    outcome = cli("+experiment=toy/example", "seed=1,2")
    assert outcome.status == 1 and "'seed' has several values" in outcome.err and "-m" in outcome.err


def test_a_sweep_over_experiments_lies_beside_them(plugin, cli, workplace):
    plugin.experiment("other", "description: Another.\ntrainer: {max_epochs: 1}\n")
    assert cli("-m", "+experiment=toy/example,toy/other").status == 0
    (folder,) = (workplace / "runs").glob("several/sweep-*")
    assert [r["experiment"] for r in table(folder)] == ["toy/example", "toy/other"]


def test_the_group_sweep_makes_a_sweep_of_anything(plugin, cli, workplace):
    assert cli("+experiment=toy/example", "sweep=seeds", "trainer.max_epochs=1").status == 0
    (folder,) = folders(workplace)
    assert [r["seed"] for r in table(folder)] == ["0", "1", "2"]
    assert len({r["val/loss"] for r in table(folder)}) == 3


def test_jobs_side_by_side_give_the_results_of_one_after_the_other(plugin, workplace):
    options = ["+experiment=toy/example", "seed=1,2", "trainer.max_epochs=1"]
    parallel = plugin.python("-m", "framework", "-m", *options, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert parallel.returncode == 0, parallel.stderr
    serial = plugin.python("-m", "framework", "-m", *options)
    assert serial.returncode == 0, serial.stderr
    one, two = folders(workplace)
    assert [r["val/loss"] for r in table(one)] == [r["val/loss"] for r in table(two)]


def test_submitit_runs_the_jobs_through_its_local_executor(plugin, workplace):
    outcome = plugin.python(
        "-m",
        "framework",
        "-m",
        "+experiment=toy/example",
        "seed=1,2",
        "trainer.max_epochs=1",
        "hydra/launcher=submitit_local",
        "hydra.launcher.timeout_min=3",
    )
    assert outcome.returncode == 0, outcome.stderr
    (folder,) = folders(workplace)
    assert [r["status"] for r in table(folder)] == ["finished"] * 2


def test_submitit_slurm_composes(plugin, cli, workplace):
    outcome = cli("--cfg", "hydra", "+experiment=toy/example", "hydra/launcher=submitit_slurm")
    assert outcome.status == 0 and "SlurmLauncher" in outcome.out


@pytest.mark.filterwarnings("ignore")
def test_optuna_optimises_the_named_metric_and_survives_a_failing_trial(plugin, cli, workplace):
    outcome = cli(
        "+experiment=toy/example",
        "sweep=optuna",
        "hydra.sweeper.n_trials=4",
        "trainer.max_epochs=1",
        "model.optimizer.lr=tag(log,interval(1e-4,1e-1))",
        "model.fail_at_step=choice(-1,0)",
    )
    (folder,) = folders(workplace)
    rows = table(folder)
    assert len(rows) == 4
    finished = [r for r in rows if r["status"] == "finished"]
    assert outcome.status == (0 if len(finished) == 4 else 1)
    assert finished and all(math.isfinite(float(r["val/loss"])) for r in finished)
    results = (folder / "optimization_results.yaml").read_text()
    assert f"best_value: {min(float(r['val/loss']) for r in finished)!r}"[:20] in results
