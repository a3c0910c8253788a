"""The commands beside launching: each reads its arguments, asks the module that knows, and prints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from framework import plugins
from framework.errors import UserError, nearest


def run(verb: str, argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m framework {verb}")
    return globals()[f"_{verb}"](parser, argv)


def _plugins(parser: argparse.ArgumentParser, argv: list[str]) -> int:
    parser.description = "List the installed plugins; exit status 1 if one is broken."
    parser.parse_args(argv)
    found = plugins.discover()
    if not found:
        print("No plugin is installed. `python -m framework new <name> <folder>` writes one.")
        return 0
    whole = tuple(p for p in found if not p.problem)
    problems = plugins.import_problems(whole) if whole else {}
    broken = False
    for plugin in found:
        why = plugin.problem
        if not why and plugin.package in problems:
            why = f"its package cannot be imported: {problems[plugin.package]}"
        for option, owners in plugins.clashes().items():
            if f"plugin {plugin.name!r}" in owners:
                why = why or f"the option {option!r} is offered by {' and by '.join(owners)}"
        broken |= bool(why)
        count = sum(owner.name == plugin.name for owner, _ in plugins.experiments().values())
        print(
            f"{plugin.name}  {plugin.distribution} {plugin.version}  {count} experiments  {'BROKEN' if why else 'ok'}"
        )
        print(f"    {plugin.location or plugin.package}")
        if why:
            print(f"    {why}")
    return int(broken)


def _experiments(parser: argparse.ArgumentParser, argv: list[str]) -> int:
    parser.description = "List all experiments, or those whose name contains a text."
    parser.add_argument("text", nargs="?", default="")
    text = parser.parse_args(argv).text
    found = {name: path for name, (_, path) in plugins.experiments().items() if text in name}
    if not found and not text:
        print("No healthy plugin offers an experiment.")
        return 0
    if not found:
        raise UserError(f"No experiment has {text!r} in its name.{nearest(text, plugins.experiments())}")
    width = max(map(len, found))
    for name, path in sorted(found.items()):
        print(f"{name:<{width}}  {plugins.description(path) or '(no description)'}")
    for plugin in plugins.discover():
        if plugin.problem:
            print(f"(the plugin {plugin.name!r} is broken: {plugin.problem})", file=sys.stderr)
    return 0


def _show(parser: argparse.ArgumentParser, argv: list[str]) -> int:
    parser.description = "Print the composed config of an experiment, with the origin of each value."
    parser.add_argument("experiment")
    parser.add_argument("overrides", nargs="*", help="key=value")
    arguments = parser.parse_args(argv)
    import yaml
    from omegaconf import OmegaConf

    from framework import config

    composed = config.compose([f"experiment={arguments.experiment}", *arguments.overrides])
    plain = OmegaConf.to_container(config.task_config(composed.config), resolve=False)
    assert isinstance(plain, dict)
    lines = []
    for key, value in config.leaves(plain):
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("\n...\n")
        lines.append((f"{key}: {text.strip()}", composed.origin(key)))
    width = min(80, max(len(line) for line, _ in lines))
    for line, origin in lines:
        print(f"{line:<{width}}  # {_shorter(origin)}")
    return 0


def _shorter(origin: str) -> str:
    path = Path(origin.rpartition(":")[0] or origin)
    for name, root in [("core", plugins.conf_dir()), *((p.name, p.conf) for p in plugins.healthy())]:
        if root and path.is_relative_to(root):
            return f"{name}: {origin.removeprefix(f'{root}/')}"
    return origin


def _resume(parser: argparse.ArgumentParser, argv: list[str]) -> int:
    parser.description = "Continue a run, or the unfinished jobs of a sweep, from its folder."
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder.absolute()
    from framework import launch, sweep

    if (folder / sweep.COMMAND).is_file():
        import yaml

        command = yaml.safe_load((folder / sweep.COMMAND).read_text())
        return launch.run_in(folder, ["--multirun", *command["overrides"]], "hydra.sweep.dir")
    from framework.record import CONFIG, write_text
    from framework.run import execute
    from framework.runs import load_run

    loaded = load_run(folder)
    if loaded.record["status"] == "finished":
        print(f"This run has finished: {folder}")
        return 0
    if _alive(loaded.record):
        raise UserError(f"This run is still running, as process {loaded.record['pid']}.")
    import yaml

    write_text(folder / CONFIG, yaml.safe_dump(loaded.config, sort_keys=False, allow_unicode=True))
    try:
        execute(loaded.config, folder)
    except UserError:
        raise
    except Exception as error:  # its traceback was printed where it happened
        raise UserError(f"The run failed: {type(error).__name__}: {error}\n  folder: {folder}") from error
    launch.report(folder)
    return 0


def _alive(record: dict) -> bool:
    import socket

    import psutil

    if record["status"] != "running" or record["host"]["name"] != socket.gethostname():
        return False
    return psutil.pid_exists(record["pid"]) and "python" in psutil.Process(record["pid"]).name().lower()


def _runs(parser: argparse.ArgumentParser, argv: list[str]) -> int:
    parser.description = "List runs with their metrics and the config keys in which they differ."
    parser.add_argument("experiment", nargs="?", default="", help="only experiments whose name contains this")
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--status", default="", help="finished, failed, interrupted or running")
    parser.add_argument("--metrics", nargs="+", default=[], help="the metrics to show; default: the first four")
    parser.add_argument("--sort", default="", help="sort by this metric, lowest first; --sort=-NAME for highest first")
    parser.add_argument("--keys", nargs="+", default=[], help="config keys to show; default: those that differ")
    arguments = parser.parse_args(argv)
    from framework import runs, sweep
    from framework.config import leaves

    if not arguments.root.is_dir():
        raise UserError(f"There is no folder {arguments.root}: run something first, or name one with --root.")
    found = list(runs.find(arguments.root, arguments.experiment, arguments.status))
    if not found:
        raise UserError(f"No run below {arguments.root} matches.")
    known = list(dict.fromkeys(name for r in found for name in r.metrics))
    sort, reverse = arguments.sort.lstrip("-"), arguments.sort.startswith("-")
    for name in [*arguments.metrics, *([sort] if sort else [])]:
        if name not in known:
            raise UserError(f"No run has the metric {name!r}.{nearest(name, known)}")
    settings = {key for r in found for key, _ in leaves(r.config)}
    for key in arguments.keys:
        if key not in settings:
            raise UserError(f"No run's config has the key {key!r}.{nearest(key, settings)}")
    if sort:  # runs without the metric come last
        found.sort(key=lambda r: r.metrics.get(sort, float("-inf" if reverse else "inf")), reverse=reverse)
    shown = arguments.metrics or list(dict.fromkeys([*([sort] if sort else []), *known]))[:4]
    keys = arguments.keys or (
        runs.differing_keys(found, most=6) if len({r.record["experiment"] for r in found}) == 1 else []
    )
    flat = [dict(leaves(r.config)) for r in found]
    header = ["run", "status", "started", "seconds", *keys, *shown]
    rows = [
        [
            str(r.path.relative_to(arguments.root.absolute())),
            r.record["status"],
            r.record["started"][:19],
            sweep.str_(r.record.get("duration_seconds", "")),
            *(str(f.get(k, "")) for k in keys),
            *(sweep.str_(r.metrics.get(m, "")) for m in shown),
        ]
        for r, f in zip(found, flat, strict=True)
    ]
    print(sweep.markdown([header, *rows]), end="")
    return 0


def _new(parser: argparse.ArgumentParser, argv: list[str]) -> int:
    parser.description = "Write a complete plugin package that installs, runs and passes its own tests."
    parser.add_argument("name", help="the plugin's name, a Python identifier")
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    arguments = parser.parse_args(argv)
    from framework import scaffold

    scaffold.write(arguments.name, arguments.folder)
    print(
        f"Wrote {arguments.folder}. Next:\n"
        f"  python -m pip install -e {arguments.folder}\n"
        f"  python -m framework +experiment={arguments.name}/example\n"
        f"  python -m framework check {arguments.name}"
    )
    return 0


def _check(parser: argparse.ArgumentParser, argv: list[str]) -> int:
    parser.description = "Hold a plugin to the contract: its experiments compose, run, resume and repeat."
    parser.add_argument("plugin")
    parser.add_argument("--experiment", default="", help="only the experiment of this name")
    arguments = parser.parse_args(argv)
    from framework import testing

    return testing.report(arguments.plugin, arguments.experiment)
