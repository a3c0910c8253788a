"""Signatures read from source text, so that a wrong argument is found without importing torch."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Parameter:
    name: str
    required: bool
    annotation: str = ""


@dataclass(frozen=True)
class Signature:
    """``open_`` is true where the callable takes ``**kwargs`` and any further name may be right."""

    parameters: tuple[Parameter, ...]
    open_: bool = False

    @property
    def names(self) -> list[str]:
        return [p.name for p in self.parameters]


@dataclass(frozen=True)
class Found:
    """Where a dotted name is really defined."""

    module: str
    name: str
    signature: Signature | None


class NotFound(LookupError):
    """The name does not exist; ``candidates`` are the names beside it."""

    def __init__(self, missing: str, parent: str, candidates: list[str]) -> None:
        self.missing, self.parent, self.candidates = missing, parent, candidates
        super().__init__(f"{parent!r} has no {missing!r}")


class Unknown(LookupError):
    """Only running the code can tell (C extensions, lazy modules, star imports)."""


def find(dotted: str) -> Found:
    """Resolve ``package.module.Name`` through re-exports to its definition.

    Raises NotFound if it certainly does not exist, Unknown if the source text cannot say.
    """
    parts = dotted.split(".")
    if importlib.util.find_spec(parts[0]) is None:
        raise NotFound(parts[0], "the Python path", [])
    module, rest = parts[0], parts[1:]
    while rest:
        if _file(module) is None and _file(f"{module}.{rest[0]}") is None:
            return Found(module, ".".join(rest), None)  # built in or an extension: no text to read
        try:
            node, home = _lookup(module, rest[0])
        except (NotFound, Unknown) as error:
            if _file(f"{module}.{rest[0]}") is None:
                if isinstance(error, NotFound) and error.parent == module:
                    error.candidates += _submodules(module)
                raise
            module, rest = f"{module}.{rest[0]}", rest[1:]
            continue
        if isinstance(node, str):
            module, rest = node, rest[1:]
            continue
        if len(rest) > 1:
            return _member(node, home, rest[1:])
        return Found(home, getattr(node, "name", rest[0]), _signature(node, home))
    return Found(module, "", None)


def _member(node: ast.stmt, home: str, rest: list[str]) -> Found:
    """A class method such as ``Class.from_pretrained``."""
    if isinstance(node, ast.ClassDef) and len(rest) == 1:
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == rest[0]:
                return Found(home, f"{node.name}.{rest[0]}", _arguments(statement, skip_first=not _static(statement)))
    raise Unknown(rest[0])


def _static(function: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)


@cache
def _file(module: str) -> Path | None:
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for place in spec.submodule_search_locations or ():
        path = Path(place).joinpath(*rest)
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    return None


def _submodules(package: str) -> list[str]:
    file = _file(package)
    if file is None or file.name != "__init__.py":
        return []
    return [path.stem for path in file.parent.glob("*.py")] + [path.parent.name for path in file.parent.glob("*/*.py")]


@cache
def _statements(module: str) -> tuple[ast.stmt, ...]:
    path = _file(module)
    if path is None:
        raise Unknown(module)
    return tuple(_flatten(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body))


def _flatten(body: list[ast.stmt]) -> list[ast.stmt]:
    out: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, (ast.If, ast.Try, ast.With)):
            for block in ("body", "orelse", "finalbody"):
                out += _flatten(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                out += _flatten(handler.body)
        else:
            out.append(statement)
    return out


def _lookup(module: str, name: str, depth: int = 0) -> tuple[ast.stmt | str, str]:
    """The definition of ``name`` as seen in ``module`` and its home module; a string is a module's name."""
    if depth > 20:
        raise Unknown(name)
    package = module if (_file(module) or Path()).name == "__init__.py" else module.rpartition(".")[0]
    if len({key for s in _statements(module) for bound, key in _bindings(s) if bound == name}) > 1:
        raise Unknown(name)  # defined twice, under conditions that only running can decide
    known: list[str] = []
    dynamic = False
    for statement in reversed(_statements(module)):
        if isinstance(statement, DEFINITIONS):
            dynamic |= statement.name == "__getattr__"
            if statement.name == name:
                return statement, module
            known.append(statement.name)
        elif isinstance(statement, ast.ImportFrom):
            source = statement.module or ""
            if statement.level:
                base = package.split(".")[: len(package.split(".")) - (statement.level - 1)]
                source = ".".join([*base, *([source] if source else [])])
            for alias in statement.names:
                if alias.name == "*":
                    try:
                        if _exports(source, name):
                            return _lookup(source, name, depth + 1)
                        known += _names(source)
                    except NotFound as error:
                        known += error.candidates
                    except Unknown:
                        dynamic = True
                    continue
                known.append(alias.asname or alias.name)
                if known[-1] == name:
                    try:
                        return _lookup(source, alias.name, depth + 1)
                    except (NotFound, Unknown):
                        if _file(f"{source}.{alias.name}"):
                            return f"{source}.{alias.name}", source
                        raise
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                known.append(alias.asname or alias.name.split(".")[0])
                if known[-1] == name:
                    return (alias.name if alias.asname else known[-1]), module
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            names = _assigned(statement)
            known += names
            if name in names:
                if isinstance(statement.value, ast.Name) and statement.value.id != name:
                    return _lookup(module, statement.value.id, depth + 1)
                raise Unknown(name)
    if dynamic:
        raise Unknown(name)
    raise NotFound(name, module, [k for k in known if not k.startswith("_")])


