"""Figures go into the run folder and to every logger that can show a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def run_dir(module: Any) -> Path:
    """The folder of the run a module belongs to.

    Raises:
        RuntimeError: the module is not attached to a trainer.
    """
    return Path(module.trainer.default_root_dir)


def save_figure(module: Any, name: str, figure: Any, dpi: int = 150) -> Path:
    """Write a matplotlib figure to ``<run>/figures/<name>.png`` and send it to tensorboard and wandb.

    Args:
        module: the LightningModule of the run; under DDP only the first process writes.
        name: file name without its ending; may hold slashes.
        figure: a ``matplotlib.figure.Figure``.

    Returns:
        The path of the PNG.
    """
    path = run_dir(module) / "figures" / f"{name}.png"
    if not module.trainer.is_global_zero:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, bbox_inches="tight")
    for logger in module.trainer.loggers:
        kind = type(logger).__name__
        if kind == "WandbLogger":
            logger.log_image(f"figures/{name}", [str(path)])
        elif kind == "TensorBoardLogger":
            logger.experiment.add_figure(name, figure, global_step=module.global_step, close=False)
    return path
