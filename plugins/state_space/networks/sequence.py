"""Encoder, blocks, pooling, decoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from plugins.state_space.layers import StateSpaceLayer, length_mask
from plugins.state_space.networks.block import SequenceBlock

POOLINGS = ("mean", "last", "none")


class SequenceModel(nn.Module):
    """A deep sequence model.

    Args:
        layer: makes one layer, called with ``d_model=…``.
        d_output: width of the result.
        d_input: width of real-valued inputs (B, L, d_input), or None for tokens.
        vocabulary: number of tokens, of integer inputs (B, L), or None.
        d_model: width of the blocks.
        n_layers: number of blocks.
        frame: consecutive steps of a real-valued input that the encoder takes together; the last is filled with zeros.
        norm, prenorm, activation, dropout, residual, norm_momentum: of each ``SequenceBlock``.
        pooling: over the valid steps: ``mean``, ``last``, or ``none`` for one result per step.

    Raises:
        ValueError: neither or both of d_input and vocabulary, or an unknown pooling.
    """

    def __init__(
        self,
        layer: Callable[..., StateSpaceLayer],
        d_output: int,
        d_input: int | None = None,
        vocabulary: int | None = None,
        d_model: int = 64,
        n_layers: int = 4,
        frame: int = 1,
        norm: str = "layer",
        prenorm: bool = False,
        activation: str = "glu",
        dropout: float = 0.0,
        residual: bool = True,
        norm_momentum: float = 0.1,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        if (d_input is None) == (vocabulary is None):
            raise ValueError("give either d_input (real-valued sequences) or vocabulary (tokens)")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, not {pooling!r}")
        if frame < 1 or (frame > 1 and d_input is None):
            raise ValueError(f"frame must be 1, or more for real-valued sequences; not {frame}")
        self.frame, self.pooling = frame, pooling
        self.encoder: nn.Module
        if d_input is None:
            self.encoder = nn.Embedding(vocabulary or 0, d_model)
        else:
            self.encoder = nn.Linear(d_input * frame, d_model)
        self.blocks = nn.ModuleList(
            SequenceBlock(layer(d_model=d_model), norm, prenorm, activation, dropout, residual, norm_momentum)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model) if prenorm else nn.Identity()
        self.decoder = nn.Linear(d_model, d_output)

    def features(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pooled features (B, d_model), or (B, L', d_model) without pooling."""
        if self.frame > 1:
            x = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % self.frame))
            x = x.unflatten(1, (-1, self.frame)).flatten(2)
            lengths = None if lengths is None else -(-lengths // self.frame)
        x = self.encoder(x)
        for block in self.blocks:
            x = block(x, lengths)
        x = self.norm(x)
        if self.pooling == "none":
            return x
        if lengths is None:
            return x.mean(1) if self.pooling == "mean" else x[:, -1]
        if self.pooling == "last":
            return x[torch.arange(len(x), device=x.device), lengths - 1]
        mask = length_mask(lengths, x.shape[1])[..., None]
        return (x * mask).sum(1) / lengths[:, None]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Results (B, d_output), or one for each step without pooling.

        Args:
            x: (B, L, d_input) real, or (B, L) integer.
            lengths: (B,) valid lengths.
        """
        return self.decoder(self.features(x, lengths))

    def default_state(self, batch: int) -> list[Tensor]:
        """States of all layers before anything was seen."""
        return [block.layer.default_state(batch) for block in self.blocks]

    def discrete_systems(self) -> list[tuple[Tensor, ...]]:
        """The discretised systems of all layers, for a long run of steps."""
        return [block.layer.discrete_system() for block in self.blocks]

    def step(
        self, x: Tensor, states: list[Tensor], systems: list[tuple[Tensor, ...]] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """One step of streaming inference without pooling: (B, d_input) or (B,) to (B, d_output), and the new states.

        Raises:
            ValueError: the model takes frames of several steps.
        """
        if self.frame > 1:
            raise ValueError("a model that takes frames is stepped frame by frame: set frame=1")
        x = self.encoder(x)
        following = []
        for i, block in enumerate(self.blocks):
            x, state = block.step(x, states[i], None if systems is None else systems[i])
            following.append(state)
        return self.decoder(self.norm(x)), following


class PairClassifier(nn.Module):
    """Do two sequences belong together? Shared features a, b; an MLP on (a, b, a·b, a−b), as in the retrieval task.

    Args:
        network: its pooled features are compared; its decoder is not used.
        d_output: classes.
    """

    def __init__(self, network: SequenceModel, d_output: int = 2) -> None:
        super().__init__()
        width = network.decoder.in_features
        self.network = network
        self.network.decoder = nn.Identity()  # type: ignore[assignment]
        self.head = nn.Sequential(nn.Linear(4 * width, width), nn.GELU(), nn.Linear(width, d_output))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, 2, L, …) and lengths (B, 2) to (B, d_output)."""
        flat = None if lengths is None else lengths.flatten()
        both = self.network.features(x.flatten(0, 1), flat)
        a, b = both.unflatten(0, (-1, 2)).unbind(1)
        return self.head(torch.cat([a, b, a * b, a - b], dim=-1))
