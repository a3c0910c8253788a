"""Everything that can be known to be wrong before a run folder is made, reported at once.

The first pass reads source text and answers without importing torch; the second imports what the run would build.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from framework import build, signatures
from framework.build import locate, targets, untrusted
from framework.config import SCHEMA_KEYS, STAGES, Composed, PathsSchema, Schema, leaves, task_config
from framework.errors import ConfigError, Interrupted, nearest

REFERENCE = re.compile(r"\$\{\s*([A-Za-z_]\w*)")
SIMPLE = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
    "list": (list,),
    "tuple": (list,),
    "Sequence": (list, str),
    "dict": (dict,),
    "Mapping": (dict,),
    # what only a _target_ can make
    **dict.fromkeys(("Callable", "Tensor", "torch.Tensor", "Module", "nn.Module", "torch.nn.Module"), ()),
}
UNUSABLE = "<unusable>"


def check(composed: Composed) -> dict[str, Any]:
    """The resolved config as plain containers.

    Raises:
        ConfigError: naming the file, the key and the nearest valid name of every problem found.
    """
    config = task_config(composed.config)
    problems = [*_missing(config, composed), *_unknown_keys(config, composed)]
    resolved, unresolved = _resolve(config, composed)
    problems += [*unresolved, *_schema(resolved, composed), *_shape(resolved, composed)]
    clean = not problems
    for key, node in targets(resolved):
        problems += _static(key, node, composed)
    if not problems and clean:
        for key, node in targets(resolved):
            problems += _imported(key, node, composed)
        problems += _trainer_words(resolved["trainer"], composed)
    if problems:
        raise ConfigError(problems)
    return resolved


def _at(key: str, composed: Composed) -> str:
    return f"{key} ({composed.origin(key)})"


def _missing(config: DictConfig, composed: Composed) -> Iterator[str]:
    for key in missing_keys(config):
        yield f"{_at(key, composed)} has no value: set it on the command line, `{key}=…`"


def missing_keys(config: DictConfig) -> list[str]:
    return [key for key, value in leaves(OmegaConf.to_container(config, resolve=False)) if value == "???"]


def _unknown_keys(config: DictConfig, composed: Composed) -> Iterator[str]:
    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    used = {name for _, value in leaves(raw) for text in _strings(value) for name in REFERENCE.findall(text)}
    for key in map(str, raw):
        if key not in SCHEMA_KEYS and key not in used:
            hint = nearest(key, SCHEMA_KEYS)
            if key == "experiment":
                hint = " Is `# @package _global_` missing from the first line of that file?"
            elif "Did you mean" not in hint:
                hint = f" (A key of your own must be referred to, as ${{{key}}}.)"
            yield f"{_at(key, composed)} is read by nothing.{hint}"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _resolve(config: DictConfig, composed: Composed) -> tuple[dict[str, Any], list[str]]:
    """The config with every interpolation replaced; those that fail become problems and None."""
    problems, failed = [], []
    raw = OmegaConf.to_container(config, resolve=False)
    for key, value in list(leaves(raw)):
        if not any("${" in text for text in _strings(value)):
            continue
        try:
            node = OmegaConf.select(config, key)
            if OmegaConf.is_config(node):
                OmegaConf.to_container(node, resolve=True)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            match = re.search(r"Interpolation key '([^']+)' not found", reason)
            if match:
                known = {k for k, _ in leaves(raw)} | {k.rpartition(".")[0] for k, _ in leaves(raw)}
                reason = f"refers to {match.group(1)!r}, which does not exist.{nearest(match.group(1), known)}"
            problems.append(f"{_at(key, composed)}: {reason}")
            failed.append(key)
    config = OmegaConf.create(_without(raw, {*failed, *missing_keys(config)}))
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}, problems


def _without(node: Any, unusable: set[str], prefix: str = "") -> Any:
    """Plain containers with the unusable leaves replaced by a value that no further check complains about."""
    if prefix in unusable:
        return UNUSABLE
    if isinstance(node, dict):
        return {k: _without(v, unusable, f"{prefix}.{k}" if prefix else str(k)) for k, v in node.items()}
    if isinstance(node, list):
        return [_without(v, unusable, f"{prefix}[{i}]") for i, v in enumerate(node)]
    return node


def _schema(resolved: dict[str, Any], composed: Composed) -> Iterator[str]:
    schema = OmegaConf.structured(Schema)
    for field in dataclasses.fields(Schema):
        value = resolved.get(field.name, UNUSABLE)
        if value == UNUSABLE or field.type == "Any":
            continue
        if field.name == "paths" and isinstance(value, dict):
            names = [f.name for f in dataclasses.fields(PathsSchema)]
            for unknown in [k for k in value if k not in names]:
                yield f"{_at(f'paths.{unknown}', composed)} is read by nothing.{nearest(str(unknown), names)}"
            parts = {f"paths.{k}": v for k, v in value.items() if k in names and v != UNUSABLE}
        else:
            parts = {field.name: value}
        for key, part in parts.items():
            try:
                OmegaConf.update(schema, key, part)
            except OmegaConfBaseException as error:
                yield f"{_at(key, composed)}: {str(error).splitlines()[0]}"
    stages = resolved.get("stages")
    if isinstance(stages, list):
        for stage in stages:
            if stage not in STAGES:
                yield f"{_at('stages', composed)}: {stage!r} is no stage.{nearest(str(stage), STAGES)}"
        if not stages:
            yield f"{_at('stages', composed)} is empty: a run needs one of {', '.join(STAGES)}"
    if resolved.get("test_weights") not in ("last", "best", UNUSABLE):
        yield f"{_at('test_weights', composed)} must be last or best, not {resolved.get('test_weights')!r}"
    callbacks = resolved.get("callbacks")
    nodes = callbacks.values() if isinstance(callbacks, dict) else ()
    monitored = any(isinstance(node, dict) and node.get("monitor") for node in nodes)
    start = resolved.get("ckpt_path")
    if isinstance(start, str) and start != UNUSABLE and "://" not in start and not Path(start).is_file():
        yield f"{_at('ckpt_path', composed)}: there is no file {start!r}"
    if resolved.get("test_weights") == "best" and not monitored:
        yield f"{_at('test_weights', composed)}: best by which metric? Set callbacks.checkpoint.monitor"


def _shape(resolved: dict[str, Any], composed: Composed) -> Iterator[str]:
    if not resolved.get("model"):
        yield "model is not set: choose an experiment, `+experiment=<plugin>/<name>` (`… experiments` lists them)"
    for key in ("model", "data", "trainer"):
        node = resolved.get(key)
        if node and node != UNUSABLE and not (isinstance(node, dict) and "_target_" in node):
            hint = nearest("_target_", node) if isinstance(node, dict) else ""
            yield f"{_at(key, composed)} has no _target_.{hint if 'Did you mean' in hint else ''}"
    for group in ("callbacks", "logger"):
        whole = resolved.get(group)
        if whole and whole != UNUSABLE and not isinstance(whole, dict):
            yield f"{_at(group, composed)} must be a mapping of names to nodes with a _target_, not {whole!r}"
            continue
        for name, node in (whole or {}).items() if whole != UNUSABLE else ():
            if node and node != UNUSABLE and not (isinstance(node, dict) and "_target_" in node):
                yield f"{_at(f'{group}.{name}', composed)} has no _target_ (null switches it off)"
    if not resolved.get("trainer"):
        yield "trainer is not set: choose one of the group trainer, e.g. `trainer=cpu`"


def _static(key: str, node: dict[str, Any], composed: Composed) -> Iterator[str]:
    target, place = node["_target_"], f"{key}._target_"
    if target == UNUSABLE:
        return
    if not isinstance(target, str):
        yield f"{_at(place, composed)} must be a dotted name, not {target!r}"
        return
    if refusal := untrusted(target):
        yield f"{_at(place, composed)}: {refusal}"
        return
    try:
        found = signatures.find(target)
    except signatures.NotFound as error:
        yield f"{_at(place, composed)}: {target!r} does not exist: {error}.{nearest(error.missing, error.candidates)}"
        return
    except signatures.Unknown:
        return
    except SyntaxError as error:
        line = f"{error.filename}, line {error.lineno}"
        yield f"{_at(place, composed)}: {target!r} cannot be imported: SyntaxError: {error.msg} ({line})"
        return
    if refusal := untrusted(found.module):
        yield f"{_at(place, composed)}: {target!r} is {found.module}.{found.name}, and {refusal}"
        return
    if not found.name:
        yield f"{_at(place, composed)}: {target!r} is a module, which cannot be called"
    if found.signature is not None:
        yield from _arguments(key, node, found.signature, composed)


def _arguments(key: str, node: dict[str, Any], signature: signatures.Signature, composed: Composed) -> Iterator[str]:
    target, names = node["_target_"], signature.names
    given = [k for k in node if k not in build.KEYS]
    positional = len(node.get("_args_", []))
    for name in given:
        if name not in names and not signature.open_:
            where = _at(f"{key}.{name}", composed)
            hint = nearest(name, build.KEYS if name.startswith("_") else names)
            yield f"{where} is no argument of {target}.{hint if names else ' It takes none.'}"
    if not node.get("_partial_"):
        for i, parameter in enumerate(signature.parameters):
            if parameter.required and i >= positional and parameter.name not in given:
                where = composed.origin(f"{key}._target_")
                yield f"{key} ({where}): {target} needs the argument {parameter.name!r}"
    for parameter in signature.parameters:
        if parameter.name in given and (wrong := _wrong_type(node[parameter.name], parameter.annotation)):
            yield f"{_at(f'{key}.{parameter.name}', composed)} must be {wrong}, not {node[parameter.name]!r}"


def _wrong_type(value: Any, annotation: str) -> str:
    """The annotation in words if it is made of simple types and the value is none of them."""
    if not annotation or value == UNUSABLE or (isinstance(value, dict) and "_target_" in value):
        return ""
    text = re.sub(r"^Optional\[(.*)\](?=$| \|)", r"\1 | None", annotation.strip("'\""))
    text = re.sub(r"Union\[([^\[\]]*)\]", lambda m: m.group(1).replace(", ", " | "), text)
    text = re.sub(r"\b(typing|collections\.abc)\.", "", text)
    members = [re.sub(r"\[.*\]$", "", part.strip()) for part in re.split(r"\|(?![^\[]*\])", text)]
    members = list(dict.fromkeys(members))
    if any(member not in SIMPLE for member in members):
        return ""
    allowed = tuple(t for member in members for t in SIMPLE[member])
    if isinstance(value, bool) and bool not in allowed:
        return " or ".join(members)
    return "" if isinstance(value, allowed) else " or ".join(members)


def _imported(key: str, node: dict[str, Any], composed: Composed) -> Iterator[str]:
    place = f"{key}._target_"
    try:
        target = locate(node["_target_"])
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:  # a module may do anything on import, sys.exit included
        cause = error.__cause__ or error
        yield f"{_at(place, composed)}: {node['_target_']!r} cannot be imported: {type(cause).__name__}: {cause}"
        return
    if not callable(target):
        yield f"{_at(place, composed)}: {node['_target_']!r} is a {type(target).__name__}, which cannot be called"
        return
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    yield from _arguments(
        key,
        node,
        signatures.Signature(
            tuple(signatures.Parameter(p.name, p.default is p.empty, _text(p)) for p in named),
            open_=any(p.kind is p.VAR_KEYWORD for p in parameters),
        ),
        composed,
    )


def _trainer_words(node: dict[str, Any], composed: Composed) -> Iterator[str]:
    """The words for hardware and arithmetic that Lightning would refuse only when the run folder exists."""
    import typing

    from pytorch_lightning import Trainer
    from pytorch_lightning.accelerators import AcceleratorRegistry
    from pytorch_lightning.strategies import StrategyRegistry

    def literals(annotation: Any) -> Iterator[str]:
        for argument in typing.get_args(annotation):
            if isinstance(argument, (str, int)):
                yield str(argument)
            else:
                yield from literals(argument)

    known = {
        "accelerator": ["auto", "gpu", *AcceleratorRegistry.available_accelerators()],
        "strategy": ["auto", *StrategyRegistry.available_strategies()],
        "precision": list(literals(typing.get_type_hints(Trainer.__init__)["precision"])),
    }
    for name, words in known.items():
        value = node.get(name)
        if isinstance(value, (str, int)) and str(value) not in words:
            hint = nearest(str(value), words)
            yield f"{_at(f'trainer.{name}', composed)}: {value!r} is none that Lightning knows.{hint}"


def _text(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return f"{text} | None" if parameter.default is None else text
