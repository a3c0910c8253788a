"""One launch: its folder, its record, its logs and what can be asked of it."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from framework import load_run
from framework.record import read_json


def only_run(workplace, name="toy/example"):
    (folder,) = (workplace / "runs" / name).iterdir()
    return folder


def test_a_run_leaves_all_that_is_needed_to_know_and_repeat_it(plugin, cli, workplace):
    outcome = cli("+experiment=toy/example", "model.width=3", "seed=7")
    assert outcome.status == 0, outcome.err
    folder = only_run(workplace)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-[0-9a-f]{6}", folder.name)
    record = read_json(folder / "record.json")
    assert record["status"] == "finished" and record["stages_done"] == ["fit", "test"]
    assert record["seed"] == 7 and record["experiment"] == "toy/example"
    assert record["overrides"] == ["experiment=toy/example", "model.width=3", "seed=7"]
    assert {"python", "torch", "pytorch-lightning", "framework", "framework-toy"} <= record["versions"].keys()
    assert record["duration_seconds"] > 0 and record["peak_memory_bytes"] > 10**7 and record["host"]["cpus"]
    assert record["metrics"] == read_json(folder / "metrics.json")
    assert record["metrics"].keys() >= {"train/loss", "val/loss", "test/loss"}
    for file in ("config.yaml", "overrides.yaml", "metrics.csv", "run.log", "checkpoints/last.ckpt"):
        assert (folder / file).stat().st_size > 0, file
    assert "${" not in (folder / "config.yaml").read_text()
    assert "test/loss" in outcome.out and os.path.relpath(folder) in outcome.out
    again = cli("+experiment=toy/example", "model.width=3", "seed=7", "hydra.run.dir=again")
    assert again.status == 0
    assert read_json(workplace / "again" / "metrics.json") == record["metrics"]


def test_a_notebook_gets_the_model_back_in_one_line(plugin, cli, workplace):
    assert cli("+experiment=toy/example", "hydra.run.dir=run").status == 0
    model = load_run("run").model
    assert not model.training
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert load_run("run").data.batch_size == 4


def test_simultaneous_launches_never_share_a_folder(plugin, workplace):
    command = [sys.executable, "-m", "framework", "+experiment=toy/example", "stages=[test]"]
    launches = [subprocess.Popen(command, env=plugin.env, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [launch.wait(timeout=300) for launch in launches] == [0, 0, 0]
    assert len(list((workplace / "runs" / "toy" / "example").iterdir())) == 3


def test_a_failing_run_closes_its_record_and_shows_where_it_failed(plugin, cli, workplace):
    outcome = cli("+experiment=toy/example", "model.fail_at_step=3")
    assert outcome.status == 1
    record = read_json(only_run(workplace) / "record.json")
    assert record["status"] == "failed" and record["reason"] == "RuntimeError: told to fail at step 3"
    assert "Traceback" in outcome.err and "told to fail" in (only_run(workplace) / "run.log").read_text()


def test_weights_of_another_run_are_a_start(plugin, cli, workplace):
    assert cli("+experiment=toy/example", "hydra.run.dir=first").status == 0
    final = workplace / "first" / "checkpoints" / "final.ckpt"
    outcome = cli("+experiment=toy/example", "stages=[test]", f"ckpt_path={final}", "hydra.run.dir=second")
    assert outcome.status == 0, outcome.err
    first, second = (read_json(workplace / f / "metrics.json")["test/loss"] for f in ("first", "second"))
    assert first == second


def test_the_best_weights_are_tested_when_asked_for(plugin, cli, workplace):
    options = ["+experiment=toy/example", "test_weights=best", "trainer.max_epochs=3", "model.optimizer.lr=0.5"]
    assert cli(*options, "callbacks.checkpoint.monitor=val/loss", "hydra.run.dir=best").status == 0
    best = next(p for p in (workplace / "best" / "checkpoints").glob("epoch=*.ckpt"))
    weights = torch.load(best, weights_only=True)["state_dict"]
    assert (
        cli("+experiment=toy/example", "stages=[test]", f"ckpt_path={str(best)!r}", "hydra.run.dir=direct").status == 0
    )
    one, two = (read_json(workplace / f / "metrics.json")["test/loss"] for f in ("best", "direct"))
    assert one == two and weights
    assert cli("+experiment=toy/example", "test_weights=best").status == 1


def test_predictions_are_kept(plugin, cli, workplace):
    assert cli("+experiment=toy/example", "stages=[fit,predict]", "hydra.run.dir=run").status == 0
    predictions = torch.load("run/predictions.pt", weights_only=True)
    assert torch.cat(predictions).shape == (32, 1)


def test_wandb_has_a_run_of_its_own_for_each_job_with_config_metrics_and_figures(plugin, cli, workplace):
    plugin.write(
        "modules.py",
        plugin.path("modules.py").read_text()
        + """

