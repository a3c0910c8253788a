"""Discovery never executes a plugin; a broken one spoils its own experiments, says so, and nothing else."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys

import pytest

from framework import plugins, testing
from framework.errors import UserError


def delete_conf(plugin):
    shutil.rmtree(plugin.path("conf"))


def delete_package(plugin):
    shutil.rmtree(plugin.root / plugin.name)


def need_other_version(plugin):
    plugin.metadata("torch>=2", "framework>=7", "extra-thing; extra == 'dev'")


# what is wrong -> how it is done, a part of the sentence that says so, and whether finding out takes an import
BROKEN = {
    "ImportError": (lambda p: p.write("__init__.py", "import no_such_thing"), "no_such_thing", True),
    "SyntaxError": (lambda p: p.write("__init__.py", "def torn(:"), "SyntaxError", True),
    "RuntimeError": (lambda p: p.write("__init__.py", "raise RuntimeError('no licence')"), "no licence", True),
    "SystemExit": (lambda p: p.write("__init__.py", "import sys; sys.exit(3)"), "SystemExit: 3", True),
    "os._exit": (lambda p: p.write("__init__.py", "import os; os._exit(5)"), "ended the interpreter (exit 5)", True),
    "no conf": (delete_conf, "no conf folder at ", False),
    "no package": (delete_package, "'bad' is not installed", False),
    "other framework": (need_other_version, "needs framework>=7, and", False),
    "no YAML": (lambda p: p.write("plugin.yaml", "trusted: [a"), "plugin.yaml cannot be read", False),
    "unknown key": (lambda p: p.write("plugin.yaml", "trustd: [a]"), "Did you mean 'trusted'?", False),
    "not a list": (lambda p: p.write("plugin.yaml", "trusted: numpy"), "list of package names", False),
    "not a mapping": (lambda p: p.write("plugin.yaml", "- numpy"), "plugin.yaml cannot be read", False),
    "torn metadata": (lambda p: p.metadata("framework>=="), "requirement", False),
}


def block(out: str, name: str) -> str:
    """What ``plugins`` prints about one plugin."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{name} "))
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith("    ")), len(lines))
    return "\n".join(lines[start:end])


@pytest.mark.parametrize("what", BROKEN)
def test_broken_plugin_is_named_and_spoils_nothing_else(what, install, cli):
    spoil, says, by_import = BROKEN[what]
    good, bad = install("good"), install("bad")
    spoil(bad)

    listed = cli("plugins")
    assert listed.status == 1
    assert "BROKEN" in block(listed.out, "bad") and says in block(listed.out, "bad")
    assert block(listed.out, "good").splitlines()[0] == "good  framework-good 0.1  1 experiments  ok"
    assert str(good.path("")).rstrip("/") in block(listed.out, "good")
    assert "bad" not in sys.modules, "discovery executed the plugin in this process"

    shown = cli("experiments", "good")
    assert shown.status == 0 and "good/example  A line through points." in shown.out
    composed = testing.compose("good/example")
    assert composed["model"]["width"] == 4

    if not by_import:
        refused = cli("+experiment=bad/example")
        assert refused.status == 1 and "Traceback" not in refused.err
        assert "'bad/example' belongs to the plugin 'bad', which is broken: " in refused.err and says in refused.err
        assert "bad" in cli("experiments").err


@pytest.mark.parametrize("what", ["ImportError", "SyntaxError", "RuntimeError", "SystemExit"])
def test_experiment_of_a_plugin_that_cannot_be_imported(what, install, cli, workplace):
    """Its configs are found, so the error comes from the preflight: it names the key, the file and the cause."""
    bad = install("bad")
    BROKEN[what][0](bad)
    refused = cli("+experiment=bad/example")
    assert refused.status == 1 and not list(workplace.iterdir())
    assert "model._target_" in refused.err and "line.yaml:1" in refused.err
    assert "'bad.modules.Line' cannot be imported" in refused.err and BROKEN[what][1].split(":")[0] in refused.err


