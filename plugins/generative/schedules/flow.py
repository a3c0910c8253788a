"""The straight-line schedule of flow matching and rectified flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import NoiseSchedule, as_tensor


@dataclass(frozen=True)
class Flow(NoiseSchedule):
    """``alpha = 1 - t``, ``sigma = t``, t = 1 being noise (Lipman et al. 2023; Liu et al. 2023).

    At t = 1 exactly the signal vanishes and ``sigma_tilde`` is infinite, hence ``t_max = 1 - 1e-5``
    (``sigma_tilde`` = 99 999).
    """

    t_min: float = 1e-3
    t_max: float = 1 - 1e-5

    def alpha(self, t: Tensor | float) -> Tensor:
        return 1 - as_tensor(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return as_tensor(t)

    def sigma_tilde(self, t: Tensor | float) -> Tensor:
        t = as_tensor(t)
        return t / (1 - t)

    def inverse_sigma_tilde(self, sigma_tilde: Tensor | float) -> Tensor:
        s = as_tensor(sigma_tilde)
        # Two forms of s / (1 + s): the first is right at 0, the second at infinity.
        return torch.where(s < 1, s / (1 + s), 1 / (1 + 1 / s.clamp_min(1e-30)))
