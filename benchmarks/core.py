"""What the core costs: its start-up against a bare Hydra application's, its training step against bare Lightning's.

    python -m benchmarks.core [--json] [--launches 9] [--rounds 5] [--steps 500]

Both sides of each comparison run in turn on the same machine, so that only their ratio need be trusted. Start-up is
given as processor time (user and system, with all child processes), which a busy machine disturbs less, and as time
on the clock; both are medians. Of the training steps of a round the first decile counts, which other processes hardly
disturb, and of the rounds the best.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from tqdm import tqdm

BARE_HYDRA = """
import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    pass


main()
"""

COMMANDS = {
    "help": ["--help"],
    "plugins": ["plugins"],
    "experiments": ["experiments"],
    "show": ["show", "bench/mlp"],
    "unknown experiment": ["+experiment=bench/mpl"],
    "misspelt key": ["+experiment=bench/mlp", "model.wdth=3"],
    "misspelt key in YAML": ["+experiment=bench/misspelt"],
    "wrong type": ["+experiment=bench/mlp", "model.width=wide"],
}

MODULE = '''
import statistics
import time

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class MLP(pl.LightningModule):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        sizes = [16, *[width] * depth]
        layers = [m for a, b in zip(sizes, sizes[1:]) for m in (torch.nn.Linear(a, b), torch.nn.GELU())]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = (self.layers(x) - y).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Points(pl.LightningDataModule):
    def __init__(self, steps: int, batch_size: int) -> None:
        super().__init__()
        self.steps, self.batch_size = steps, batch_size

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.steps * self.batch_size, 16, generator=generator)
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), self.batch_size, shuffle=True)


class Clock(pl.Callback):
    """The first decile of the seconds from the end of one training step to the end of the next."""

    seconds = float("nan")

    def on_train_start(self, trainer, pl_module):
        self.ends = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.ends.append(time.perf_counter())

    def on_train_end(self, trainer, pl_module):
        Clock.seconds = statistics.quantiles((b - a for a, b in zip(self.ends, self.ends[1:])), n=10)[0]
'''

EXPERIMENT = """\
# @package _global_
description: A multilayer perceptron on points.
stages: [fit]
model: {_target_: bench.modules.MLP, width: 64, depth: 2}
data: {_target_: bench.modules.Points, steps: 500, batch_size: 32}
trainer: {max_epochs: 1, log_every_n_steps: 50, enable_progress_bar: false}
callbacks: {clock: {_target_: bench.modules.Clock}, progress: null}
"""

# the width, depth and batch size of the models whose steps are timed
SIZES = {"tiny": (64, 2, 32), "small": (256, 4, 128), "medium": (512, 4, 256)}


def install(root: Path) -> None:
    """A plugin ``bench`` below ``root`` for this process and its children."""
    files = {
        "bench/__init__.py": '"""The plugin of the benchmark."""\n',
        "bench/modules.py": MODULE,
        "bench/conf/experiment/bench/mlp.yaml": EXPERIMENT,
        "bench/conf/experiment/bench/misspelt.yaml": EXPERIMENT.replace("width:", "wdth:"),
        "framework_bench-0.dist-info/METADATA": "Metadata-Version: 2.1\nName: framework-bench\nVersion: 0\n",
        "framework_bench-0.dist-info/entry_points.txt": "[framework.plugins]\nbench = bench\n",
        "app/main.py": BARE_HYDRA,
        "app/conf/config.yaml": "seed: 0\nmodel: {width: 64}\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])


def launch(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of processor time and on the clock that a command takes."""
    start = time.perf_counter()
    with open(os.devnull, "wb") as nothing:
        process = subprocess.Popen(command, cwd=folder, stdout=nothing, stderr=nothing)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start


