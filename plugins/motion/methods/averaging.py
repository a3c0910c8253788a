"""Moving averages of weights, which is what one samples with."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Averaged(nn.Module):
    """Exponential moving average of a module's parameters, as a module that answers the same calls.

    After n updates the average keeps the share ``min(decay, (1 + n) / (10 + n))`` of itself, so that the
    initialisation is soon forgotten. Buffers are copied. Always in evaluation mode; nothing in it trains.

    Args:
        module: copied as it stands.
        decay: in [0, 1); 0 follows the module.
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay = {decay} must lie in [0, 1)")
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay
        self.register_buffer("updates", torch.zeros(()))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights of ``module`` after an optimiser step."""
        kept = torch.clamp((1 + self.updates) / (10 + self.updates), max=self.decay)
        for average, weight in zip(self.module.parameters(), module.parameters(), strict=True):
            average.lerp_(weight, (1 - kept).to(weight.dtype))
        for average, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(buffer)
        self.updates += 1

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> Averaged:
        return super().train(False)
