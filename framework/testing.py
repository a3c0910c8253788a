"""The contract of a plugin, for its own test suite and for ``python -m framework check``.

Every experiment has a description, composes and passes the preflight; it runs under ``debug=fast``, its checkpoint
loads again with the same weights, and a second run with the same seed gives the same metrics.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from pathlib import Path

from framework import plugins
from framework.errors import DataMissing, UserError, nearest

MACHINE = frozenset(
    "ms us ns times latency clock ratio speed speedup slowdown faster memory bytes overhead throughput".split()
)


class Broken(AssertionError):
    """An experiment does not keep the contract; the message says which part."""


def experiments(plugin: str) -> list[str]:
    """The names of a plugin's experiments, for ``pytest.mark.parametrize``.

    Raises:
        UserError: no such plugin, or it is broken.
    """
    found = {p.name: p for p in plugins.discover()}
    if plugin not in found:
        raise UserError(f"There is no plugin {plugin!r}.{nearest(plugin, found)}")
    if found[plugin].problem:
        raise UserError(f"The plugin {plugin!r} is broken: {found[plugin].problem}")
    return sorted(name for name, (owner, _) in plugins.experiments().items() if owner.name == plugin)


def misplaced(plugin: str) -> list[str]:
    """The config options of a plugin that do not stand under its own name, where two plugins could clash."""
    owner = next(p for p in plugins.healthy() if p.name == plugin)
    assert owner.conf is not None
    return [o for o in plugins.options(owner.conf) if plugin not in o.split("/")[1:-1] and "hydra" not in o.split("/")]


def compose(experiment: str, overrides: tuple[str, ...] = ()) -> dict:
    """The resolved config of an experiment, checked by the preflight."""
    from framework import config, preflight

    composed = config.compose([f"experiment={experiment}", *overrides])
    config.set_run_dir(composed.config, Path("run").absolute())
    return preflight.check(composed)


def run(experiment: str, folder: Path, *overrides: str) -> Path:
    """Run an experiment in this process and return its run folder.

    Raises:
        DataMissing: its data cannot be had here.
        UserError: it failed.
    """
    from framework.launch import launch

    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            launch([f"experiment={experiment}", *overrides, f"hydra.run.dir={folder}"])
    except UserError as error:
        if isinstance(error.__cause__, DataMissing):
            raise error.__cause__ from error
        raise
    return folder


def hold(experiment: str, folder: Path) -> None:
    """Hold one experiment to the contract, with its runs below ``folder``.

    Raises:
        Broken: it does not keep it.
        DataMissing: it composes, and its data cannot be had here.
    """
    import torch

    from framework.runs import load_run

    config = compose(experiment)
    if not config["description"].strip() or "\n" in config["description"].strip():
        raise Broken(f"{experiment} needs a `description` of one line")
    fast = ("debug=fast", "trainer=cpu", "logger=csv")
    first = load_run(run(experiment, folder / "first", *fast))
    second = load_run(run(experiment, folder / "second", *fast))
    if first.record["status"] != "finished" or not (folder / "first" / "metrics.json").is_file():
        raise Broken(f"{experiment} did not finish with metrics under debug=fast")
    for name in sorted({*first.metrics, *second.metrics}):
        one, other = first.metrics.get(name), second.metrics.get(name)
        if str(one) != str(other) and not is_measurement_of_this_machine(name):
            raise Broken(
                f"{experiment} is not deterministic under its seed: {name} is {one} in one run and {other} in the next"
            )
    if "fit" in config["stages"]:
        try:
            weights = torch.load(first.checkpoint, map_location="cpu", weights_only=True)["state_dict"]
            loaded = first.model.state_dict()
        except Exception as error:  # a plugin's constructor and torch's unpickler fail in ways of their own
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise Broken(f"{experiment}: its checkpoint cannot be loaded again: {reason}") from error
        wrong = [k for k in weights if k not in loaded or not torch.equal(weights[k], loaded[k])]
        if wrong or loaded.keys() - weights.keys():
            raise Broken(f"{experiment}: its checkpoint does not come back whole ({(wrong or ['missing keys'])[0]})")


def is_measurement_of_this_machine(metric: str) -> bool:
    """Times and memory, and ratios of them, differ from run to run; by their names they are known."""
    words = re.split(r"[^a-z]+", metric.lower())
    return any(word in MACHINE or word.endswith(("second", "seconds", "time", "bytes")) for word in words)


def report(plugin: str, only: str = "") -> int:
    """Hold a whole plugin to the contract and print the verdicts; the exit status."""
    names = [name for name in experiments(plugin) if only in ("", name, name.removeprefix(f"{plugin}/"))]
    if not names:
        raise UserError(f"The plugin {plugin!r} has no experiment {only!r}.{nearest(only, experiments(plugin))}")
    failed = 0
    for option in misplaced(plugin):
        failed += 1
        print(f"FAIL  the option {option} does not stand under the plugin's name: move it to …/{plugin}/…")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="framework-check-") as folder:
            try:
                hold(name, Path(folder))
                print(f"ok    {name}")
            except DataMissing as error:
                print(f"data  {name}: {str(error).splitlines()[0]}")
            except (Broken, UserError) as error:
                failed += 1
                print(f"FAIL  {name}: {error}")
    print(f"{plugin}: {'keeps the contract' if not failed else f'{failed} failures'}", flush=True)
    return int(bool(failed))
