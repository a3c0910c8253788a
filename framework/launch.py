"""From a command line to a finished run or sweep: check first, then claim a folder, then let Hydra launch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from framework import config, plugins, preflight, ranks, sweep
from framework.errors import Interrupted, UserError
from framework.record import METRICS, RECORD, read_json


def launch(argv: list[str]) -> int:
    """Run what the command line says; the exit status.

    Raises:
        UserError: before anything is written, if the config cannot run; afterwards, if the run failed.
        Interrupted: a signal stopped it; what was done so far is in the run folder.
    """
    # `a=1 -m b=2` is what people type; argparse wants the overrides together
    parser = get_args_parser()
    parser.prog = "python -m framework"
    arguments = parser.parse_args(sorted(argv, key=lambda a: not a.startswith("-")) if _simple(argv) else argv)
    overrides = config.normalise(arguments.overrides)
    if any(getattr(arguments, flag) for flag in ("cfg", "info", "hydra_help", "shell_completion")):
        _hydra([*[a for a in argv if a not in arguments.overrides], *overrides])
        return 0
    first = config.compose(config.first_of_sweep(overrides) if _sweeps(overrides) else overrides)
    added = {o.lstrip("+").partition("=")[0] for o in first.overrides if o.startswith("+")}
    overrides = [f"+{o}" if o.partition("=")[0] in added else o for o in overrides]
    multirun = bool(arguments.multirun) or str(OmegaConf.select(first.config, "hydra.mode")) == "RunMode.MULTIRUN"
    if _sweeps(overrides) and not multirun:
        swept = next(o.key_or_group for o in config.parse(overrides) if o.is_sweep_override())
        raise UserError(f"{swept!r} has several values, which makes a sweep: add -m. (A list is written [a,b].)")
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    folder = _folder(first, key, names_experiment=not any(o.startswith("experiment=") and "," in o for o in overrides))
    config.set_run_dir(first.config, folder / "0" if multirun else folder)
    preflight.check(first)
    HydraConfig.instance().cfg = None
    _refuse_foreign_ranks(overrides)
    if not any(o.startswith(f"{key}=") for o in overrides):
        folder.mkdir(parents=True, exist_ok=False)  # claimed: no other launch can have it
    flags = ["--multirun"] if multirun else []
    return run_in(folder, [*flags, *[o for o in overrides if not o.startswith(f"{key}=")]], key)


def run_in(folder: Path, argv: list[str], key: str) -> int:
    """Have Hydra run a checked command line in a given folder, and report how it went."""
    multirun = key == "hydra.sweep.dir"
    error: Exception | None = None
    try:
        _hydra([*argv, f"{key}={_quoted(folder)}"])
    except UserError as failure:
        error = failure
    except Interrupted as stop:
        if multirun:
            sweep.summarise(folder)
        print(f"\nContinue with: python -m framework resume {_short(folder)}", file=sys.stderr)
        raise stop
    except Exception as failure:  # its traceback was printed where it happened
        error = failure
    if multirun:
        failures = sweep.summarise(folder)
        if error is not None and not failures:
            raise UserError(f"The sweep failed: {type(error).__name__}: {error}")
        return 1 if failures else 0
    if error is not None:
        raise UserError(f"The run failed: {error}\n  folder: {_short(folder)}") from error
    report(folder)
    return 0


def report(folder: Path, most: int = 30) -> None:
    """Print where a finished run lies and what it measured."""
    metrics = read_json(folder / METRICS) if (folder / METRICS).is_file() else {}
    record = read_json(folder / RECORD)
    for name in sorted(metrics)[:most]:
        print(f"  {name:<48} {_number(metrics[name])}")
    if len(metrics) > most:
        print(f"  … and {len(metrics) - most} more in metrics.json")
    for figure in sorted((folder / "figures").rglob("*.png")):
        print(f"  figure: {_short(figure)}")
    print(f"Finished in {record['duration_seconds']:.1f} s: {_short(folder)}")


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)


def _hydra(argv: list[str]) -> None:
    """Call Hydra's own entry with a command line; its errors come out as exceptions, not as exits."""
    from framework.run import task

    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [before[0], *argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(plugins.conf_dir()), config_name="config")(task)()
    finally:
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR") if full is None else os.environ.update(HYDRA_FULL_ERROR=full)


def _folder(composed: config.Composed, key: str, names_experiment: bool) -> Path:
    HydraConfig.instance().set_config(composed.config)
    try:
        text = str(OmegaConf.select(composed.config, key))
    except OmegaConfBaseException as error:
        raise UserError(f"{key} cannot be resolved: {str(error).splitlines()[0]}") from error
    if not names_experiment:  # a sweep over experiments belongs to none of them
        chosen = str(OmegaConf.select(composed.config, "hydra.runtime.choices.experiment"))
        text = text.replace(f"/{chosen}/", "/several/")
    return Path(text).absolute()


def _sweeps(overrides: list[str]) -> bool:
    return any(o.is_sweep_override() for o in config.parse(overrides))


def _simple(argv: list[str]) -> bool:
    return all(not a.startswith("-") or a in ("-m", "--multirun", "-r", "--run") for a in argv)


def _refuse_foreign_ranks(overrides: list[str]) -> None:
    if ranks.launched_from_outside() and not any(o.startswith("hydra.run.dir=") for o in overrides):
        raise UserError(
            "The processes of this run are started from outside (torchrun, srun), each with this command line: "
            "give them one folder, hydra.run.dir=<folder>"
        )


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
