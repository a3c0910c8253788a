"""Signatures read from source text, so that a wrong argument is found without importing torch."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path


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
    if _file(parts[0]) is None:
        if importlib.util.find_spec(parts[0]) is None:
            raise NotFound(parts[0], "the Python path", [])
        raise Unknown(dotted)
    module, rest = parts[0], parts[1:]
    while rest:
        try:
            node, home = _lookup(module, rest[0])
        except (NotFound, Unknown):
            if _file(f"{module}.{rest[0]}") is None:
                raise
            module, rest = f"{module}.{rest[0]}", rest[1:]
            continue
        if isinstance(node, str):
            module, rest = node, rest[1:]
            continue
        if len(rest) > 1:
            return _member(node, home, rest[1:])
        return Found(home, rest[0], _signature(node, home))
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
    known, dynamic = [], False
    for statement in reversed(_statements(module)):
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            known.append(statement.name)
            dynamic |= statement.name == "__getattr__"
            if statement.name == name:
                return statement, module
        elif isinstance(statement, ast.ImportFrom):
            source = statement.module or ""
            if statement.level:
                base = package.split(".")[: len(package.split(".")) - (statement.level - 1)]
                source = ".".join([*base, *([source] if source else [])])
            for alias in statement.names:
                known.append(alias.asname or alias.name)
                dynamic |= alias.name == "*"
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
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [t.id for t in targets if isinstance(t, ast.Name)]
            known += names
            if name in names:
                if isinstance(statement.value, ast.Name) and statement.value.id != name:
                    return _lookup(module, statement.value.id, depth + 1)
                raise Unknown(name)
    if dynamic:
        raise Unknown(name)
    raise NotFound(name, module, [k for k in known if not k.startswith("_")])


def _signature(node: ast.stmt, home: str) -> Signature | None:
    if isinstance(node, ast.FunctionDef):
        return _arguments(node, skip_first=False)
    if isinstance(node, ast.ClassDef):
        try:
            return _class_signature(node, home)
        except (Unknown, NotFound):
            return None
    return None


def _class_signature(node: ast.ClassDef, home: str, depth: int = 0) -> Signature:
    if depth > 20:
        raise Unknown(node.name)
    methods = {s.name: s for s in node.body if isinstance(s, ast.FunctionDef)}
    if "__init__" in methods:
        return _arguments(methods["__init__"], skip_first=True)
    if "__new__" in methods or node.keywords:
        raise Unknown(node.name)
    if any("dataclass" in ast.dump(d) for d in node.decorator_list):
        return Signature(tuple(_fields(node, home, depth).values()))
    for base in node.bases:
        while isinstance(base, ast.Subscript):  # Generic[T]
            base = base.value
        dotted = ast.unparse(base)
        if dotted in ("object", "Generic", "Protocol", "ABC", "abc.ABC"):
            continue
        definition, where = _resolve(home, dotted)
        if not isinstance(definition, ast.ClassDef):
            raise Unknown(dotted)
        return _class_signature(definition, where, depth + 1)
    return Signature(())


def _fields(node: ast.ClassDef, home: str, depth: int) -> dict[str, Parameter]:
    fields: dict[str, Parameter] = {}
    for base in reversed(node.bases):
        dotted = ast.unparse(base)
        if dotted in ("object", "ABC", "abc.ABC", "Protocol") or isinstance(base, ast.Subscript):
            continue
        definition, where = _resolve(home, dotted)
        if not isinstance(definition, ast.ClassDef) or depth > 20:
            raise Unknown(dotted)
        if any("dataclass" in ast.dump(d) for d in definition.decorator_list):
            fields |= _fields(definition, where, depth + 1)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            annotation = ast.unparse(statement.annotation)
            value = ast.unparse(statement.value) if statement.value else ""
            if "ClassVar" not in annotation and "init=False" not in value:
                required = not value or (value.startswith("field(") and "default" not in value)
                fields[statement.target.id] = Parameter(statement.target.id, required, annotation)
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
    first_default = len(positional) - len(spec.defaults)
    parameters = [
        Parameter(a.arg, i < first_default, ast.unparse(a.annotation) if a.annotation else "")
        for i, a in enumerate(positional)
    ][int(skip_first) :]
    for argument, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
        annotation = ast.unparse(argument.annotation) if argument.annotation else ""
        parameters.append(Parameter(argument.arg, default is None, annotation))
    return Signature(tuple(parameters), open_=spec.kwarg is not None)
