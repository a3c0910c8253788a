"""One function turns a config into objects, and only trusted names become code."""

from __future__ import annotations

import functools

import pytest

from framework.build import TRUSTED, build, locate, targets, trusted_prefixes, untrusted

THINGS = """
import os
from dataclasses import dataclass
from os import makedirs
from subprocess import run as launch

import torch
from torch import nn

import framework.record


@dataclass
class Keeps:
    a: object = None
    b: object = None


class Made:
    def __init__(self, how):
        self.how = how

    @classmethod
    def by_class(cls, how):
        return cls(f"class {how}")


def squared(x):
    return x * x


borrowed = makedirs
"""


@pytest.fixture
def toy(plugin):
    plugin.write("things.py", THINGS)
    return plugin


def test_null_builds_nothing():
    assert build(None) is None


def test_nested_targets_and_plain_containers(toy):
    node = {
        "_target_": "toy.things.Keeps",
        "a": {"x": [1, {"y": 2}], "made": {"_target_": "toy.things.Made", "how": "deep"}},
        "b": [{"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}, 4],
    }
    built = build(node)
    assert type(built.a) is dict and type(built.a["x"]) is list and type(built.a["x"][1]) is dict
    assert built.a["x"] == [1, {"y": 2}] and built.a["made"].how == "deep"
    assert type(built.b) is list and built.b[0].weight.shape == (3, 2) and built.b[1] == 4


def test_partial_waits_for_the_rest(toy):
    built = build({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5})
    assert isinstance(built, functools.partial)
    parameter = build({"_target_": "torch.nn.Parameter", "_partial_": True})
    import torch

    optimizer = built([parameter(torch.zeros(2))])
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["lr"] == 0.5


def test_arguments_given_in_code_win(toy):
    assert build({"_target_": "toy.things.Keeps", "a": 1, "b": 2}, b=3, a=1).b == 3


def test_positional_arguments_class_methods_and_functions(toy):
    built = build({"_target_": "toy.things.Made.by_class", "_args_": ["x"]})
    assert built.how == "class x"
    assert build({"_target_": "toy.things.squared", "x": 4}) == 16


def test_the_config_is_not_changed_by_building(toy):
    node = {"_target_": "toy.things.Keeps", "a": {"x": [1]}}
    build(node).a["x"].append(2)
    assert node == {"_target_": "toy.things.Keeps", "a": {"x": [1]}}


@pytest.mark.parametrize(
    "name",
    [
        "builtins.open",
        "builtins.eval",
        "os.makedirs",
        "os.system",
        "subprocess.run",
        "shutil.rmtree",
        "torch.utils.collect_env.run",
        "torch.load",
        "torch.hub.load",
        "hydra.utils.instantiate",
        "frameworkx.build",
        "torch.nnx.Linear",
        "pickle.loads",
    ],
)
def test_names_outside_the_trusted_packages_are_refused_before_import(name, monkeypatch):
    import importlib

    def fail(*_):
        raise AssertionError("imported before it was refused")

    monkeypatch.setattr(importlib, "import_module", fail)
    assert f"{name!r} is not from a trusted package" in untrusted(name)
    with pytest.raises(PermissionError, match="not from a trusted package"):
        locate(name)


@pytest.mark.parametrize(
    "name",
    [
        "framework.record.os.makedirs",
        "framework.record.subprocess.run",
        "framework.plugins.importlib.import_module",
        "torch.nn.modules.module.torch.utils.collect_env.run",
        "pytorch_lightning.trainer.trainer.os.makedirs",
        "toy.things.os.makedirs",
        "toy.things.makedirs",
        "toy.things.borrowed",
        "toy.things.launch",
        "toy.things.torch.load",
        "toy.things.framework.record.os.remove",
        "toy.things.Made.__init__.__globals__.get",
        "toy.things.Made.__class__",
        "toy.things.squared.__globals__.pop",
        "toy.things.Made.__subclasses__",
        "toy.things.squared.__builtins__.get",
        "toy.things.os.environ.clear",
        "toy.things.os.environ._data.clear",
        "toy.things.os.sys.modules.clear",
        "toy.things.os.sys.stdout.write",
    ],
)
def test_re_exports_of_the_trusted_packages_do_not_open_a_door(name, toy):
    with pytest.raises((PermissionError, ImportError)):
        locate(name)


def test_an_untrusted_target_anywhere_inside_stops_everything_before_anything_is_built(toy, tmp_path):
    """The outer object is trusted and its first argument would be built first."""
    path = tmp_path / "made"
    node = {
        "_target_": "toy.things.Keeps",
        "a": {"_target_": "toy.things.Made", "how": 1},
        "b": [{"x": {"_target_": "os.makedirs", "name": str(path)}}],
    }
    with pytest.raises(PermissionError, match="os.makedirs"):
        build(node)
    assert not path.exists()


@pytest.mark.parametrize("argument", ["_args_", "a"])
def test_a_target_among_the_arguments_is_refused(argument, toy, tmp_path):
    inner = {"_target_": "os.makedirs", "name": str(tmp_path / "made")}
    node = {"_target_": "toy.things.Keeps", argument: [inner]}
    with pytest.raises(PermissionError):
        build(node)
    assert not (tmp_path / "made").exists()


def test_a_text_cannot_smuggle_an_interpolation_into_a_target(toy, tmp_path):
    """What is built are plain containers, resolved before they were checked; building resolves nothing again."""
    node = {
        "_target_": "toy.things.Keeps",
        "a": {"_target_": "${b}", "name": str(tmp_path / "made")},
        "b": "os.makedirs",
    }
    with pytest.raises(PermissionError):
        build(node)
    with pytest.raises(ImportError):
        build({"_target_": "toy.things.${x}", "x": "os.makedirs"})
    assert not (tmp_path / "made").exists()


def test_arguments_given_in_code_are_passed_on_as_they_are(toy):
    given = {"_target_": "os.makedirs", "name": "made"}
    assert build({"_target_": "toy.things.Keeps"}, a=given).a is given


def test_a_text_that_looks_like_an_interpolation_stays_a_text(toy):
    """It was escaped in the YAML, and resolving has removed the escape."""
    assert build({"_target_": "toy.things.Keeps", "a": "${b}", "b": "???"}).a == "${b}"


def test_not_recursive_hands_the_inner_nodes_over(toy):
    node = {"_target_": "toy.things.Keeps", "_recursive_": False, "a": {"_target_": "toy.things.Made", "how": 1}}
    built = build(node)
    assert built.a == node["a"] and built.a is not node["a"]
    refused = {"_target_": "toy.things.Keeps", "_recursive_": False, "a": {"_target_": "os.makedirs"}}
    with pytest.raises(PermissionError):
        build(refused)


def test_an_error_of_a_constructor_comes_out_as_it_is(toy):
    with pytest.raises(TypeError, match="how") as caught:
        build({"_target_": "toy.things.Keeps", "a": {"_target_": "toy.things.Made"}})
    assert caught.value.__notes__ == ["while building toy.things.Made"]


@pytest.mark.parametrize(
    "name",
    [
        "torch.nn.Linear",
        "torch.nn.functional.relu",
        "torch.nn.functional.conv2d",
        "torch.nn.functional.scaled_dot_product_attention",
        "torch.nn.Parameter",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "torch.utils.data.DataLoader",
        "pytorch_lightning.callbacks.ModelCheckpoint",
        "pytorch_lightning.loggers.CSVLogger",
        "framework.loggers.CSV",
        "toy.things.Made",
        "toy.things.nn.Linear",
    ],
)
def test_what_experiments_are_made_of_is_located(name, toy):
    assert callable(locate(name))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("toy.things.Mad", "'toy.things' has no 'Mad'.*Did you mean 'Made'"),
        ("toy.thigns.Made", "'toy' has no 'thigns'"),
        ("torch.nn.Liner", "Did you mean 'Linear'"),
    ],
)
def test_what_does_not_exist(name, says, toy):
    with pytest.raises(ImportError, match=says):
        locate(name)


def test_a_missing_dependency_of_the_module_is_named_itself(toy):
    toy.write("needs.py", "import not_installed_here\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_here"):
        locate("toy.needs.Thing")


def test_trust_is_the_core_the_plugins_and_what_they_declare(toy):
    assert set(TRUSTED) < set(trusted_prefixes()) and "toy" in trusted_prefixes()
    assert "string" not in trusted_prefixes() and untrusted("string.Template")
    toy.write("plugin.yaml", "trusted: [string]\n")
    assert (
        not untrusted("string.Template") and build({"_target_": "string.Template", "template": "$a"}).template == "$a"
    )


def test_targets_are_found_with_their_keys():
    node = {"a": [{"_target_": "x", "b": {"_target_": "y"}}], "_target_": "z"}
    assert [(key, found["_target_"]) for key, found in targets(node)] == [("", "z"), ("a[0]", "x"), ("a[0].b", "y")]
