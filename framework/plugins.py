"""Which plugins are installed, where their configs lie, and what is wrong with the broken ones.

A plugin is a package named by an entry point of the group ``framework.plugins``. Discovery never executes it:
a plugin that cannot be imported spoils its own experiments and nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

from framework import __version__
from framework.errors import UserError, nearest

GROUP = "framework.plugins"
DISTRIBUTION = "framework"


@dataclass(frozen=True)
class Plugin:
    """An installed plugin. ``problem`` is empty when it is healthy, else one sentence on what to mend."""

    name: str
    package: str
    distribution: str = ""
    version: str = ""
    location: Path | None = None
    problem: str = ""
    trusted: tuple[str, ...] = ()

    @property
    def conf(self) -> Path | None:
        return self.location / "conf" if self.location else None


def conf_dir() -> Path:
    """The core's own config: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


@lru_cache(maxsize=1)
def discover() -> tuple[Plugin, ...]:
    """All plugins, sorted by name, each diagnosed without being imported."""
    found: dict[tuple[str, str], Plugin] = {}
    for distribution, entry in _entry_points():
        found.setdefault((entry.name, entry.value), _diagnose(distribution, entry))
    plugins = sorted(found.values(), key=lambda p: (p.name, p.package))
    return tuple(
        _broken(p, f"the name {p.name!r} is also taken by the package {other.package!r}; uninstall one of them")
        if (other := next((o for o in plugins if o.name == p.name and o.package != p.package), None))
        else p
        for p in plugins
    )


def healthy() -> tuple[Plugin, ...]:
    return tuple(p for p in discover() if not p.problem)


def import_problems(plugins: tuple[Plugin, ...]) -> dict[str, str]:
    """Why each plugin's package fails to import, tried in a separate process so that nothing is loaded here."""
    code = (
        "import importlib, json, sys\n"
        "out = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: importlib.import_module(name)\n"
        "    except BaseException as e: out[name] = f'{type(e).__name__}: {e}'\n"
        "print('\\n' + json.dumps(out))\n"
    )
    command = [sys.executable, "-c", code, *(p.package for p in plugins)]
    process = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(process.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        # one of them ended the interpreter: ask one at a time to know which
        if len(plugins) == 1:
            return {plugins[0].package: f"importing it ended the interpreter (exit {process.returncode})"}
        return {name: why for p in plugins for name, why in import_problems((p,)).items()}


def options(root: Path) -> Iterator[str]:
    """Every config option below a conf folder, as Hydra names it: ``group/sub/name``."""
    for path in sorted(root.rglob("*.yaml")):
        yield path.relative_to(root).with_suffix("").as_posix()


@lru_cache(maxsize=1)
def clashes() -> dict[str, tuple[str, ...]]:
    """Options that two owners offer (Hydra would silently take the first), with the owners' names."""
    owners: dict[str, list[str]] = {}
    for owner, root in [("the core", conf_dir()), *((f"plugin {p.name!r}", p.conf) for p in healthy())]:
        for option in options(root) if root else ():
            owners.setdefault(option, []).append(owner)
    return {option: tuple(names) for option, names in owners.items() if len(names) > 1}


def experiments() -> dict[str, tuple[Plugin, Path]]:
    """Name -> (plugin, file) of every experiment of every healthy plugin."""
    found = {}
    for plugin in healthy():
        assert plugin.conf is not None
        root = plugin.conf / "experiment"
        for option in options(root):
            found[option] = (plugin, root / f"{option}.yaml")
    return found


def description(path: Path) -> str:
    """The description in an experiment file, on one line, read without composing; empty if it has none."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except yaml.YAMLError:
        return ""
    text = content.get("description") if isinstance(content, dict) else None
    return " ".join(str(text or "").split())


def check_experiment(name: str) -> None:
    """Raise UserError, naming the nearest experiment or the broken plugin, unless ``name`` can be composed."""
    known = experiments()
    clash = clashes().get(f"experiment/{name}")
    if clash:
        raise UserError(f"The experiment {name!r} is offered by {' and by '.join(clash)}: rename one of them.")
    if name in known:
        return
    owner = name.split("/")[0]
    for plugin in discover():
        if plugin.name == owner and plugin.problem:
            raise UserError(
                f"The experiment {name!r} belongs to the plugin {owner!r}, which is broken: {plugin.problem}"
            )
    hint = nearest(name, known) or " `python -m framework experiments` lists them."
    raise UserError(f"There is no experiment {name!r}.{hint}")


def _entry_points() -> Iterator[tuple[Distribution, EntryPoint]]:
    for distribution in distributions():
        # reading the raw text first: parsing the metadata of every installed package costs most of the start-up
        if GROUP in (distribution.read_text("entry_points.txt") or ""):
            for entry in distribution.entry_points:
                if entry.group == GROUP:
                    yield distribution, entry


def _diagnose(distribution: Distribution, entry: EntryPoint) -> Plugin:
    metadata = distribution.metadata
    plugin = Plugin(entry.name, entry.value, metadata["Name"], metadata["Version"])
    try:
        location = _locate(entry.value)
    except Exception as error:
        return _broken(plugin, f"its package {entry.value!r} cannot be found: {type(error).__name__}: {error}")
    if location is None:
        return _broken(
            plugin, f"its package {entry.value!r} is not installed; reinstall or uninstall {plugin.distribution}"
        )
    plugin = replace(plugin, location=location)
    if not (location / "conf").is_dir():
        return _broken(plugin, f"it has no conf folder at {location / 'conf'}")
    try:
        wrong = _wrong_version(distribution)
    except ValueError as error:  # packaging's InvalidRequirement
        wrong = f"its requirements cannot be read: {' '.join(str(error).split())}"
    if wrong:
        return _broken(plugin, wrong)
    try:
        return replace(plugin, trusted=_declared_trust(location / "plugin.yaml"))
    except Exception as error:
        return _broken(plugin, f"its plugin.yaml cannot be read: {error}")


def _broken(plugin: Plugin, problem: str) -> Plugin:
    return replace(plugin, problem=problem)


def _locate(package: str) -> Path | None:
    """The folder of a package, found without executing it (find_spec would execute its parents)."""
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.submodule_search_locations is None:
        return None
    places = [Path(place) for place in spec.submodule_search_locations]
    for part in rest:
        places = [place / part for place in places if (place / part).is_dir()]
    return places[0] if places else None


def _wrong_version(distribution: Distribution) -> str:
    if distribution.metadata["Name"] == DISTRIBUTION:
        return ""
    from packaging.requirements import Requirement

    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.name == DISTRIBUTION and not requirement.specifier.contains(__version__, prereleases=True):
            return f"it needs framework{requirement.specifier}, and {__version__} is installed"
    return ""


def _declared_trust(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    import yaml

    declared = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(declared, dict):
        raise ValueError("it must hold `trusted`, a list of package names")
    for key in declared:
        if key != "trusted":
            raise ValueError(f"unknown key {key!r}.{nearest(str(key), ['trusted'])}")
    names = declared.get("trusted") or []
    if not isinstance(names, list) or not all(isinstance(n, str) and re.fullmatch(r"\w+(\.\w+)*", n) for n in names):
        raise ValueError(f"`trusted` must be a list of package names, not {names!r}")
    return tuple(names)
