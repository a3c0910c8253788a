"""Signatures read from text agree with those that the imported code has."""

from __future__ import annotations

import importlib
import inspect
import sys

import pytest

from framework import signatures
from framework.signatures import NotFound, Unknown, find

REAL = [
    "pytorch_lightning.Trainer",
    "pytorch_lightning.callbacks.ModelCheckpoint",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.callbacks.StochasticWeightAveraging",
    "pytorch_lightning.loggers.TensorBoardLogger",
    "pytorch_lightning.loggers.WandbLogger",
    "pytorch_lightning.strategies.DDPStrategy",
    "pytorch_lightning.LightningModule",
    "torch.nn.Linear",
    "torch.nn.Conv2d",
    "torch.nn.LSTM",
    "torch.nn.Sequential",
    "torch.nn.CrossEntropyLoss",
    "torch.nn.GELU",
    "torch.nn.Module",
    "torch.nn.MultiheadAttention",
    "torch.nn.functional.mse_loss",
    "torch.nn.init.xavier_uniform_",
    "torch.optim.AdamW",
    "torch.optim.SGD",
    "torch.optim.Muon",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.OneCycleLR",
    "torch.utils.data.DataLoader",
    "torch.utils.data.TensorDataset",
    "framework.loggers.CSV",
    "framework.loggers.ProgressBar",
    "framework.loggers.wandb_logger",
    "framework.study.Study",
    "framework.data.fetch",
    "framework.runs.Run",
]


def imported(dotted: str):
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise AssertionError(dotted)


def assert_agrees(found: signatures.Found, target) -> None:
    parameters = inspect.signature(target).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    assert found.signature is not None
    assert found.signature.names == [p.name for p in named]
    assert [p.required for p in found.signature.parameters] == [p.default is p.empty for p in named]
    assert found.signature.open_ == any(p.kind is p.VAR_KEYWORD for p in parameters)


@pytest.mark.parametrize("dotted", REAL)
def test_agrees_with_the_imported_signature(dotted):
    target = imported(dotted)
    found = find(dotted)
    assert_agrees(found, target)
    assert target.__module__ in (found.module, "torch.optim")  # which renames its own


SHAPES = """
from __future__ import annotations

import abc
import dataclasses
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")


class Plain: ...


class Own:
    def __init__(self, a, b: int = 3, /, c=None, *args, d: str, e: float = 1.0, **rest): ...


class Inherits(Own): ...


class Mixin:
    def help(self): ...


class MixedIn(Mixin, Own): ...


class Left(Own): ...


class Right(Own):
    def __init__(self, right): ...


class Diamond(Left, Right): ...


class Typed(Generic[T], Own): ...


class Typed2(Protocol): ...


class Abstract(abc.ABC): ...


class WithNew:
    def __new__(cls, a): return super().__new__(cls)


class Meta(type):
    def __call__(cls, *args, meta): return super().__call__()


class WithMeta(metaclass=Meta): ...


class Pair(NamedTuple):
    a: int
    b: int = 3


@dataclass
class Base:
    a: int
    b: list[int] = field(default_factory=list)
    constant: ClassVar[int] = 3
    hidden: int = field(default=0, init=False)


@dataclass
class Derived(Base):
    c: str = "x"
    b: list[int] | None = None
    d: InitVar[int] = 3


@dataclass
class Required:
    a: int = field(repr=False)
    _: KW_ONLY
    b: int = dataclasses.field(default=2)


@dataclass(frozen=True)
class Frozen(Mixin):
    a: int


@dataclass(init=False)
class NoInit(Own):
    x: int


class OfDataclass(Base): ...


def decorate(cls):
    return lambda something: cls


@decorate
class Decorated: ...


def function(x, *, y=1): ...


async def later(x): ...


alias = Own
renamed = alias
table = {"Own": Own}
lazy = table["Own"]

if T:

    def conditional(a): ...
else:

    def conditional(b): ...


class Made:
    def __init__(self, a): ...

    @classmethod
    def by_class(cls, b, c=1): return cls(b)

    @staticmethod
    def by_nothing(b, c=1): return Made(b)
"""


@pytest.fixture
def shapes(plugin):
    plugin.write("shapes.py", SHAPES)
    plugin.write("stars.py", "from toy.shapes import *\nfrom toy.listed import *\n")
    plugin.write("listed.py", "__all__ = ['shown']\ndef shown(a): ...\ndef kept(b): ...\n")
    plugin.write(
        "again.py",
        """
        import os
        import toy.shapes as s
        from . import shapes, modules as m
        from .shapes import Own as Mine, function
        """,
    )
    plugin.write("lazily.py", "def __getattr__(name):\n    from toy import shapes\n    return getattr(shapes, name)\n")
    plugin.write("sub/__init__.py", "from ..shapes import Own\nfrom .deep import *\n")
    plugin.write("sub/deep.py", "from ..shapes import Derived\n")
    plugin.write("circle.py", "from toy.circle2 import Thing\n")
    plugin.write("circle2.py", "from toy.circle import Thing\n")
    plugin.write(
        "tried.py", "try:\n    from toy.nothing import Own\nexcept ImportError:\n    from toy.shapes import Own\n"
    )
    return plugin