def startup(root: Path, launches: int) -> dict[str, dict[str, float]]:
    """For each command its processor and clock seconds, and their ratios to bare Hydra's ``--help``."""
    commands = {"bare Hydra --help": [sys.executable, str(root / "app" / "main.py"), "--help"]}
    commands |= {name: [sys.executable, "-m", "framework", *argv] for name, argv in COMMANDS.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for command in commands.values():
        launch(command, root)  # writes the byte code
    for _ in tqdm(range(launches), desc="launches", leave=False):
        for name, command in commands.items():
            times[name].append(launch(command, root))
    medians = {name: [statistics.median(t[i] for t in found) for i in (0, 1)] for name, found in times.items()}
    bare = medians["bare Hydra --help"]
    return {
        name: {
            "processor_seconds": processor,
            "clock_seconds": clock,
            "processor_ratio": processor / bare[0],
            "clock_ratio": clock / bare[1],
        }
        for name, (processor, clock) in medians.items()
    }


def bare_step(size: str, steps: int, folder: Path) -> float:
    """Seconds of a step of Lightning alone, with the logger and the checkpoints that the core has by default."""
    import pytorch_lightning as pl
    from bench.modules import MLP, Clock, Points
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger

    width, depth, batch_size = SIZES[size]
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        log_every_n_steps=50,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        callbacks=[Clock(), ModelCheckpoint(dirpath=folder / "checkpoints", save_last=True, every_n_epochs=1)],
        logger=CSVLogger(folder, name="", version=""),
    )
    trainer.fit(MLP(width, depth), datamodule=Points(steps, batch_size))
    return Clock.seconds


def core_step(size: str, steps: int, folder: Path) -> float:
    """Seconds of a step of the same training launched as an experiment."""
    from bench.modules import Clock

    from framework import testing

    width, depth, batch_size = SIZES[size]
    testing.run(
        "bench/mlp",
        folder,
        f"model.width={width}",
        f"model.depth={depth}",
        f"data.steps={steps}",
        f"data.batch_size={batch_size}",
    )
    return Clock.seconds


def steps_compared(root: Path, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """For each size the best seconds of a bare step and of a step of the core, and the difference."""
    _hush()
    out = {}
    for size in SIZES:
        best = {bare_step: float("inf"), core_step: float("inf")}
        for number in tqdm(range(rounds), desc=f"{size} model", leave=False):
            for measure in best if number % 2 else reversed(best):
                folder = root / "runs" / f"{size}-{number}-{measure.__name__}"
                best[measure] = min(best[measure], measure(size, steps, folder))
        bare, core = best[bare_step], best[core_step]
        out[size] = {"bare_seconds": bare, "core_seconds": core, "added_seconds": core - bare, "ratio": core / bare}
    return out


def _hush() -> None:
    import logging

    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def table(header: list[str], rows: list[list[Any]]) -> str:
    from framework.sweep import markdown

    return markdown([header, *[[str(cell) for cell in row] for row in rows]])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON in place of Markdown")
    parser.add_argument("--launches", type=int, default=9, help="launches of each command; 0 leaves start-up out")
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each kind and size; 0 leaves them out")
    parser.add_argument("--steps", type=int, default=500, help="training steps of each")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="framework-benchmark-") as folder:
        root = Path(folder)
        install(root)
        found = {
            "startup": startup(root, arguments.launches) if arguments.launches else {},
            "step": steps_compared(root, arguments.rounds, arguments.steps) if arguments.rounds else {},
        }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    if found["startup"]:
        print(startup_table(found["startup"], arguments.launches))
    if found["step"]:
        print(step_table(found["step"], arguments.rounds, arguments.steps), end="")


def startup_table(found: dict[str, dict[str, float]], launches: int) -> str:
    rows = [
        [name, *(f"{1000 * f[k]:.0f}" for k in ("processor_seconds", "clock_seconds"))]
        + [f"{f[k]:.2f}" for k in ("processor_ratio", "clock_ratio")]
        for name, f in found.items()
    ]
    header = ["command", "processor ms", "clock ms", "processor ratio", "clock ratio"]
    return f"Start-up, medians of {launches} launches\n\n{table(header, rows)}"


def step_table(found: dict[str, dict[str, float]], rounds: int, steps: int) -> str:
    rows = [
        [size, *SIZES[size], *(f"{1e6 * f[k]:.0f}" for k in ("bare_seconds", "core_seconds", "added_seconds"))]
        + [f"{100 * (f['ratio'] - 1):+.2f} %"]
        for size, f in found.items()
    ]
    header = ["model", "width", "depth", "batch", "Lightning µs", "core µs", "added µs", "added"]
    return f"A training step, best of {rounds} rounds of {steps} steps\n\n{table(header, rows)}"


if __name__ == "__main__":
    main()
