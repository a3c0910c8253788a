"""A third-party plugin that is installed for one test, without pip, and the command line called in this process."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from framework import __version__, plugins, signatures
from framework.__main__ import main

MODULES = '''
"""A line fitted to noisy points, with randomness of every kind that a resumed run must repeat."""

import time

import pytorch_lightning as pl
import torch


class Line(pl.LightningModule):
    def __init__(
        self, width: int, optimizer, noise: float = 0.1, pause: float = 0.0, fail_at_step: int | None = None
    ) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(width, 1)
        )
        self.optimizer, self.noise, self.pause, self.fail_at_step = optimizer, noise, pause, fail_at_step

    def loss(self, batch):
        x, y = batch
        return (self.layers(x).squeeze(-1) - y).square().mean()

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fail_at_step:
            raise RuntimeError(f"told to fail at step {self.global_step}")
        time.sleep(self.pause)
        x, y = batch
        loss = self.loss((x + self.noise * torch.randn_like(x), y))
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch), sync_dist=True)

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.loss(batch), sync_dist=True)

    def predict_step(self, batch, batch_idx):
        return self.layers(batch[0])

    def configure_optimizers(self):
        return self.optimizer(self.parameters())
'''

DATA = '''
"""Points of the unit square; each training sample is moved a little at every visit."""

import random

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset


class Jittered(Dataset):
    def __init__(self, x, jitter: float) -> None:
        self.x, self.jitter = x, jitter

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int):
        moved = self.x[i] + self.jitter * (torch.rand(2) + float(np.random.rand()) + random.random())
        return moved, self.x[i].sum()


class Points(pl.LightningDataModule):
    def __init__(self, count: int, batch_size: int, jitter: float = 0.05, workers: int = 0) -> None:
        super().__init__()
        self.count, self.batch_size, self.jitter, self.workers = count, batch_size, jitter, workers

    def setup(self, stage: str) -> None:
        self.x = torch.rand(2 * self.count, 2, generator=torch.Generator().manual_seed(0))

    def train_dataloader(self):
        train = Jittered(self.x[: self.count], self.jitter)
        return DataLoader(train, self.batch_size, shuffle=True, num_workers=self.workers)

    def _held_out(self):
        return DataLoader(Jittered(self.x[self.count :], 0.0), self.batch_size, num_workers=self.workers)

    val_dataloader = test_dataloader = predict_dataloader = _held_out
'''

MODEL = """
_target_: NAME.modules.Line
width: 4
optimizer:
  _target_: torch.optim.AdamW
  _partial_: true
  lr: 0.01
"""

POINTS = """
_target_: NAME.data.Points
count: 32
batch_size: 4
"""

EXPERIMENT = """
# @package _global_
defaults:
  - /model: NAME/line
  - /data: NAME/points

description: A line through points.
stages: [fit, test]
trainer:
  max_epochs: 2
  log_every_n_steps: 1