def _bindings(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    """The names a statement binds, each with a key that is the same where they mean the same."""
    if isinstance(statement, DEFINITIONS):
        if not any("overload" in ast.unparse(d) for d in statement.decorator_list):
            yield statement.name, f"line {statement.lineno}"
    elif isinstance(statement, ast.Import):
        for alias in statement.names:
            name = alias.asname or alias.name.split(".")[0]
            yield name, alias.name if alias.asname else name
    elif isinstance(statement, ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name, f"{statement.level} {statement.module} {alias.name}"
    elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
        for name in _assigned(statement):
            yield name, f"line {statement.lineno}"


def _names(module: str) -> list[str]:
    """What a module defines or imports, as far as its text says."""
    names = []
    for statement in _statements(module):
        if isinstance(statement, DEFINITIONS):
            names.append(statement.name)
        elif isinstance(statement, ast.ImportFrom):
            names += [alias.asname or alias.name for alias in statement.names if alias.name != "*"]
    return [name for name in names if not name.startswith("_")]


def _exports(module: str, name: str) -> bool:
    """Whether ``from module import *`` would bring the name, were it there: its ``__all__`` decides, if written out."""
    lists = [s for s in _statements(module) if "__all__" in _assigned(s)]
    if len(lists) == 1 and isinstance(lists[0], (ast.Assign, ast.AnnAssign)) and lists[0].value:
        try:
            return name in ast.literal_eval(lists[0].value)
        except ValueError:
            return True
    if lists:
        return True
    return not name.startswith("_")


def _assigned(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [t.id for t in targets if isinstance(t, ast.Name)]


def _signature(node: ast.stmt, home: str) -> Signature | None:
    if isinstance(node, ast.FunctionDef):
        return _arguments(node, skip_first=False)
    if isinstance(node, ast.ClassDef):
        try:
            return _class_signature(node, home)
        except (Unknown, NotFound):
            return None
    return None


def _class_signature(node: ast.ClassDef, home: str) -> Signature:
    mro = _mro(node, home)
    for i, (cls, _) in enumerate(mro):
        methods = {s.name: s for s in cls.body if isinstance(s, ast.FunctionDef)}
        if "__init__" in methods:
            return _arguments(methods["__init__"], skip_first=True)
        if "__new__" in methods or cls.keywords:
            raise Unknown(cls.name)
        if _is_dataclass(cls):
            fields: dict[str, Parameter] = {}
            for base, _ in reversed(mro[i:]):
                if _is_dataclass(base):
                    fields |= _fields(base)
            return Signature(tuple(fields.values()))
        if any(not re.match(r"(\w+\.)?(final|dataclass)\b", ast.unparse(d)) for d in cls.decorator_list):
            raise Unknown(cls.name)  # attrs and the like write an __init__ of their own
    return Signature(())


def _mro(node: ast.ClassDef, home: str, depth: int = 0) -> list[tuple[ast.ClassDef, str]]:
    """The method resolution order (Python's C3 merge), without ``object`` and the typing constructs."""
    if depth > 20:
        raise Unknown(node.name)
    bases, orders = [], []
    for base in node.bases:
        while isinstance(base, ast.Subscript):  # Generic[T]
            base = base.value
        dotted = ast.unparse(base)
        if dotted.rpartition(".")[2] in ("object", "Generic", "Protocol", "ABC"):
            continue
        definition, where = _resolve(home, dotted)
        if not isinstance(definition, ast.ClassDef):
            raise Unknown(dotted)
        bases.append((definition, where))
        orders.append(_mro(definition, where, depth + 1))
    order = [(node, home)]
    queues = [*orders, bases]
    while queues := [queue for queue in queues if queue]:
        head = next((q[0] for q in queues if not any(q[0] in other[1:] for other in queues)), None)
        if head is None:
            raise Unknown(node.name)
        order.append(head)
        queues = [queue[1:] if queue[0] == head else queue for queue in queues]
    return order


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any(re.match(r"(\w+\.)?dataclass\b(?!.*init=False)", ast.unparse(d)) for d in node.decorator_list)


def _fields(node: ast.ClassDef) -> dict[str, Parameter]:
    fields: dict[str, Parameter] = {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            annotation = ast.unparse(statement.annotation)
            value = ast.unparse(statement.value) if statement.value else ""
            if not re.search(r"\bClassVar\b|\bKW_ONLY\b", annotation) and "init=False" not in value:
                required = not value or (re.match(r"(\w+\.)?field\(", value) and "default" not in value)
                annotation = _annotation(statement.annotation, statement.value)
                fields[statement.target.id] = Parameter(statement.target.id, bool(required), annotation)
    return fields


def _resolve(home: str, dotted: str) -> tuple[ast.stmt | str, str]:
    definition: ast.stmt | str = home
    where = home
    for part in dotted.split("."):
        if not isinstance(definition, str):
            raise Unknown(dotted)
        try:
            definition, where = _lookup(definition, part)
        except (NotFound, Unknown):
            if _file(f"{definition}.{part}") is None:
                raise
            definition = f"{definition}.{part}"
    return definition, where


def _arguments(function: ast.FunctionDef, skip_first: bool) -> Signature:
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [*[None] * (len(positional) - len(spec.defaults)), *spec.defaults, *spec.kw_defaults]
    parameters = [
        Parameter(argument.arg, default is None, _annotation(argument.annotation, default))
        for argument, default in zip([*positional, *spec.kwonlyargs], defaults, strict=True)
    ]
    return Signature(tuple(parameters[int(skip_first) :]), open_=spec.kwarg is not None)


def _annotation(annotation: ast.expr | None, default: ast.expr | None) -> str:
    """The annotation as text; a default of None is allowed whether it says so or not."""
    if annotation is None:
        return ""
    implied = isinstance(default, ast.Constant) and default.value is None
    return ast.unparse(annotation) + (" | None" if implied else "")
