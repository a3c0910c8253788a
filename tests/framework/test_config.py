"""Composition: which value wins, what a command line may say, and where each value came from."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from framework import config, testing
from framework.config import Composed, compose, first_of_sweep, leaves, normalise
from framework.errors import UserError


def value(overrides: list[str], key: str):
    return OmegaConf.select(compose(overrides).config, key)


def test_later_layers_win(plugin):
    """The core's default < the trainer's option < the experiment < debug < the command line."""
    plugin.experiment("layers", "trainer: {max_epochs: 7, limit_val_batches: 9}\nseed: 4\n")
    assert value([], "trainer.max_epochs") == 10 and value([], "seed") == 0
    assert value(["experiment=toy/layers"], "trainer.max_epochs") == 7
    assert value(["experiment=toy/layers"], "seed") == 4
    assert value(["experiment=toy/layers", "debug=fast"], "trainer.max_epochs") == 1
    assert value(["debug=fast", "experiment=toy/layers"], "trainer.limit_val_batches") == 2
    assert value(["experiment=toy/layers", "debug=fast", "trainer.max_epochs=3"], "trainer.max_epochs") == 3
    assert value(["trainer.max_epochs=3", "debug=fast", "experiment=toy/layers"], "trainer.max_epochs") == 3


def test_plus_before_experiment_means_nothing(plugin):
    assert normalise(["+experiment=a/b", "++experiment=a/b", "+x=1"]) == ["experiment=a/b", "experiment=a/b", "+x=1"]
    with_plus, without = compose(["+experiment=toy/example"]), compose(["experiment=toy/example"])
    assert with_plus.config.model == without.config.model


def test_an_experiment_is_made_of_parts_and_may_build_on_another(plugin):
    plugin.write("conf/model/toy/wide.yaml", "defaults: [toy/line@_here_]\nwidth: 64\n")
    plugin.write(
        "conf/experiment/toy/wide.yaml",
        """
        # @package _global_
        defaults:
          - toy/example
          - override /model: toy/wide
          - override /trainer: ddp_cpu
        description: Wide.
        """,
    )
    composed = compose(["experiment=toy/wide"]).config
    assert composed.model.width == 64 and composed.model.optimizer.lr == 0.01
    assert composed.trainer.strategy == "ddp" and composed.trainer.devices == 2
    assert composed.trainer.max_epochs == 2, "the base's own values stay"
    assert composed.description == "Wide." and composed.data.count == 32
    assert value(["experiment=toy/wide", "trainer=gpu"], "trainer.accelerator") == "gpu"
    assert value(["experiment=toy/wide", "model=toy/line"], "model.width") == 4


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("trainer=cpu", {"trainer.accelerator": "cpu", "trainer.devices": 1}),
        ("trainer=gpu", {"trainer.accelerator": "gpu", "trainer.devices": 1}),
        ("trainer=ddp", {"trainer.accelerator": "gpu", "trainer.strategy": "ddp", "trainer.devices": 2}),
        ("trainer=ddp_cpu", {"trainer.accelerator": "cpu", "trainer.strategy": "ddp", "trainer.devices": 2}),
        ("trainer=fsdp", {"trainer.strategy": "fsdp", "trainer.precision": "bf16-mixed"}),
        ("logger=csv", {"logger.csv._target_": "framework.loggers.CSV"}),
        (
            "logger=tensorboard",
            {"logger.tensorboard.name": "tensorboard", "logger.csv._target_": "framework.loggers.CSV"},
        ),
        ("logger=wandb", {"logger.wandb.offline": True, "logger.csv._target_": "framework.loggers.CSV"}),
        ("logger=several", {"logger.wandb.offline": True, "logger.tensorboard.name": "tensorboard"}),
        ("callbacks=none", {"callbacks": {}}),
        ("callbacks=default", {"callbacks.checkpoint.save_last": True}),
        ("debug=fast", {"fast": True, "trainer.limit_train_batches": 2, "trainer.limit_test_batches": 2}),
        ("debug=overfit", {"trainer.overfit_batches": 3}),
        ("debug=profile", {"trainer.profiler.filename": "profile"}),
        ("sweep=seeds", {"hydra.sweeper.params.seed": "0,1,2", "hydra.mode": "MULTIRUN"}),
        ("sweep=parallel", {"hydra.launcher.n_jobs": 2}),
        ("sweep=optuna", {"hydra.sweeper.n_trials": 20, "hydra.sweeper.direction": "minimize"}),
    ],
)
def test_every_option_of_the_core_composes(option, expected, plugin):
    composed = compose(["experiment=toy/example", option]).config
    for key, wanted in expected.items():
        found = OmegaConf.select(composed, key)
        assert (getattr(found, "name", None) or found) == wanted
    if not option.startswith("sweep="):
        assert testing.compose("toy/example", (option,))["model"]["width"] == 4


def test_every_option_of_the_core_is_in_the_table_above():
    from framework import plugins

    marks = test_every_option_of_the_core_composes.pytestmark
    tested = {row[0].replace("=", "/") for row in marks[0].args[1]}
    offered = set(plugins.options(plugins.conf_dir())) - {"config", "trainer/default", "paths/default"}
    assert offered == tested


def test_several_options_of_a_group_together(plugin):
    composed = compose(["experiment=toy/example", "logger=[tensorboard,wandb]"]).config
    assert set(composed.logger) == {"csv", "tensorboard", "wandb"}


def test_an_argument_that_no_yaml_mentions_can_be_set(plugin):
    composed = compose(["experiment=toy/example", "model.noise=0.5", "trainer.gradient_clip_val=1.0"])
    assert composed.config.model.noise == 0.5 and composed.config.trainer.gradient_clip_val == 1.0
    assert composed.overrides == ["experiment=toy/example", "+model.noise=0.5", "+trainer.gradient_clip_val=1.0"]


def test_values_keep_their_types(plugin):
    overrides = [
        "+callbacks.x={a: [1, 2.5, true, null, text]}",
        "model.width=7",
        "model.optimizer.lr=1e-3",
        "tags=[a,b]",
    ]
    composed = compose(["experiment=toy/example", *overrides]).config
    assert composed.callbacks.x == {"a": [1, 2.5, True, None, "text"]}
    assert composed.model.width == 7 and composed.model.optimizer.lr == 0.001 and composed.tags == ["a", "b"]


def test_a_value_can_be_deleted(plugin):
    assert "optimizer" not in compose(["experiment=toy/example", "~model.optimizer"]).config.model


def test_first_of_a_sweep():
    overrides = ["a=1,2", "b=choice(x,y)", "c=range(3,6)", "d=[1,2]", "+e=5,6", "f='p,q'", "g=interval(0,1)", "h=3"]
    assert first_of_sweep(overrides) == ["a=1", "b=x", "c=3", "d=[1,2]", "+e=5", "f='p,q'", "h=3"]


def test_unreadable_override_is_quoted():
    with pytest.raises(UserError, match=r"The command line's 'a=\[1' cannot be read"):
        compose(["seed=1", "a=[1"])


def test_leaves_name_every_value_once():
    node = {"a": {"b": 1, "c": {}}, "d": [1, 2], "e": [{"f": 3}, []], "g": None}
    assert list(leaves(node)) == [("a.b", 1), ("a.c", {}), ("d", [1, 2]), ("e[0].f", 3), ("e[1]", []), ("g", None)]


def test_origin_falls_back_to_the_parent_and_to_the_last_child(plugin):
    composed = compose(["experiment=toy/example", "model.width=9"])
    assert composed.origin("model.width") == "the command line"
    assert composed.origin("model.optimizer").endswith("conf/model/toy/line.yaml:6")
    assert composed.origin("model.optimizer.betas[0]").endswith("conf/model/toy/line.yaml:6")
    assert composed.origin("nowhere") == "the composed config"


def test_a_missing_value_does_not_replace_one_that_is_there(plugin):
    plugin.experiment("missing", "model:\n  width: ???\n")
    composed = compose(["experiment=toy/missing"])
    assert composed.config.model.width == 4
    assert composed.origin("model.width").endswith("conf/model/toy/line.yaml:2")


def test_composing_leaves_no_state_behind(plugin):
    from hydra.core.global_hydra import GlobalHydra

    compose(["experiment=toy/example"])
    assert not GlobalHydra.instance().is_initialized()
    with pytest.raises(UserError):
        compose(["experiment=toy/example", "model=toy/none"])
    assert not GlobalHydra.instance().is_initialized()


def test_the_run_folder_is_named_by_the_experiment_the_time_and_an_id(plugin, workplace):
    folders = set()
    for _ in range(3):
        composed = compose(["experiment=toy/example"])
        config.HydraConfig.instance().set_config(composed.config)
        folders.add(OmegaConf.select(composed.config, "hydra.run.dir"))
    assert len(folders) == 3
    for folder in folders:
        assert re.fullmatch(r"runs/toy/example/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-[0-9a-f]{6}", folder)


def test_task_config_is_closed_and_without_hydra(plugin):
    task = config.task_config(compose(["experiment=toy/example"]).config)
    assert "hydra" not in task
    with pytest.raises(Exception, match="not in struct"):
        task.nonsense = 1


def test_composed_is_plain_to_make(plugin):
    assert Composed(OmegaConf.create({"a": 1}), []).origin("a") == "the composed config"
