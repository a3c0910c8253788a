"""An experiment without training: it computes something, returns its metrics and shows its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from framework import figures


class Study(pl.LightningModule):
    """Subclass it, write ``study()``, and list ``stages: [test]`` in the experiment.

    Everything a run has, a study has too: the record, the loggers, the sweeps, a device (``self.device``).
    Gradients are off, as in any test stage; ``torch.enable_grad()`` switches them on.
    """

    def study(self) -> dict[str, float]:
        """Do the work and return the metrics by name, e.g. ``{"rms/heun/nfe10": 0.03}``."""
        raise NotImplementedError(f"{type(self).__name__} must define study()")

    @property
    def run_dir(self) -> Path:
        """The run's folder, for outputs that are neither metrics nor figures."""
        return figures.run_dir(self)

    def save_figure(self, name: str, figure: Any) -> Path:
        return figures.save_figure(self, name, figure)

    def test_dataloader(self) -> DataLoader:
        return DataLoader([0])  # type: ignore[arg-type]

    def test_step(self, batch: Any, batch_idx: int) -> None:
        # ordinary tensors, which a study may differentiate through, in place of Lightning's inference tensors
        with torch.inference_mode(False), torch.no_grad():
            metrics = self.study()
        self.log_dict({name: float(value) for name, value in metrics.items()}, batch_size=1)
