"""From names and overrides to one composed config, and where each of its values came from."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from framework import plugins, signatures
from framework.errors import UserError, nearest

CONFIG_NAME = "config"
STAGES = ("fit", "validate", "test", "predict")
SWEEP_EXTRA = (
    "hydra/launcher/joblib",
    "hydra/launcher/submitit_local",
    "hydra/launcher/submitit_slurm",
    "hydra/sweeper/optuna",
)


@dataclass
class PathsSchema:
    data: str | None = None
    runs: str = "runs"
    run: str = "."


@dataclass
class Schema:
    """The keys of a run that the core itself reads. Any other key must be referred to by an interpolation."""

    description: str = ""
    tags: list[str] = field(default_factory=list)
    seed: int = 0
    stages: list[str] = field(default_factory=lambda: ["fit", "test"])
    fast: bool = False
    model: Any = None
    data: Any = None
    trainer: Any = None
    callbacks: Any = None
    logger: Any = None
    paths: PathsSchema = field(default_factory=PathsSchema)
    ckpt_path: str | None = None
    test_weights: str = "last"
    optimized_metric: str | None = None


SCHEMA_KEYS = tuple(f.name for f in dataclasses.fields(Schema))


class PluginConfigs(SearchPathPlugin):
    """Appends each healthy plugin's conf folder, by file path: composing never imports a plugin."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for plugin in plugins.healthy():
            assert plugin.conf is not None
            search_path.append(provider=f"plugin {plugin.name}", path=f"file://{plugin.conf}")


def _experiment() -> str:
    """The experiment's name for the run folder; a sweep over experiments has none of its own."""
    config: Any = HydraConfig.instance().cfg
    chosen = OmegaConf.select(config, "hydra.runtime.choices.experiment") if config is not None else None
    return chosen if isinstance(chosen, str) and "," not in chosen else "unnamed"


def register() -> None:
    """Make the plugins' configs and the resolvers known to Hydra. Idempotent, and needed in every process."""
    Plugins.instance().register(PluginConfigs)
    OmegaConf.register_new_resolver("framework.experiment", _experiment, replace=True)
    OmegaConf.register_new_resolver("framework.id", lambda: secrets.token_hex(3), replace=True)


register()


@dataclass(frozen=True)
class Origin:
    """Where a value was set: a file and the line of its key, or the command line."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass
class Composed:
    """A composed config, and on demand the origin of each of its leaves, by dotted key."""

    config: DictConfig
    overrides: list[str]

    @cached_property
    def origins(self) -> dict[str, Origin]:
        found: dict[str, Origin] = {}
        with _loader() as loader:
            for key, origin in _origins(loader, self.overrides):
                found.pop(key, None)  # so that the order is that of the last setting
                found[key] = origin
        return found

    def origin(self, key: str) -> str:
        """The origin of a key or of what was last set below it, else of its nearest known parent."""
        inside = [o for k, o in self.origins.items() if k == key or k.startswith((f"{key}.", f"{key}["))]
        if inside:
            return str(inside[-1])
        parent = key.rpartition(".")[0]
        return self.origin(parent) if parent else "the composed config"


def normalise(overrides: Sequence[str]) -> list[str]:
    """Let ``+experiment=x`` mean ``experiment=x``: the group is in the defaults, so that debug comes after it."""
    return [o.lstrip("+") if re.match(r"\+{1,2}experiment=", o) else o for o in overrides]


def parse(overrides: Sequence[str]) -> list[Override]:
    parser, parsed = OverridesParser.create(), []
    for override in overrides:
        try:
            parsed.append(parser.parse_override(override))
        except HydraException as error:
            message = str(error).split("\nSee https")[0]
            raise UserError(f"The command line's {override!r} cannot be read: {message}") from error
    return parsed


def first_of_sweep(overrides: Sequence[str]) -> list[str]:
    """The overrides of a sweep's first job, to check before any job starts."""
    out = []
    for override in parse(overrides):
        if override.is_sweep_override():
            if override.is_discrete_sweep():
                out.append(f"{override.get_key_element()}={next(override.sweep_string_iterator())}")
        else:
            out.append(override.input_line or "")
    return out