class Drawing(Line):
    def on_test_epoch_end(self):
        from matplotlib.figure import Figure

        from framework.figures import save_figure

        figure = Figure()
        figure.add_subplot().plot([1, 2])
        save_figure(self, "line", figure)
""",
    )
    plugin.experiment("drawing", "description: Draws.\nmodel: {_target_: toy.modules.Drawing}\n")
    outcome = cli("-m", "+experiment=toy/drawing", "seed=1,2", "logger=wandb", "trainer.max_epochs=1")
    assert outcome.status == 0, outcome.err
    (sweep,) = (workplace / "runs" / "toy" / "drawing").iterdir()
    identities = set()
    for job, seed in [("0", 1), ("1", 2)]:
        (run,) = (sweep / job / "wandb").glob("offline-run-*")
        identities.add(run.name)
        content = wandb_content(next(run.glob("*.wandb")))
        assert content["config"]["seed"] == seed and content["config"]["model.width"] == 4
        assert {"train/loss", "val/loss", "test/loss"} <= content["history"]
        assert content["exited"]
        assert list((run / "files" / "media" / "images").rglob("*.png"))
        assert (sweep / job / "figures" / "line.png").is_file()
    assert len(identities) == 2


def wandb_content(path):
    """What a wandb file holds: LevelDB log records (7 bytes of header each, in blocks of 32 KiB) of its messages."""
    from wandb.proto import wandb_internal_pb2

    data, at, part = path.read_bytes(), 7, b""  # the file's own header
    config, history, exited = {}, set(), False
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last of several
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            part = b""
            updates = [*record.run.config.update, *record.config.update]
            config |= {u.key or ".".join(u.nested_key): json.loads(u.value_json) for u in updates}
            history |= {i.key or ".".join(i.nested_key) for i in record.history.item}
            exited |= record.HasField("exit")
    return {"config": config, "history": history, "exited": exited}


def test_several_loggers_at_once(plugin, cli, workplace):
    assert cli("+experiment=toy/example", "logger=several", "hydra.run.dir=run", "trainer.max_epochs=1").status == 0
    assert (workplace / "run" / "metrics.csv").is_file()
    assert list((workplace / "run" / "wandb").glob("offline-run-*"))
    assert list((workplace / "run" / "tensorboard").glob("events*"))


@pytest.mark.parametrize("debug", ["fast", "overfit", "profile"])
def test_debug_modes(plugin, cli, workplace, debug):
    assert cli("+experiment=toy/example", f"debug={debug}", "hydra.run.dir=run").status == 0
    steps = torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert steps == {"fast": 2, "overfit": 3 * 2, "profile": 8}[debug]
    assert list((workplace / "run").glob("*profile*")) if debug == "profile" else True


def test_hydra_s_own_flags_still_work(plugin, cli, workplace):
    assert "max_epochs: 2" in cli("--cfg", "job", "+experiment=toy/example").out
    assert "plugin toy" in cli("--info", "searchpath").out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("framework +experiment=toy/ex", "+experiment=toy/example"),
        ("framework experiment=to", "experiment=toy/example"),
        ("framework res", "resume"),
        ("framework show toy/", "toy/example"),
        ("framework trainer=ddp_", "trainer=ddp_cpu"),
    ],
)
def test_the_shell_completes(plugin, cli, workplace, monkeypatch, line, expected):
    monkeypatch.setenv("COMP_LINE", line)
    assert expected in cli("-sc", "query=bash").out.split()