def test_good_experiment_runs_beside_a_broken_plugin(install, cli):
    install("good")
    delete_conf(install("bad"))
    done = cli("+experiment=good/example", "debug=fast")
    assert done.status == 0, done.err
    assert "test/loss" in done.out


def test_healthy_plugins_exit_with_zero(plugin, cli, monkeypatch):
    only_here = importlib.metadata.distributions(path=[str(plugin.root)])
    monkeypatch.setattr(plugins, "distributions", lambda: only_here)
    listed = cli("plugins")
    assert listed.status == 0, listed.out
    assert listed.out.startswith("toy  framework-toy 0.1  1 experiments  ok\n")


def test_no_plugin_at_all(cli, monkeypatch):
    monkeypatch.setattr(plugins, "distributions", lambda: ())
    plugins.discover.cache_clear()
    try:
        listed = cli("plugins")
        assert listed.status == 0 and "No plugin is installed" in listed.out
        assert "No healthy plugin" in cli("experiments").out
    finally:
        plugins.discover.cache_clear()


def test_two_packages_of_one_name(install, cli):
    install("good")
    other = install("other")
    other.metadata(entry_points="[framework.plugins]\ngood = other\n")
    listed = cli("plugins")
    assert listed.status == 1
    assert "also taken by the package 'other'" in listed.out and "also taken by the package 'good'" in listed.out
    refused = cli("+experiment=good/example")
    assert refused.status == 1 and "which is broken: the name 'good' is also taken" in refused.err


def test_option_offered_twice_names_both_owners(install, cli):
    install("one")
    two = install("two")
    two.write("conf/model/one/line.yaml", "_target_: two.modules.Line\n")
    two.write("conf/experiment/one/example.yaml", "# @package _global_\ndescription: Another.\n")
    listed = cli("plugins")
    assert listed.status == 1
    for name in ("one", "two"):
        assert "offered by" in block(listed.out, name) and "plugin 'one' and by plugin 'two'" in block(listed.out, name)
    refused = cli("+experiment=one/example")
    assert refused.status == 1
    assert "offered by plugin 'one' and by plugin 'two'" in refused.err


@pytest.mark.parametrize("option", ["model/one/line", "trainer/cpu"])
def test_clash_below_an_experiment_is_an_error_of_that_experiment(option, install, cli, workplace):
    """The option that Hydra would silently take from the first owner is part of the composed config."""
    install("one")
    two = install("two")
    two.write(f"conf/{option}.yaml", "max_epochs: 1\n")
    refused = cli("+experiment=one/example")
    assert refused.status == 1 and not list(workplace.iterdir())
    assert repr(option) in refused.err and "plugin 'two'" in refused.err
    if option.startswith("model/one"):  # the other plugin does not use it
        assert cli("show", "two/example").status == 0


def test_option_outside_the_plugins_own_name_is_found_by_the_contract(plugin, cli):
    plugin.write("conf/model/other/line.yaml", "_target_: toy.modules.Line\n")
    plugin.write("conf/experiment/stray.yaml", "# @package _global_\ndescription: Stray.\n")
    assert testing.misplaced("toy") == ["experiment/stray", "model/other/line"]


def test_experiments_lists_descriptions_and_filters(plugin, cli):
    plugin.experiment("second", 'description: "Another: with a colon"\n')
    plugin.experiment("deep/third", "seed: 1\n", base=None)
    out = cli("experiments", "toy/").out.splitlines()
    assert out == [
        "toy/deep/third  (no description)",
        "toy/example     A line through points.",
        "toy/second      Another: with a colon",
    ]
    assert cli("experiments", "second").out.splitlines() == ["toy/second  Another: with a colon"]
    missing = cli("experiments", "toy/exmple")
    assert missing.status == 1 and "Did you mean 'toy/example'?" in missing.err


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("description: 'It''s: quoted'\n", "It's: quoted"),
        ("description: plain  # with a comment\n", "plain"),
        ("description: >-\n  folded\n  over lines\n", "folded over lines"),
        ("description: '# in quotes'\n", "# in quotes"),
        ("description: ''\n", ""),
        ("torn: [", ""),
        ("model: {description: no}\n", ""),
    ],
)
def test_description_is_read_as_yaml_reads_it(text, description, plugin):
    plugin.experiment("one", text)
    assert plugins.description(plugin.path("conf/experiment/toy/one.yaml")) == description