@pytest.mark.parametrize(
    "name",
    "Plain Abstract Own Inherits MixedIn Diamond Typed Base Derived Required Frozen NoInit OfDataclass function "
    "alias renamed Made.by_class Made.by_nothing".split(),
)
def test_every_shape_of_signature(name, shapes):
    dotted = f"toy.shapes.{name}"
    assert_agrees(find(dotted), imported(dotted))


@pytest.mark.parametrize(
    ("dotted", "home"),
    [
        ("toy.again.Mine", "toy.shapes.Own"),
        ("toy.again.function", "toy.shapes.function"),
        ("toy.again.shapes.Own", "toy.shapes.Own"),
        ("toy.again.s.Own", "toy.shapes.Own"),
        ("toy.again.m.Line", "toy.modules.Line"),
        ("toy.stars.Derived", "toy.shapes.Derived"),
        ("toy.stars.shown", "toy.listed.shown"),
        ("toy.sub.Own", "toy.shapes.Own"),
        ("toy.sub.Derived", "toy.shapes.Derived"),
        ("toy.sub.deep.Derived", "toy.shapes.Derived"),
    ],
)
def test_re_exports_lead_to_the_definition(dotted, home, shapes):
    found = find(dotted)
    assert f"{found.module}.{found.name}" == home
    assert_agrees(found, imported(dotted))


@pytest.mark.parametrize("name", ["WithNew", "WithMeta", "Pair", "Decorated", "later"])
def test_unclear_signatures_are_not_guessed(name, shapes):
    """None accepts every argument here; the import decides later."""
    assert find(f"toy.shapes.{name}").signature is None


@pytest.mark.parametrize(
    "dotted",
    [
        "toy.lazily.Own",
        "toy.shapes.lazy",
        "toy.shapes.conditional",
        "toy.circle.Thing",
        "toy.tried.Own",
        "toy.shapes.Inherits.by_class",
    ],
)
def test_unknown_where_only_running_the_code_can_tell(dotted, shapes):
    with pytest.raises(Unknown):
        find(dotted)


@pytest.mark.parametrize(
    ("dotted", "missing", "candidate"),
    [
        ("toy.modlues.Line", "modlues", "modules"),
        ("toy.modules.Lien", "Lien", "Line"),
        ("toy.sub.deeep", "deeep", "deep"),
        ("toy.stars.Derivd", "Derivd", "Derived"),
        ("toy.stars.kept", "kept", "shown"),
        ("toy.again.shapes.Onw", "Onw", "Own"),
        ("torch.nn.Lineer", "Lineer", "Linear"),
        ("torch.optim.AdamV", "AdamV", "AdamW"),
        ("pytorch_lightning.calbacks.Timer", "calbacks", "callbacks"),
    ],
)
def test_what_does_not_exist_is_missed_with_its_neighbours(dotted, missing, candidate, shapes):
    with pytest.raises(NotFound) as caught:
        find(dotted)
    assert caught.value.missing == missing
    assert candidate in caught.value.candidates


def test_package_that_is_not_installed():
    with pytest.raises(NotFound, match="no 'no_such_package'"):
        find("no_such_package.Thing")


def test_module_itself_is_found_without_a_name(shapes):
    found = find("toy.again.shapes")
    assert (found.module, found.name, found.signature) == ("toy.shapes", "", None)


@pytest.mark.parametrize(("dotted", "home"), [("toy.modules.time.sleep", "time"), ("toy.again.os.makedirs", "os")])
def test_a_module_without_text_is_named_as_the_home(dotted, home, shapes):
    assert find(dotted).module == home


def test_reading_imports_nothing(shapes):
    for dotted in ["toy.shapes.Own", "toy.sub.Derived", "toy.stars.shown"]:
        find(dotted)
    assert not [name for name in sys.modules if name.split(".")[0] == "toy"]


def test_annotations_are_kept_and_a_default_of_none_is_allowed(plugin):
    plugin.write("annotated.py", "def f(a: int, b: str = None, c: 'list[int]' = (), *, d: float | None = None): ...\n")
    signature = find("toy.annotated.f").signature
    assert [p.annotation for p in signature.parameters] == ["int", "str | None", "'list[int]'", "float | None | None"]
