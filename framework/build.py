"""The one place where a config becomes objects, and the only names it may call.

A ``_target_`` is code. It must be defined in the framework, in a discovered plugin, in the parts of torch and
Lightning that experiments are made of, or in a package that a plugin declares in its ``plugin.yaml``.
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from framework import plugins
from framework.errors import nearest

TRUSTED = ("framework", "torch.nn", "torch.optim", "torch.utils.data", "pytorch_lightning")
# what a node says about the call itself; containers always arrive plain, as under Hydra's `_convert_: all`
KEYS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")


def trusted_prefixes() -> tuple[str, ...]:
    found = plugins.discover()
    return (*TRUSTED, *(p.package for p in found), *(name for p in found for name in p.trusted))


def untrusted(name: str) -> str:
    """Why a dotted name may not be built, or an empty string if it may."""
    prefixes = trusted_prefixes()
    if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes):
        return ""
    parts = name.split(".")
    starts = [".".join(parts[: n + 1]) for n in range(len(parts))]
    close = [p for start in starts for p in difflib.get_close_matches(start, prefixes, n=1, cutoff=0.85)]
    return (
        f"{name!r} is not from a trusted package ({', '.join(sorted(set(prefixes)))})."
        + (f" Did you mean {close[0]!r}?" if close else "")
        + " A plugin that needs it declares it under `trusted` in its plugin.yaml."
    )


def children(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (f"{prefix}[{key}]" if isinstance(node, list) else f"{prefix}.{key}" if prefix else str(key)), value


def targets(node: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a ``_target_`` in plain containers, with its dotted key."""
    if isinstance(node, dict) and "_target_" in node:
        yield prefix, node
    for key, value in children(node, prefix):
        yield from targets(value, key)


def locate(dotted: str) -> Any:
    """Import the object a dotted name stands for.

    Raises:
        PermissionError: it is, or merely re-exports, something outside the trusted packages.
        ImportError: it does not exist or cannot be imported.
    """
    if refusal := untrusted(dotted):
        raise PermissionError(refusal)
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                continue
            raise
        break
    else:
        raise ImportError(f"no module of the name {parts[0]!r}")
    for part in parts[cut:]:
        if part.startswith("__") or not isinstance(found, (ModuleType, type)):
            raise PermissionError(f"{dotted!r} reaches into an object: only modules and classes may be looked into")
        if not hasattr(found, part):
            hint = nearest(part, [name for name in dir(found) if not name.startswith("_")])
            raise ImportError(f"{getattr(found, '__name__', found)!r} has no {part!r}.{hint}")
        found = getattr(found, part)
    home = _home(found, dotted)
    # torch re-exports its C functions under torch.nn; anything else must be defined where it is trusted
    if untrusted(home) and not (home.startswith(("torch._C", "torch._jit_internal")) or home == "torch"):
        raise PermissionError(f"{dotted!r} is defined in {home!r}, and {untrusted(home)}")
    return found


def _home(found: Any, dotted: str) -> str:
    """The module in which a callable is defined; of a method in C, that of the class it is bound to."""
    if not callable(found):
        return dotted
    owner = getattr(found, "__self__", None)
    return getattr(found, "__module__", None) or getattr(owner, "__module__", None) or type(owner).__module__


def build(node: Any, **arguments: Any) -> Any:
    """The object a config node describes, with plain containers for arguments; None for None.

    Every ``_target_`` in it is located, and thereby judged, before the first is called. ``_args_``, ``_partial_`` and
    ``_recursive_`` mean what they mean in Hydra. An error of a constructor comes out as it is, with a note.

    Args:
        node: plain containers with ``_target_`` keys, as ``preflight.check`` returns them.
        arguments: passed on as they are beside the node's own, and winning over them.
    """
    for _, inner in targets(node):
        locate(inner["_target_"])
    return _build(node, arguments)


def _build(node: Any, arguments: dict[str, Any] | None = None) -> Any:
    if isinstance(node, list):
        return [_build(value) for value in node]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {key: _build(value) for key, value in node.items()}
    inner = copy.deepcopy if node.get("_recursive_") is False else _build
    positional = [inner(value) for value in node.get("_args_", [])]
    named = {key: inner(value) for key, value in node.items() if key not in KEYS} | (arguments or {})
    target = locate(node["_target_"])
    if node.get("_partial_"):
        return functools.partial(target, *positional, **named)
    try:
        return target(*positional, **named)
    except Exception as error:
        error.add_note(f"while building {node['_target_']}")
        raise
