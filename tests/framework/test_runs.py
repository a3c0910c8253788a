"""Runs after the fact: listed, compared, and their model back in one line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

from framework import runs
from framework.__main__ import main
from framework.errors import UserError
from framework.runs import load_run


@pytest.fixture(scope="module")
def root(shared_plugin, tmp_path_factory):
    """Three finished runs, a failed one and one of another experiment, below one folder."""
    root = tmp_path_factory.mktemp("runs")
    shared_plugin.experiment("other", "description: Other.\n")

    def run(name: str, experiment: str, *overrides: str) -> int:
        return main([f"experiment={experiment}", "debug=fast", *overrides, f"hydra.run.dir={root / name}"])

    assert run("a", "toy/example", "model.width=2", "seed=1") == 0
    assert run("b", "toy/example", "model.width=3", "seed=1", "tags=[x]") == 0
    assert run("c", "toy/example", "model.width=4", "seed=2") == 0
    assert run("failed", "toy/example", "model.fail_at_step=1") == 1
    assert run("sweep-x/0", "toy/other") == 0
    return root


def test_model_comes_back_with_its_weights(root):
    run = load_run(root / "a")
    saved = torch.load(root / "a" / "checkpoints" / "final.ckpt", weights_only=True)["state_dict"]
    model = run.model
    assert type(model).__name__ == "Line" and not model.training
    assert model.layers[0].weight.shape == (2, 2)
    assert model.state_dict().keys() == saved.keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, saved[name])
    fresh = type(model)(2, None)
    assert not torch.equal(fresh.layers[0].weight, model.layers[0].weight)


def test_a_run_knows_its_config_record_and_metrics(root):
    run = load_run(str(root / "a"))
    assert run.config["model"]["width"] == 2 and run.config["seed"] == 1 and type(run.config["model"]) is dict
    assert run.record["status"] == "finished" and run.metrics == json.loads((root / "a" / "metrics.json").read_text())
    data = run.data
    data.setup("fit")
    assert data.count == 32 and len(data.train_dataloader()) == 8


def test_moved_folder_is_whole(root, tmp_path, monkeypatch):
    """Nothing in it points to where it was."""
    expected = load_run(root / "a").model.state_dict()
    shutil.copytree(root / "a", tmp_path / "elsewhere" / "renamed")
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = load_run("renamed")
    here = str(tmp_path / "elsewhere" / "renamed")
    assert run.config["paths"]["run"] == here and run.config["logger"]["csv"]["folder"] == here
    assert run.config["callbacks"]["checkpoint"]["dirpath"] == f"{here}/checkpoints"
    assert str(root) not in json.dumps(run.config)
    assert str(run.checkpoint).startswith(here)
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, expected[name])


def test_only_whole_path_components_are_moved(tmp_path):
    config = {
        "a": "/runs/one/x",
        "b": "/runs/one",
        "c": "/runs/one-more/x",
        "d": ["/runs/one/y", 3],
        "e": "see /runs/one",
    }
    moved = runs.moved(config, tmp_path.__class__("/runs/one"), tmp_path.__class__("/new"))
    assert moved == {"a": "/new/x", "b": "/new", "c": "/runs/one-more/x", "d": ["/new/y", 3], "e": "see /runs/one"}


def test_checkpoint_of_an_unfinished_run_is_the_newest_readable(root, tmp_path):
    shutil.copytree(root / "a", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "final.ckpt").unlink()
    whole = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(whole | {"global_step": whole["global_step"] + 1}, tmp_path / "run" / "checkpoints" / "later.ckpt")
    (tmp_path / "run" / "checkpoints" / "torn.ckpt").write_bytes(b"half a file")
    run = load_run(tmp_path / "run")
    assert run.checkpoint.name == "later.ckpt"
    assert run.model.layers[0].weight.shape == (2, 2)


def test_a_run_without_a_checkpoint_says_so(root):
    with pytest.raises(UserError, match="has no checkpoint"):
        load_run(root / "failed").model  # noqa: B018


def test_what_is_no_run_folder(root, tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder.*It holds the runs a, b, c, failed"):
        load_run(root)
    with pytest.raises(UserError, match="is not a run folder"):
        load_run(tmp_path)


def test_find_filters_and_orders_by_start(root):
    assert [run.path.name for run in runs.find(root)] == ["a", "b", "c", "failed", "0"]
    assert [run.path.name for run in runs.find(root, "toy/ex", "finished")] == ["a", "b", "c"]
    assert [run.path.name for run in runs.find(root, status="failed")] == ["failed"]
    assert [run.path.name for run in runs.find(root, "other")] == ["0"]


def test_a_folder_that_cannot_be_read_does_not_hide_the_others(root, tmp_path):
    shutil.copytree(root / "a", tmp_path / "a")
    shutil.copytree(root / "b", tmp_path / "b")
    shutil.copytree(root / "c", tmp_path / "c")
    (tmp_path / "b" / "record.json").write_text("{")
    (tmp_path / "c" / "config.yaml").write_text("a: [")
    assert [run.path.name for run in runs.find(tmp_path)] == ["a"]


def test_differing_keys_leave_paths_out(root):
    found = list(runs.find(root, "toy/example", "finished"))
    assert set(runs.differing_keys(found)) == {"tags", "seed", "model.width"}
    assert len(runs.differing_keys(found, most=1)) == 1
    assert runs.differing_keys(found[:1]) == []


def table(text: str) -> list[dict[str, str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_listing_shows_differing_keys_and_metrics(root, cli):
    shown = cli("runs", "toy/example", "--root", str(root), "--status", "finished")
    assert shown.status == 0
    rows = table(shown.out)
    assert [row["run"] for row in rows] == ["a", "b", "c"]
    assert [row["model.width"] for row in rows] == ["2", "3", "4"] and [row["seed"] for row in rows] == ["1", "1", "2"]
    assert "model.optimizer.lr" not in rows[0]
    assert float(rows[0]["test/loss"]) == pytest.approx(load_run(root / "a").metrics["test/loss"], rel=1e-3)


def test_listing_of_everything_and_chosen_columns(root, cli):
    rows = table(cli("runs", "--root", str(root)).out)
    assert [row["run"] for row in rows] == ["a", "b", "c", "failed", "sweep-x/0"]
    assert [row["status"] for row in rows].count("failed") == 1
    rows = table(cli("runs", "--root", str(root), "--keys", "model.width", "--metrics", "val/loss").out)
    assert list(rows[0]) == ["run", "status", "started", "seconds", "model.width", "val/loss"]


@pytest.mark.parametrize(("sort", "reverse"), [("val/loss", False), ("-val/loss", True)])
def test_sorted_by_a_metric(sort, reverse, root, cli):
    shown = cli("runs", "example", "--root", str(root), f"--sort={sort}")
    order = [row["run"] for row in table(shown.out)]
    metric = {name: load_run(root / name).metrics["val/loss"] for name in "abc"}
    assert order == [*sorted(metric, key=metric.get, reverse=reverse), "failed"]  # it has no such metric


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--sort", "val/lss"], "Did you mean 'val/loss'?"),
        (["--metrics", "tset/loss"], "Did you mean 'test/loss'?"),
        (["--keys", "model.widht"], "Did you mean 'model.width'?"),
        (["nothing"], "No run below"),
        (["--status", "running"], "No run below"),
    ],
)
def test_bad_requests(argv, says, root, cli):
    refused = cli("runs", *argv, "--root", str(root))
    assert refused.status == 1 and says in refused.err


def test_no_runs_folder(cli):
    refused = cli("runs")
    assert refused.status == 1 and "no folder runs" in refused.err


def test_resolved_config_of_a_run_is_complete_and_plain(root):
    text = (root / "a" / "config.yaml").read_text()
    assert "${" not in text
    config = yaml.safe_load(text)
    assert config["paths"]["run"] == str(root / "a") and config["fast"] is True
    assert yaml.safe_load((root / "a" / "overrides.yaml").read_text())[:2] == ["experiment=toy/example", "debug=fast"]
