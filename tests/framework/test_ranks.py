"""Several processes: the same training as one process with the same global batch; one folder, one record."""

import csv

import torch

from framework.record import read_json

DETERMINISTIC = """
description: Nothing random in a step, in double precision, so that only the order of sums can differ.
model:
  noise: 0.0
  optimizer: {_target_: torch.optim.SGD, lr: 0.1}
data:
  jitter: 0.0
trainer:
  precision: 64-true
  max_epochs: 3
"""


def rows(folder, name):
    with (folder / "metrics.csv").open() as file:
        return [float(r[name]) for r in csv.DictReader(file) if r[name]]


def without_dropout(plugin):
    text = plugin.path("modules.py").read_text().replace("torch.nn.Dropout(0.1), ", "")
    plugin.write("modules.py", text.replace('"train/loss", loss)', '"train/loss", loss, sync_dist=True)'))


def test_two_processes_train_as_one_with_the_same_global_batch(plugin, cli, workplace):
    without_dropout(plugin)
    plugin.experiment("deterministic", DETERMINISTIC)
    assert cli("+experiment=toy/deterministic", "data.batch_size=8", "hydra.run.dir=one").status == 0
    ddp = plugin.python(
        "-m", "framework", "+experiment=toy/deterministic", "data.batch_size=4", "trainer=ddp_cpu", "hydra.run.dir=two"
    )
    assert ddp.returncode == 0, ddp.stderr
    one, two = (torch.tensor(rows(workplace / f, "train/loss"), dtype=torch.float64) for f in ("one", "two"))
    assert len(one) == 12
    # metrics are logged in single precision; the weights below are compared in double
    torch.testing.assert_close(one, two, rtol=1e-6, atol=0)
    a, b = (
        torch.load(workplace / f / "checkpoints/final.ckpt", weights_only=True)["state_dict"] for f in ("one", "two")
    )
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-12)
    held_out = [read_json(workplace / f / "metrics.json")["test/loss"] for f in ("one", "two")]
    assert abs(held_out[0] - held_out[1]) < 1e-6 * held_out[0]  # every held-out sample counted once
    assert read_json(workplace / "two" / "record.json")["status"] == "finished"


def test_in_a_sweep_device_counts_may_differ_and_a_failing_process_fails_its_job_alone(plugin, workplace):
    outcome = plugin.python(
        "-m",
        "framework",
        "-m",
        "+experiment=toy/example",
        "trainer=ddp_cpu",
        "trainer.max_epochs=1",
        "trainer.devices=2,1",
        "model.fail_at_step=2,null",
        timeout=300,
    )
    assert outcome.returncode == 1
    (folder,) = (workplace / "runs" / "toy" / "example").iterdir()  # one sweep, no ghost folders
    with (folder / "sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [r["status"] for r in table] == ["failed", "finished", "failed", "finished"]
    assert "told to fail at step 2" in read_json(folder / "0" / "record.json")["reason"]
    assert (folder / "0" / "errors" / "rank0.txt").is_file()
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["0", "1", "2", "3"]
    assert "2 of 4 jobs did not finish" in outcome.stderr


def test_fsdp_composes_for_a_gpu(plugin, cli, workplace):
    outcome = cli("show", "toy/example", "trainer=fsdp")
    assert outcome.status == 0 and "trainer.strategy: fsdp" in outcome.out and "bf16-mixed" in outcome.out
