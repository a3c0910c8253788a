"""The loggers and the progress bar, set up so that everything lands in the run folder and survives a resume."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, WandbLogger


class ProgressBar(TQDMProgressBar):
    """Lightning's bar on a terminal; one line an epoch where the output goes to a file."""

    def __init__(self) -> None:
        self.on_terminal = sys.stderr.isatty()
        super().__init__(refresh_rate=1 if self.on_terminal else 0)

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.on_terminal:
            super().on_train_epoch_end(trainer, pl_module)
        elif trainer.is_global_zero:
            metrics = (f"{name} {value:.4g}" for name, value in trainer.progress_bar_metrics.items())
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", *metrics, file=sys.stderr, flush=True)


class CSV(CSVLogger):
    """``metrics.csv`` in the run folder. A resumed run keeps the rows of the earlier session."""

    def __init__(self, folder: str, flush_logs_every_n_steps: int = 100) -> None:
        self._keep_earlier_rows(Path(folder))
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=flush_logs_every_n_steps)

    @staticmethod
    def _keep_earlier_rows(folder: Path) -> None:
        current = folder / "metrics.csv"
        if current.is_file():
            number = len(list(folder.glob("metrics.session*.csv"))) + 1
            current.rename(folder / f"metrics.session{number}.csv")


def join_sessions(folder: Path) -> None:
    """One ``metrics.csv`` from the sessions of a resumed run; a step logged twice keeps its last values."""
    sessions = sorted(folder.glob("metrics.session*.csv"), key=lambda p: int(p.stem.removeprefix("metrics.session")))
    current = folder / "metrics.csv"
    if not sessions:
        return
    rows: list[dict[str, str]] = []
    for path in [*sessions, *([current] if current.is_file() else [])]:
        with path.open(newline="") as file:
            new = list(csv.DictReader(file))
        steps = [int(r["step"]) for r in new if r.get("step")]
        if steps:
            rows = [r for r in rows if not r.get("step") or int(r["step"]) < min(steps)]
        rows += new
    names = list(dict.fromkeys(name for row in rows for name in row))
    part = folder / ".metrics.csv.part"
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    part.replace(current)
    for path in sessions:
        path.unlink()


def wandb_logger(
    folder: str, project: str, name: str | None = None, tags: list[str] | None = None, offline: bool = True
) -> WandbLogger:
    """A wandb run of its own in ``<run>/wandb``. The environment variable WANDB_MODE wins over ``offline``.

    A resumed run continues under the same id.
    """
    if mode := os.environ.get("WANDB_MODE"):
        offline = mode in ("offline", "dryrun")
    earlier = sorted(Path(folder).glob("wandb/*run-*"))
    run_id = earlier[-1].name.rpartition("-")[2] if earlier else None
    run_name = name or "/".join(Path(folder).resolve().parts[-3:])
    return WandbLogger(name=run_name, save_dir=folder, project=project, offline=offline, id=run_id, tags=tags or None)


def finish_wandb() -> None:
    """Close the wandb run of this process: otherwise the next job of a sweep would log into it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()
