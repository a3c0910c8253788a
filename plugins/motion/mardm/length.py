"""How long a clip should be, from its text."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LengthPredictor(nn.Module):
    """A classifier of text embeddings over the number of tokens, four linear layers.

    Args:
        text_dim: width of a text.
        tokens: most tokens of a clip.
        unit: frames a token.
        width: of the first layer; the following have half and a quarter of it.
    """

    def __init__(self, text_dim: int, tokens: int, unit: int = 4, width: int = 512) -> None:
        super().__init__()
        self.tokens, self.unit = tokens, unit
        sizes = [text_dim, width, width // 2, width // 4]
        layers: list[nn.Module] = []
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], tokens))

    def forward(self, text: Tensor) -> Tensor:
        """(B, E) -> logits (B, tokens) of 1 … ``tokens`` tokens."""
        return self.layers(text)

    def loss(self, text: Tensor, lengths: Tensor) -> Tensor:
        """Cross-entropy of the clips' true lengths in frames (B,)."""
        target = (lengths + self.unit - 1).div(self.unit, rounding_mode="floor").clamp(1, self.tokens) - 1
        return nn.functional.cross_entropy(self(text), target)

    @torch.no_grad()
    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B,) frames, multiples of ``unit``, drawn from the predicted distribution."""
        drawn = torch.multinomial(self(text).softmax(-1), 1, generator=generator).squeeze(1)
        return (drawn + 1) * self.unit