def origins(out: str) -> dict[str, str]:
    pairs = (line.split("  # ") for line in out.splitlines())
    return {value.split(":")[0].strip(): origin.strip() for value, origin in pairs}


def test_show_names_the_file_and_line_of_each_value(plugin, cli):
    shown = cli("show", "toy/example", "model.width=7", "+model.noise=0.5", "trainer=ddp_cpu", "debug=fast")
    assert shown.status == 0
    found = origins(shown.out)
    assert found["model._target_"] == "toy: model/toy/line.yaml:1"
    assert found["model.optimizer.lr"] == "toy: model/toy/line.yaml:6"
    assert found["model.width"] == "the command line"
    assert found["model.noise"] == "the command line"
    assert found["data.batch_size"] == "toy: data/toy/points.yaml:3"
    assert found["trainer.strategy"] == "core: trainer/ddp_cpu.yaml:4"
    assert found["trainer.devices"] == "core: trainer/ddp_cpu.yaml:3"
    assert found["trainer.max_epochs"].startswith("core: debug/fast.yaml:")
    assert found["trainer.accelerator"].startswith("core: trainer/default.yaml:")
    assert found["description"] == "toy: experiment/toy/example.yaml:6"
    assert found["seed"].startswith("core: config.yaml:")
    assert "model.width: 7 " in shown.out and "optimized_metric: val/loss" in shown.out


def test_origin_of_a_mapping_given_on_the_command_line(plugin):
    from framework.config import compose

    composed = compose(["experiment=toy/example", "model.optimizer={lr: 3}"])
    assert composed.origin("model.optimizer.lr") == "the command line"
    assert composed.origin("model.optimizer._target_").endswith("line.yaml:4")


def test_show_of_what_does_not_exist(plugin, cli):
    shown = cli("show", "toy/exampel")
    assert shown.status == 1 and "Did you mean 'toy/example'?" in shown.err


def test_declared_trust_opens_exactly_the_declared_packages(plugin, cli):
    plugin.experiment(
        "declared", "callbacks: {c: {_target_: collections.abc.Callable}, d: {_target_: string.Template}}"
    )
    refused = cli("+experiment=toy/declared")
    assert "'collections.abc.Callable' is not from" in refused.err and "'string.Template' is not from" in refused.err
    plugin.write("plugin.yaml", "trusted: [string]\n")
    refused = cli("+experiment=toy/declared")
    assert "'collections.abc.Callable' is not from" in refused.err and "'string.Template' is not" not in refused.err
    plugin.write("plugin.yaml", "trusted: [strin]\n")
    assert "'string.Template' is not from" in cli("+experiment=toy/declared").err


def test_contract_helper_names_unknown_and_broken_plugins(install):
    delete_conf(install("bad"))
    with pytest.raises(UserError, match="Did you mean 'bad'"):
        testing.experiments("badd")
    with pytest.raises(UserError, match="'bad' is broken: it has no conf folder"):
        testing.experiments("bad")


def test_plugin_inside_a_package_is_found_without_executing_the_parent(plugin):
    """``plugins.generative`` is such a one; find_spec would execute the parent package."""
    plugin.write("__init__.py", "raise RuntimeError('executed')")
    plugin.write("inner/__init__.py", "")
    plugin.write("inner/conf/experiment/inner/one.yaml", "# @package _global_\ndescription: Inner.\n")
    plugin.metadata(entry_points="[framework.plugins]\ninner = toy.inner\n")
    assert {p.name: p.problem for p in plugins.discover()}["inner"] == ""
    assert "inner/one" in plugins.experiments()


def test_new_files_of_a_plugin_are_seen_by_a_child_process(plugin, tmp_path):
    done = plugin.python("-m", "framework", "experiments", "toy/", cwd=tmp_path)
    assert done.stdout == "toy/example  A line through points.\n" and done.returncode == 0
