"""scikit-learn's handwritten digits, pixel by pixel: the smallest real task, carried by the package itself."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from plugins.state_space.data.loading import SequenceData, Sequences


class DigitsData(SequenceData):
    """1,797 scans of 8×8 pixels in [0, 1] as sequences of 64·repeat steps; 80 % train, 20 % test, stratified.

    Args:
        batch_size, workers, fast: as ``SequenceData``.
        repeat: every pixel is shown this many times.
        split_seed: of the split.
    """

    def __init__(
        self, batch_size: int = 64, repeat: int = 1, split_seed: int = 0, workers: int = 0, fast: bool = False
    ) -> None:
        super().__init__(batch_size, workers, fast)
        if repeat < 1:
            raise ValueError(f"repeat must be at least 1, not {repeat}")
        self.repeat, self.split_seed = repeat, split_seed

    def setup(self, stage: str | None = None) -> None:
        digits = load_digits()
        parts = train_test_split(
            digits.data, digits.target, test_size=0.2, stratify=digits.target, random_state=self.split_seed
        )
        x_train, x_test = (torch.tensor(part / 16.0, dtype=torch.float32) for part in parts[:2])
        y_train, y_test = (torch.tensor(part, dtype=torch.long) for part in parts[2:])

        def sequences(pixels: torch.Tensor) -> torch.Tensor:
            return pixels.repeat_interleave(self.repeat, dim=1)[..., None]

        self.sets = {
            "train": Sequences(sequences(x_train), y_train),
            "test": Sequences(sequences(x_test), y_test),
        }
