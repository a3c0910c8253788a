"""Bad input ends before anything is made or trained, with the file, the key and the nearest valid name."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

LINE = "the command line"


@dataclass
class Bad:
    """A bad input: what is typed, or what stands in ``bad.yaml`` on top of the example, and what must be said."""

    what: str
    says: list[str]
    yaml: str = ""
    overrides: list[str] = field(default_factory=list)
    experiment: str = "toy/bad"
    needs_import: bool = False  # only the class itself can tell, so torch is loaded

    @property
    def argv(self) -> list[str]:
        return [*([f"+experiment={self.experiment}"] if self.experiment else []), *self.overrides]


def typed(what: str, *overrides: str, says: list[str], **rest) -> Bad:
    return Bad(what, says, overrides=list(overrides), experiment=rest.pop("experiment", "toy/example"), **rest)


def written(what: str, yaml: str, says: list[str], **rest) -> Bad:
    return Bad(what, says, yaml=yaml, **rest)


TABLE = [
    # --- misspelt keys
    typed(
        "misspelt key on the command line",
        "model.wdth=8",
        says=["command line", "'model.wdth'", "Did you mean 'model.width'?"],
    ),
    typed(
        "misspelt top-level key on the command line",
        "sed=1",
        says=["command line", "'sed'", "Did you mean 'seed'?"],
    ),
    typed(
        "misspelt key of the trainer on the command line",
        "trainer.max_epoch=1",
        says=["command line", "'trainer.max_epoch'", "Did you mean 'trainer.max_epochs'?"],
    ),
    typed(
        "added key that nothing takes",
        "+model.depht=1",
        says=["model.depht (the command line)", "no argument of toy.modules.Line", "Choose from", "width"],
    ),
    typed(
        "deleted key that is not there",
        "~model.wdth",
        says=["command line", "'model.wdth'", "Did you mean 'model.width'?"],
    ),
    written("misspelt top-level key", "seeed: 3", ["bad.yaml:4", "seeed", "Did you mean 'seed'?"]),
    written("misspelt group as a key", "trainr: {max_epochs: 3}", ["bad.yaml:4", "trainr", "Did you mean 'trainer'?"]),
    written(
        "misspelt argument of a _target_",
        "model: {wdth: 3}",
        ["model.wdth", "bad.yaml:4", "no argument of toy.modules.Line", "Did you mean 'width'?"],
    ),
    written(
        "misspelt argument of a nested _target_",
        "model: {optimizer: {weight_decays: 0.1}}",
        ["model.optimizer.weight_decays", "bad.yaml:4", "torch.optim.AdamW", "Did you mean 'weight_decay'?"],
    ),
    written(
        "misspelt argument two _target_s deep, in a list",
        """
        # @package _global_
        description: Bad.
        model:
          _target_: torch.nn.Sequential
          _args_:
            - _target_: torch.nn.Sequential
              _args_:
                - _target_: torch.nn.Linear
                  in_feature: 2
                  out_features: 3
        """,
        ["model._args_[0]._args_[0].in_feature", "bad.yaml:9", "torch.nn.Linear", "Did you mean 'in_features'?"],
    ),
    written(
        "misspelt argument of the trainer",
        "trainer: {gradient_clip: 1.0}",
        ["trainer.gradient_clip", "bad.yaml:4", "Did you mean 'gradient_clip_val'?"],
    ),
    written(
        "misspelt argument of a callback",
        "callbacks: {checkpoint: {moniter: val/loss}}",
        ["callbacks.checkpoint.moniter", "bad.yaml:4", "Did you mean 'monitor'?"],
    ),
    written(
        "misspelt _target_ key",
        "data: {_target: toy.data.Points}",
        ["data._target ", "bad.yaml:4", "Did you mean '_target_'?"],
    ),
    written("misspelt key of paths", "paths: {dta: /x}", ["paths.dta", "bad.yaml:4", "Did you mean 'data'?"]),
    written("own key that nothing refers to", "colour: red", ["colour", "bad.yaml:4", "${colour}"]),
    # --- names of options
    typed("unknown experiment", experiment="toy/exmple", says=["'toy/exmple'", "Did you mean 'toy/example'?"]),
    typed("unknown option of a group", "trainer=cpx", says=["command line", "'trainer/cpx'", "Did you mean 'cpu'?"]),
    typed("unknown group", "tranier=cpu", says=["command line", "'tranier'", "Did you mean 'trainer'?"]),
    typed("unknown added group", "+tranier=cpu", says=["tranier (the command line)", "Did you mean 'trainer'?"]),
    written(
        "unknown option in the defaults of an experiment",
        "# @package _global_\ndefaults: [/model: toy/lime]\ndescription: Bad.",
        ["bad.yaml", "'model/toy/lime'", "Did you mean 'toy/line'?"],
    ),
    written(
        "unknown base in the defaults of an experiment",
        "# @package _global_\ndefaults: [toy/exampel]\ndescription: Bad.",
        ["bad.yaml", "'experiment/toy/exampel'", "Did you mean 'toy/example'?"],
    ),
    # --- targets
    written(
        "_target_ in a module that does not exist",
        "model: {_target_: toy.modlues.Line}",
        ["model._target_", "bad.yaml:4", "'toy.modlues.Line'", "Did you mean 'modules'?"],
    ),
    written(
        "_target_ that the module does not define",
        "model: {_target_: toy.modules.Lien}",
        ["model._target_", "bad.yaml:4", "'toy.modules.Lien'", "Did you mean 'Line'?"],
    ),
    written(
        "_target_ in a misspelt trusted package",
        "model: {_target_: torch.optm.SGD}",
        ["model._target_", "bad.yaml:4", "'torch.optm.SGD'", "Did you mean 'torch.optim'?"],
    ),
    written(
        "_target_ in a package that is not installed",
        "model: {_target_: nowhere.Line}",
        ["model._target_", "bad.yaml:4", "'nowhere.Line'", "not from a trusted package"],
    ),
    written(
        "_target_ that is no name", "model: {_target_: 3}", ["model._target_", "bad.yaml:4", "must be a dotted name"]
    ),
    written(
        "_target_ in a module with a syntax error",
        "model: {_target_: toy.torn.Line}",
        ["model._target_", "bad.yaml:4", "SyntaxError", "torn.py", "line 2"],
    ),
    written(
        "_target_ in a module that fails to import",
        "model: {_target_: toy.failing.Line}",
        ["model._target_", "bad.yaml:4", "cannot be imported", "ZeroDivisionError"],
        needs_import=True,
    ),
    written(
        "_target_ that cannot be called",
        "model: {_target_: toy.constants.WIDTH, width: null, optimizer: null}",
        ["model._target_", "bad.yaml:4", "cannot be called"],
        needs_import=True,
    ),
    written(
        "module for a _target_",
        "model: {_target_: toy.modules}",
        ["model._target_", "bad.yaml:4", "'toy.modules'", "is a module"],
    ),
    written(
        "missing argument of a _target_",
        "model: {_target_: torch.nn.Linear, in_features: 2}\n",
        ["model (", "bad.yaml:4", "torch.nn.Linear needs the argument 'out_features'"],
    ),
    # --- values
    written(
        "unresolved interpolation",
        "model: {width: '${widht}'}\nwidth: 3",
        ["model.width", "bad.yaml:4", "'widht'", "Did you mean 'width'?"],
    ),
    written(
        "unresolved relative interpolation inside a text",
        "description: 'width ${model.widht}'",
        ["description", "bad.yaml:4", "'model.widht'", "Did you mean 'model.width'?"],
    ),
    written(
        "unknown resolver",
        "model: {width: '${framewrok.id:}'}",
        ["model.width", "bad.yaml:4", "framewrok.id"],
    ),
    written(
        "environment variable that is not set",
        "model: {width: '${oc.env:TOY_WIDTH}'}",
        ["model.width", "bad.yaml:4", "'TOY_WIDTH'"],
    ),
    written("missing value", "model:\n  noise: ???", ["model.noise", "bad.yaml:5", "has no value", "model.noise="]),
    typed("seed of the wrong type", "seed=many", says=["seed (the command line)", "'many'", "Integer"]),
    typed(
        "trainer value of the wrong type",
        "trainer.max_epochs=many",
        says=["trainer.max_epochs (the command line)", "must be int", "'many'"],
    ),
    written(
        "model value of the wrong type",
        "model: {width: wide}",
        ["model.width", "bad.yaml:4", "must be int", "'wide'"],
    ),
    written(
        "value of the wrong type beside None",
        "model: {fail_at_step: soon}",
        ["model.fail_at_step", "bad.yaml:4", "must be int or None", "'soon'"],
    ),
    written(
        "list where a number belongs",
        "data: {batch_size: [4]}",
        ["data.batch_size", "bad.yaml:4", "must be int", "[4]"],
    ),
    written("number where a list belongs", "stages: fit", ["stages", "bad.yaml:4", "list"]),
    written("text where a mapping belongs", "trainer: fast", ["trainer", "bad.yaml:4"]),
    typed(
        "stage that does not exist", "stages=[fti]", says=["stages (the command line)", "'fti'", "Did you mean 'fit'?"]
    ),
    typed(
        "accelerator that does not exist",
        "trainer.accelerator=gpuu",
        says=["trainer.accelerator (the command line)", "'gpuu'", "Did you mean 'gpu'?"],
        needs_import=True,
    ),
    typed(
        "strategy that does not exist",
        "+trainer.strategy=dpp",
        says=["trainer.strategy (the command line)", "'dpp'", "Did you mean 'ddp'?"],
        needs_import=True,
    ),
    typed(
        "precision that does not exist",
        "+trainer.precision=bf16-mixd",
        says=["trainer.precision (the command line)", "'bf16-mixd'", "Did you mean 'bf16-mixed'?"],
        needs_import=True,
    ),
    written(
        "word where a number or tensor belongs",
        "model: {optimizer: {lr: fast}}",
        ["model.optimizer.lr", "bad.yaml:4", "must be float or Tensor", "'fast'"],
    ),
    written(
        "word where a tuple belongs", "model: {optimizer: {betas: 0.9}}", ["model.optimizer.betas", "must be tuple"]
    ),
    written("wrong type of a path", "paths: {data: [a]}", ["paths.data", "bad.yaml:4", "string"]),
    typed(
        "weights to start from that are not there", "ckpt_path=a.ckpt", says=["ckpt_path (the command line)", "a.ckpt"]
    ),
    typed("several options, one unknown", "logger=[csv,wand]", says=["command line", "logger/wand", "'wandb'?"]),
    typed("no stages", "stages=[]", says=["stages (the command line)", "is empty", "fit, validate, test, predict"]),
    typed("weights to test that do not exist", "test_weights=bets", says=["test_weights (the command line)", "'bets'"]),
    typed("no model", "~model", says=["model is not set", "+experiment="]),
    typed("no model nor experiment", "seed=1", experiment="", says=["model is not set", "+experiment="]),
    typed("group set to null", "model=null", says=["command line", "model=null", "~<group>"]),
    written("no trainer", "trainer: null", ["trainer is not set", "trainer=cpu"]),
    typed("trainer without its _target_", "~trainer", says=["trainer (", "example.yaml", "has no _target_"]),
    written("callbacks as a list", "callbacks: [checkpoint]", ["bad.yaml", "ListConfig"]),
    written("logger as a word", "logger: wandb", ["logger", "bad.yaml:4", "mapping of names"]),
    written("callback without its _target_", "callbacks: {mine: {x: 1}}", ["callbacks.mine", "bad.yaml:4", "_target_"]),
    typed(
        "test_weights=best without a monitor",
        "test_weights=best",
        says=["test_weights", "callbacks.checkpoint.monitor"],
    ),
    # --- files
    written(
        "missing package directive",
        "description: Bad.\nmodel: {width: 3}",
        ["bad.yaml", "experiment", "# @package _global_"],
    ),
    written(
        "YAML syntax error",
        "# @package _global_\ndescription: Bad.\nmodel: {width: 3",
        ["bad.yaml", "line 3", "expected ',' or '}'"],
    ),
    written("not a mapping", "# @package _global_\n- model", ["bad.yaml"]),
    typed("override that cannot be read", "model.width=[3", says=["model.width=[3", "cannot be read"]),
    typed("sweep without -m", "model.width=3,4", says=["'model.width'", "-m"]),
    # --- trust
    *(
        written(
            f"untrusted target {name}",
            f"model: {{_target_: {name}}}",
            ["model._target_", "bad.yaml:4", f"'{name}'", "trusted", "plugin.yaml"],
        )
        for name in (
            "torch.utils.collect_env.run",
            "builtins.open",
            "os.makedirs",
            "framework.record.os.makedirs",
            "toy.modules.time.sleep",
            "torch.nn.modules.module.torch.utils.collect_env.run",
        )
    ),
    typed(
        "untrusted target from the command line",
        "+model.noise={_target_:os.getcwd}",
        says=["model.noise._target_ (the command line)", "'os.getcwd'", "trusted"],
    ),
]


@pytest.fixture(scope="module")
def toy(shared_plugin):
    plugin = shared_plugin
    plugin.write("torn.py", "x = 1\ndef torn(:\n")
    plugin.write("failing.py", "from toy.modules import Line\n\n1 / 0\n")
    plugin.write("constants.py", "WIDTH = 3\n")
    return plugin


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv("TOY_WIDTH", raising=False)


def bad_file(toy, case: Bad) -> None:
    if case.experiment != "toy/bad":
        return
    if "description: Bad." in case.yaml or "# @package" in case.yaml:
        toy.write("conf/experiment/toy/bad.yaml", case.yaml)
    else:
        toy.experiment("bad", case.yaml)


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.what.replace(" ", "-"))
def test_bad_input(case, toy, cli, workplace):
    bad_file(toy, case)
    outcome = cli(*case.argv)
    assert outcome.status == 1
    for text in case.says:
        assert text in outcome.err
    assert "Traceback" not in outcome.out + outcome.err
    assert not list(workplace.iterdir()), "something was written"


def test_table_is_large_and_distinct():
    assert len({case.what for case in TABLE}) == len(TABLE) >= 60


def test_all_problems_are_reported_at_once(toy, cli, workplace):
    toy.experiment("bad", "seeed: 3\nmodel: {wdth: 3, noise: '${niose}'}\ntrainer: {max_epochs: many}\nstages: [fti]\n")
    outcome = cli("+experiment=toy/bad", "+data.cuont=3")
    assert outcome.status == 1
    problems = outcome.err.splitlines()
    assert problems[0] == "This config cannot run:"
    for key in ("seeed (", "model.wdth (", "model.noise (", "trainer.max_epochs (", "stages (", "data.cuont ("):
        assert sum(line.startswith(f"  - {key}") for line in problems) == 1
    assert len(problems) == 7


def test_an_unmended_example_runs_through_the_preflight(toy):
    """The table would prove nothing if the example it spoils were refused as well."""
    from framework import config, preflight

    composed = config.compose(["experiment=toy/example"])
    config.set_run_dir(composed.config, Path("run").absolute())
    resolved = preflight.check(composed)
    assert resolved["model"]["_target_"] == "toy.modules.Line"
    assert resolved["paths"]["run"] == str(Path("run").absolute())


def test_traceback_is_shown_when_asked_for(toy, cli, monkeypatch):
    from framework.errors import UserError

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(UserError, match="'model.width'"):
        cli("+experiment=toy/example", "model.wdth=8")
    shown = toy.python("-m", "framework", "+experiment=toy/example", "model.wdth=8", env=toy.env)
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr and "Did you mean 'model.width'?" in shown.stderr


def test_bad_job_of_a_sweep_is_refused_before_the_sweep_starts(toy, cli, workplace):
    outcome = cli("-m", "+experiment=toy/example", "model.width=1,2", "model.nose=3")
    assert outcome.status == 1 and "Did you mean 'model.noise'?" in outcome.err
    assert not list(workplace.iterdir())


def test_torch_is_not_imported_to_refuse(toy, tmp_path):
    """A bad input that source text can refute is refuted without torch: every seventh, in one child process."""
    cases = []
    for i, case in enumerate([case for case in TABLE if not case.needs_import]):
        if i % 7 == 0:
            name = case.experiment
            if name == "toy/bad":
                bad_file(toy, case)
                name = f"toy/bad{i}"
                toy.path("conf/experiment/toy/bad.yaml").rename(toy.path(f"conf/experiment/{name}.yaml"))
            cases.append([case.what, [*([f"+experiment={name}"] if name else []), *case.overrides]])
    code = (
        "import json, sys\n"
        "from framework.__main__ import main\n"
        "heavy = {'torch', 'pytorch_lightning', 'lightning', 'pandas', 'matplotlib', 'sklearn', 'scipy', 'wandb'}\n"
        "for what, argv in json.loads(sys.argv[1]):\n"
        "    status = main(argv)\n"
        "    loaded = heavy & set(sys.modules)\n"
        "    if status != 1 or loaded:\n"
        "        sys.exit(f'{what}: status {status}, loaded {loaded}')\n"
    )
    done = toy.python("-c", code, json.dumps(cases), cwd=tmp_path)
    for path in toy.path("conf/experiment/toy").glob("bad[0-9]*.yaml"):
        path.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(cases) >= 10


@pytest.mark.parametrize(
    ("value", "annotation", "wrong"),
    [
        (3, "Optional[int]", ""),
        (None, "Optional[int]", ""),
        (True, "int", "int"),
        (1, "float", ""),
        (1.5, "int", "int"),
        ("x", "Optional[Union[int, str]]", ""),
        ([1], "Optional[Union[int, float]]", "int or float or None"),
        ([0.9, 0.9], "tuple[Union[float, Tensor], Union[float, Tensor]]", ""),
        ("a", "list[int] | int", "list or int"),
        ("a", "Literal['a', 'b']", ""),
        ("a", "SomeAlias", ""),
        ({"_target_": "x"}, "int", ""),
        (3, "typing.Callable[[int], str] | None", "Callable or None"),
        ("a", "'int | None'", "int or None"),
    ],
)
def test_types_that_can_be_judged_from_their_text(value, annotation, wrong):
    from framework.preflight import _wrong_type

    assert _wrong_type(value, annotation) == wrong
