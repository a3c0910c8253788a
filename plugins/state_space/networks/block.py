"""One residual block: normalisation, state-space layer, activation with a gate, dropout."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from plugins.state_space.layers import StateSpaceLayer, length_mask
from plugins.state_space.networks.normalization import MaskedBatchNorm

NORMS = ("layer", "batch", "none")
ACTIVATIONS = ("glu", "half_glu1", "half_glu2", "full_glu", "gelu", "none")


class SequenceBlock(nn.Module):
    """x ↦ x + dropout(activation(layer(norm(x)))), or with the norm behind the sum.

    Args:
        layer: maps (B, L, H) to itself.
        norm: ``layer``, ``batch`` or ``none``.
        prenorm: normalise the layer's input instead of the block's output.
        activation: on the layer's output y, with g = GELU(y): ``glu``: GLU(W g), S4's; ``half_glu1``: g·σ(W g);
            ``half_glu2``: y·σ(W g); ``full_glu``: (W₁ g)·σ(W₂ g); ``gelu``: g; ``none``: y.
        dropout: probability, of whole channels over time.
        residual: with the sum.
        norm_momentum: of ``batch``.
    """

    def __init__(
        self,
        layer: StateSpaceLayer,
        norm: str = "layer",
        prenorm: bool = False,
        activation: str = "glu",
        dropout: float = 0.0,
        residual: bool = True,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        width = layer.d_model
        self.layer = layer
        self.norm: nn.Module
        if norm == "layer":
            self.norm = nn.LayerNorm(width)
        else:
            self.norm = MaskedBatchNorm(width, norm_momentum) if norm == "batch" else nn.Identity()
        self.prenorm, self.activation, self.residual = prenorm, activation, residual
        doubled = {"glu": 2 * width, "full_glu": 2 * width, "half_glu1": width, "half_glu2": width}
        self.mix = nn.Linear(width, doubled[activation]) if activation in doubled else nn.Identity()
        self.dropout = dropout

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, L, H) to (B, L, H); padded steps come out of the layer as zero."""
        mask = None if lengths is None else length_mask(lengths, x.shape[1])
        y = self.layer(self._normalised(x, mask) if self.prenorm else x, lengths)
        y = self._finish(x, y)
        return y if self.prenorm else self._normalised(y, mask)

    def step(self, x: Tensor, state: Tensor, system: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
        """One step, (B, H), with the layer's carried state."""
        u = self._normalised(x[:, None], None)[:, 0] if self.prenorm else x
        y, state = self.layer.step(u, state, system)
        y = self._finish(x[:, None], y[:, None])
        return (y if self.prenorm else self._normalised(y, None))[:, 0], state

    def _normalised(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.norm(x, mask) if isinstance(self.norm, MaskedBatchNorm) else self.norm(x)

    def _finish(self, x: Tensor, y: Tensor) -> Tensor:
        y = self._activated(y)
        if self.dropout and self.training:
            keep = torch.rand(y.shape[0], 1, y.shape[2], device=y.device) >= self.dropout
            y = y * keep / (1 - self.dropout)
        return x + y if self.residual else y

    def _activated(self, y: Tensor) -> Tensor:
        if self.activation == "none":
            return y
        g = functional.gelu(y)
        if self.activation in ("glu", "full_glu"):
            return functional.glu(self.mix(g), dim=-1)
        if self.activation == "half_glu1":
            return g * torch.sigmoid(self.mix(g))
        if self.activation == "half_glu2":
            return y * torch.sigmoid(self.mix(g))
        return g
