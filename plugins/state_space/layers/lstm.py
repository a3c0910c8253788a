"""The recurrent baseline, behind the same interface."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.state_space.layers.base import StateSpaceLayer


class LSTMLayer(StateSpaceLayer):
    """A one-layer LSTM from d_model to d_model; bidirectional, each direction has half the width.

    Args:
        d_model: width, even when bidirectional.
        bidirectional: read in both directions.

    The state has shape (2, B, d_model): hidden, cell.
    """

    modes = ("recurrence",)

    def __init__(self, d_model: int, bidirectional: bool = False) -> None:
        super().__init__(d_model, "recurrence", bidirectional)
        if bidirectional and d_model % 2:
            raise ValueError(f"a bidirectional LSTM needs an even d_model, not {d_model}")
        width = d_model // 2 if bidirectional else d_model
        self.lstm = nn.LSTM(d_model, width, batch_first=True)
        self.ahead = nn.LSTM(d_model, width, batch_first=True) if bidirectional else None

    def default_state(self, batch: int) -> Tensor:
        return self.lstm.weight_hh_l0.new_zeros(2, batch, self.d_model)

    def discrete_system(self) -> tuple[Tensor, ...]:
        return ()

    def step(self, u: Tensor, state: Tensor, system: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
        y, (hidden, cell) = self.lstm(u[:, None], (state[:1].contiguous(), state[1:].contiguous()))
        return y[:, 0], torch.cat([hidden, cell])

    def _sequence(
        self, u: Tensor, lengths: Tensor | None, state: Tensor | None, return_state: bool
    ) -> tuple[Tensor, Tensor]:
        carried = None if state is None else (state[:1].contiguous(), state[1:].contiguous())
        if lengths is not None and return_state:
            packed = nn.utils.rnn.pack_padded_sequence(u, lengths.cpu(), batch_first=True, enforce_sorted=False)
            output, (hidden, cell) = self.lstm(packed, carried)
            y, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=u.shape[1])
        else:
            # padding at the end cannot reach back to valid steps: no packing, which is several times slower
            y, (hidden, cell) = self.lstm(u, carried)
        if self.ahead is not None:
            back = _reversed(self.ahead(_reversed(u, lengths))[0], lengths)
            y = torch.cat([y, back], dim=-1)
        return y, torch.cat([hidden, cell])


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence's valid part back to front."""
    if lengths is None:
        return x.flip(1)
    place = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths[:, None] - 1 - place
    index = torch.where(mirrored >= 0, mirrored, place)
    return torch.gather(x, 1, index[..., None].expand_as(x))
