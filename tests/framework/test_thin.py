"""Help, listings and config errors answer without torch or anything else that is slow to load."""

from __future__ import annotations

import json
import sys

import pytest

HEAVY = ["torch", "pytorch_lightning", "lightning", "lightning_fabric", "numpy", "pandas", "scipy", "sklearn"]
HEAVY += ["matplotlib", "wandb", "pooch", "tqdm", "psutil", "IPython"]

CODE = """
import json, sys
from framework.__main__ import main
out = {}
for argv in json.loads(sys.argv[1]):
    try:
        status = main(argv)
    except SystemExit as exit:
        status = exit.code or 0
    out[" ".join(argv)] = [status, sorted({name.split(".")[0] for name in sys.modules})]
sys.stdout.flush()
print("\\n" + json.dumps(out))
"""

CASES = {
    "--help": 0,
    "": 0,
    "plugins": 0,
    "plugins --help": 0,
    "experiments": 0,
    "experiments toy": 0,
    "nonsense": 1,
    "show --help": 0,
    "show toy/example model.width=3": 0,
    "show toy/exampel": 1,
    "resume nowhere": 1,
    "runs --root nowhere": 1,
    "+experiment=toy/exampel": 1,
    "+experiment=toy/example model.wdth=3": 1,
    "+experiment=toy/example seed=x": 1,
    "-m +experiment=toy/example model.wdth=3,4": 1,
    "+experiment=toy/example --cfg job": 0,
}


@pytest.fixture(scope="module")
def answers(shared_plugin, tmp_path_factory):
    argv = [case.split() for case in CASES]
    done = shared_plugin.python("-c", CODE, json.dumps(argv), cwd=tmp_path_factory.mktemp("work"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_answers_without_heavy_imports(case, answers):
    status, loaded = answers[case]
    assert status == CASES[case] or case.startswith("plugins")  # which is 1 where some other plugin is broken
    assert not set(HEAVY) & set(loaded)


def test_help_and_listings_do_not_even_import_hydra(answers):
    for case in ("--help", "", "plugins", "experiments", "nonsense"):
        assert "hydra" not in answers[case][1]
    assert "hydra" in answers["show toy/example model.width=3"][1]


def test_the_package_itself_imports_only_the_standard_library(shared_plugin):
    code = "import sys; before = set(sys.modules); import framework; print(*set(sys.modules) - before)"
    loaded = {name.split(".")[0] for name in shared_plugin.python("-c", code).stdout.split()}
    assert loaded - set(sys.stdlib_module_names) == {"framework"}


def test_every_public_name_is_there_lazily(plugin):
    import framework

    for name in framework.__all__:
        assert getattr(framework, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'load_runs'"):
        framework.load_runs  # noqa: B018


def test_help_names_every_command_and_how_to_launch(cli):
    from framework.__main__ import VERBS

    shown = cli("--help")
    assert shown.status == 0
    for verb in VERBS:
        assert f"  {verb} " in shown.out
    assert "+experiment=" in shown.out
    assert cli("help").out == cli().out == shown.out


def test_misspelt_command_names_the_nearest(cli):
    refused = cli("experimnts")
    assert refused.status == 1 and "Did you mean 'experiments'?" in refused.err