def compose(overrides: Sequence[str]) -> Composed:
    """Compose the config of one run.

    Raises:
        UserError: an unknown experiment or option, a key that does not exist, an override that cannot be read.
    """
    overrides = normalise(overrides)
    for override in parse(overrides):
        if override.key_or_group == "experiment" and isinstance(override.value(), str):
            plugins.check_experiment(str(override.value()))
    while True:
        try:
            with _loader() as loader:
                config = loader.load_configuration(CONFIG_NAME, list(overrides), run_mode=RunMode.RUN)
                if plugins.clashes():
                    _refuse_clashes(loader, list(overrides))
            return Composed(config, list(overrides))
        except YAMLError as error:
            raise UserError(f"A config file cannot be read: {' '.join(str(error).split())}") from error
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            if match := re.search(r"Could not (override|delete from config\.) '([^']+)'", str(error)):
                overrides = _with_added(match.group(2), overrides, may_add=match.group(1) == "override")
            else:
                raise _readable(error, overrides) from error


def _refuse_clashes(loader: Any, overrides: list[str]) -> None:
    """Hydra would silently take the first of two options of one name."""
    defaults = loader.compute_defaults_list(CONFIG_NAME, overrides, RunMode.RUN).defaults
    for option in [default.config_path for default in defaults]:
        if owners := plugins.clashes().get(option):
            raise UserError(f"The option {option!r} is offered by {' and by '.join(owners)}: rename one of them.")


def _with_added(key: str, overrides: Sequence[str], may_add: bool) -> list[str]:
    """The overrides with a ``+`` before a key that no YAML mentions and that the ``_target_`` beside it accepts.

    Raises:
        UserError: nothing accepts it; names the nearest key, among its siblings or else everywhere.
    """
    mine = [o for o in overrides if o.lstrip("+~").partition("=")[0] == key]
    parent, _, name = key.rpartition(".")
    try:
        config = compose([o for o in overrides if o not in mine]).config if mine else OmegaConf.create()
        node = OmegaConf.select(config, parent) if parent else config
    except (UserError, OmegaConfBaseException):
        config, node = OmegaConf.create(), None
    if isinstance(node, DictConfig):
        arguments = _arguments(node.get("_target_"))
        if name in arguments and may_add:
            return [f"+{o}" if o in mine else o for o in overrides]
        hint = nearest(name, {*map(str, node), *arguments} - {"hydra"})
        hint = hint.replace("Did you mean '", f"Did you mean '{parent}.") if parent else hint
    else:
        hint = nearest(key, _all_keys(config))
    adds = f" (`+{key}=…` adds a new key.)" if may_add else ""
    raise UserError(f"The command line sets {key!r}, which is no key of this config.{hint}{adds}")


def _arguments(target: Any) -> list[str]:
    """The arguments of a ``_target_``, as far as its source text says."""
    try:
        signature = signatures.find(target).signature if isinstance(target, str) else None
    except (LookupError, SyntaxError):
        return []
    return signature.names if signature else []


@contextmanager
def _loader() -> Iterator[Any]:
    """Hydra's config loader; inside a job, where Hydra is running already, its state is put back afterwards."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(plugins.conf_dir())):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = outer


def set_run_dir(config: DictConfig, run_dir: Path) -> None:
    """What Hydra does before a job, so that ``${paths.run}`` resolves before there is a folder."""
    runtime = config.hydra.runtime
    with read_write(runtime), open_dict(runtime):
        runtime.output_dir = str(run_dir)
    HydraConfig.instance().set_config(config)


def task_config(config: DictConfig) -> DictConfig:
    """The config without Hydra's own node, as Hydra hands it to a job."""
    task = OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"])
    OmegaConf.set_struct(task, True)
    return task


