"""Weight averaging whose horizon grows with training (Karras et al. 2024, "EDM2", section 3)."""

from __future__ import annotations

import numpy as np
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


def power_exponent(width: float) -> float:
    """Exponent gamma of the averaging profile tau^gamma whose standard deviation is `width` of the training time.

    The largest real root of gamma^3 + 7 gamma^2 + (16 - width^-2) gamma + (12 - width^-2); widths 0.05, 0.10 and
    0.15 give 16.97, 6.94 and 3.56.

    Args:
        width: sigma_rel in (0, 12^-1/2): 12^-1/2 = 0.289 is the width of the plain mean of all weights.
    """
    if not 0 < width < 12**-0.5:
        raise ValueError(f"width must lie strictly between 0 and 0.288, the width of a plain mean; got {width}")
    roots = np.roots([1.0, 7.0, 16.0 - width**-2, 12.0 - width**-2])
    return float(roots[np.abs(roots.imag) < 1e-9].real.max())


class PowerEMA(WeightAveraging):
    """Power-function moving average: after step n the average is decay * average + (1 - decay) * weights,
    with decay = (1 - 1/n)^(gamma + 1).

    The first step's weights replace the average, so nothing of the initialisation is left and runs of any length can
    use the same `width`. Validation, `on_train_end` and the `state_dict` of checkpoints see the average; the
    checkpoint also holds the raw weights, from which training goes on.

    Args:
        width: Standard deviation of the averaging window, relative to the training time so far.
    """

    def __init__(self, width: float = 0.1) -> None:
        self.exponent = power_exponent(width)
        super().__init__(use_buffers=False, multi_avg_fn=self._average)

    @torch.no_grad()
    def _average(self, averages: list[Tensor], weights: list[Tensor], updates: Tensor | int) -> None:
        n = int(updates) + 1
        decay = (1 - 1 / n) ** (self.exponent + 1)
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, 1 - decay)
