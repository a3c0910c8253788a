"""The built-in plugins keep the contract that any plugin can be held to."""

import ast
import os
from pathlib import Path

import pytest

from framework import plugins, testing

BUILT_IN = [plugin.name for plugin in plugins.discover() if plugin.package.startswith("plugins.")]
EXPERIMENTS = [name for plugin in BUILT_IN for name in testing.experiments(plugin)]


def test_all_built_in_plugins_are_found_healthy():
    assert {"equivariant", "generative", "liegroups", "motion", "state_space"} <= set(BUILT_IN)
    assert not [p for p in plugins.discover() if p.package.startswith("plugins.") and p.problem]


@pytest.mark.parametrize("plugin", BUILT_IN)
def test_every_option_stands_under_the_plugin_s_name(plugin):
    assert testing.misplaced(plugin) == []


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_contract(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRAMEWORK_DATA", os.environ.get("FRAMEWORK_DATA", str(tmp_path / "data")))
    try:
        testing.hold(experiment, tmp_path)
    except testing.DataMissing as missing:
        pytest.skip(str(missing).splitlines()[0])


@pytest.mark.parametrize("plugin", BUILT_IN)
def test_mathematics_knows_nothing_of_hydra_or_lightning(plugin):
    """Only the wiring (modules, data, studies, figures) may import the framework, Lightning or Hydra."""
    (found,) = [p for p in plugins.discover() if p.name == plugin]
    wiring = ("modules", "data", "studies", "figures", "tasks", "ema", "calculator")
    for path in sorted(found.location.rglob("*.py")):
        first = path.relative_to(found.location).parts[0].removesuffix(".py")
        if first.startswith(wiring):
            continue
        for node in ast.walk(ast.parse(Path(path).read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in ("framework", "pytorch_lightning", "hydra", "omegaconf"), (
                    f"{path}: {name}"
                )


def test_the_core_names_no_plugin():
    root = Path(testing.__file__).parent
    for path in root.rglob("*.py"):
        for name in BUILT_IN:
            assert f"plugins.{name}" not in path.read_text(), path