def _readable(error: Exception, overrides: Sequence[str]) -> UserError:
    """Hydra's message about a config in our words: who asks for what, and the nearest valid name."""
    text = str(error)
    if match := re.search(r"Could not (?:find|load) '([^']+)'", text):
        option = match.group(1)
        listed = re.search(r"Available options in '([^']*)':((?:\s+[\w./-]+(?=\n))+)", text)
        group = listed.group(1) if listed else option.partition("/")[0]
        known = {o.removeprefix(f"{group}/") for o in all_options() if o.startswith(f"{group}/")}
        hint = nearest(option.removeprefix(f"{group}/"), listed.group(2).split() if listed else known)
        if option in SWEEP_EXTRA:
            hint = " Install it with `python -m pip install 'framework[sweep]'`."
        return UserError(f"{_who_asks(text, option, overrides)} asks for {option!r}, which does not exist.{hint}")
    if "Config group override must be a string or a list. Got NoneType" in text:
        groups = [o.key_or_group for o in parse(overrides) if o.value() is None and not o.is_delete()]
        named = " or ".join(f"{g}=null" for g in groups)
        return UserError(f"The command line sets a group to null ({named}): choose an option, or drop it, `~<group>`")
    lines = [
        line for line in text.splitlines() if line.strip() and "full_key" not in line and "object_type" not in line
    ]
    where = f"{_who_asks(text, '', overrides)}: " if text.startswith("In '") else ""
    key = re.search(r"full_key: (\S+)", text)
    what = re.sub(r"^In '[^']+': ", "", " ".join(lines))
    return UserError(f"The config cannot be composed: {where}{f'{key.group(1)}: ' if key else ''}{what}")


def _who_asks(text: str, option: str, overrides: Sequence[str]) -> str:
    """The command line where it chose the option, else the file in which Hydra found the choice."""
    file = re.search(r"In '([^']+)'", text)
    chosen = set()
    for override in parse(overrides):
        value = override.value()
        chosen |= {f"{override.key_or_group}/{one}" for one in (value if isinstance(value, list) else [value])}
    return "The command line" if option in chosen or file is None else option_file(file.group(1))


def _all_keys(config: DictConfig) -> Iterator[str]:
    for key, _ in leaves(OmegaConf.to_container(config, resolve=False)):
        while key:
            yield key
            key = key.rpartition(".")[0]


def all_options() -> list[str]:
    roots = [plugins.conf_dir(), *(p.conf for p in plugins.healthy())]
    return [option for root in roots if root for option in plugins.options(root)]


def option_file(option: str) -> str:
    """The file of a config option, for error messages."""
    for root in [plugins.conf_dir(), *(p.conf for p in plugins.healthy())]:
        if root and (root / f"{option}.yaml").is_file():
            return str(root / f"{option}.yaml")
    return option


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of plain containers with its dotted key; empty containers count as leaves."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(node, list) and any(isinstance(v, (dict, list)) for v in node):
        for i, value in enumerate(node):
            yield from leaves(value, f"{prefix}[{i}]")
    else:
        yield prefix, node


def _origins(loader: Any, overrides: list[str]) -> Iterator[tuple[str, Origin]]:
    defaults = loader.compute_defaults_list(CONFIG_NAME, overrides, RunMode.RUN)
    given: set[str] = set()
    for default in defaults.defaults:
        if default.config_path is None or default.config_path.startswith("hydra/"):
            continue
        loaded = loader.repository.load_config(default.config_path)
        if loaded is None:
            continue
        path = option_file(default.config_path)
        lines = _lines(Path(path)) if Path(path).is_file() else {}
        content = OmegaConf.to_container(loaded.config, resolve=False)
        if isinstance(content, dict):
            content.pop("defaults", None)
        for key, value in leaves(content):
            full = f"{default.package}.{key}" if default.package else key
            if value != "???" or full not in given:  # a missing value does not replace one that is there
                yield full, Origin(path, lines.get(key, 0))
            given.add(full)
    for override in defaults.config_overrides:
        for key, _ in leaves(override.value(), override.key_or_group):
            yield key, Origin("the command line")


def _lines(path: Path) -> dict[str, int]:
    import yaml

    found: dict[str, int] = {}

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                dotted = f"{prefix}.{key.value}" if prefix else str(key.value)
                found[dotted] = key.start_mark.line + 1
                walk(value, dotted)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                found.setdefault(f"{prefix}[{i}]", value.start_mark.line + 1)
                walk(value, f"{prefix}[{i}]")

    walk(yaml.compose(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), "")
    return found