optimized_metric: val/loss
"""


@dataclass
class InstalledPlugin:
    """A package ``name`` with its metadata below ``root``, which is on the path of this process and its children.

    Its experiment ``<name>/example`` trains for 16 steps; ``model.pause`` (seconds) makes steps long enough to be
    interrupted, ``model.fail_at_step`` makes one fail.
    """

    name: str
    root: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of a child process that shall see this plugin."""
        return dict(os.environ)

    def path(self, file: str) -> Path:
        """The path of a file of the package, e.g. ``conf/experiment/toy/example.yaml``."""
        return self.root / self.name / file

    def write(self, file: str, text: str) -> Path:
        """Write a file of the package; NAME stands for the plugin's name. Takes effect at once."""
        path = self.path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n").replace("NAME", self.name), encoding="utf-8")
        if file.endswith(".py"):
            forget(self.name)
        else:
            forget_configs()
        return path

    def experiment(self, name: str, text: str, base: str | None = "example") -> str:
        """Write an experiment that changes ``base`` (None: stands alone); returns its full name."""
        head = "# @package _global_\n" + (f"defaults:\n  - {self.name}/{base}\n" if base else "")
        self.write(f"conf/experiment/{self.name}/{name}.yaml", head + textwrap.dedent(text))
        return f"{self.name}/{name}"

    def metadata(self, *requires: str, entry_points: str | None = None) -> None:
        """Write the distribution's metadata: what it requires, and its entry points."""
        folder = self.root / f"framework_{self.name}-0.1.dist-info"
        folder.mkdir(exist_ok=True)
        lines = ["Metadata-Version: 2.1", f"Name: framework-{self.name}", "Version: 0.1"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        (folder / "entry_points.txt").write_text(
            entry_points or f"[framework.plugins]\n{self.name} = {self.name}\n",
        )
        forget(self.name)

    def python(self, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
        """Run the interpreter in a child process, e.g. ``python("-m", "framework", "plugins")``."""
        options = {"env": self.env, "capture_output": True, "text": True, "timeout": 120} | options
        return subprocess.run([sys.executable, *arguments], **options)


def forget_configs() -> None:
    """Drop what this process remembers of the plugins' metadata and config files."""
    for cached in (plugins.discover, plugins.clashes):
        cached.cache_clear()


def forget(*packages: str) -> None:
    """Drop all that this process remembers of installed plugins, and the modules of these packages."""
    forget_configs()
    for cached in (signatures._file, signatures._statements):
        cached.cache_clear()
    for module in [m for m in sys.modules if m.split(".")[0] in packages]:
        del sys.modules[module]
    importlib.invalidate_caches()


@contextmanager
def installer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], InstalledPlugin]]:
    """Gives a function that installs a plugin of a name; all are gone again at the end."""
    installed: list[str] = []
    monkeypatch = pytest.MonkeyPatch()

    def one(name: str) -> InstalledPlugin:
        root = tmp_path_factory.mktemp(f"site-{name}")
        monkeypatch.syspath_prepend(str(root))
        path = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
        installed.append(name)
        plugin = InstalledPlugin(name, root)
        plugin.write("__init__.py", '"""A plugin for tests."""\n')
        plugin.write("modules.py", MODULES)
        plugin.write("data.py", DATA)
        plugin.write(f"conf/model/{name}/line.yaml", MODEL)
        plugin.write(f"conf/data/{name}/points.yaml", POINTS)
        plugin.write(f"conf/experiment/{name}/example.yaml", EXPERIMENT)
        plugin.metadata(f"framework>={__version__}")
        return plugin

    try:
        yield one
    finally:
        monkeypatch.undo()
        forget(*installed)


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], InstalledPlugin]]:
    """``install(name)`` installs a plugin of that name until the test ends."""
    with installer(tmp_path_factory) as one:
        yield one


@pytest.fixture
def plugin(install: Callable[[str], InstalledPlugin]) -> InstalledPlugin:
    """A healthy plugin named ``toy`` with the experiment ``toy/example``."""
    return install("toy")


@pytest.fixture(scope="module")
def shared_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledPlugin]:
    """The same plugin, installed once for all tests of a module, which change nothing of it but config files."""
    with installer(tmp_path_factory) as one:
        yield one("toy")


@dataclass
class Outcome:
    """How a command ended: its exit status and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(capfd: pytest.CaptureFixture, workplace: Path) -> Callable[..., Outcome]:
    """``cli("plugins")`` is ``python -m framework plugins`` in this process, with an empty working folder."""

    def call(*argv: str) -> Outcome:
        capfd.readouterr()
        try:
            status = main(list(argv))
        except SystemExit as exit:  # argparse
            status = int(exit.code or 0)
        out, err = capfd.readouterr()
        return Outcome(status, out, err)

    return call


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, and Hydra's and logging's global state put back after the test."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FRAMEWORK_DATA", str(tmp_path / "data"))  # the core sets it; this puts it back
    handlers, level = logging.root.handlers[:], logging.root.level
    yield folder
    for handler in logging.root.handlers[:]:
        if handler not in handlers:
            handler.close()
    logging.root.handlers[:], logging.root.level = handlers, level
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
