"""MARDM's transformer over latents, modulated by the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks import positions


class AdaLNZeroBlock(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by a condition (Peebles & Xie 2023, "DiT").

    The modulation starts at zero, so that the block starts as the identity.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.2) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width = {width} is not divisible by heads = {heads}")
        self.heads, self.rate = heads, dropout
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) for _ in range(2))
        self.project, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        nn.init.zeros_(self.modulation[1].weight)
        nn.init.zeros_(self.modulation[1].bias)

    def forward(self, x: Tensor, condition: Tensor, attend: Tensor) -> Tensor:
        """x (B, N, width), condition (B, width), attend (B, 1, 1, N) bool."""
        shift_a, scale_a, gate_a, shift_n, scale_n, gate_n = self.modulation(condition)[:, None].chunk(6, dim=-1)
        x = x + gate_a * self._attention(self.norms[0](x) * (1 + scale_a) + shift_a, attend)
        return x + gate_n * self.network(self.norms[1](x) * (1 + scale_n) + shift_n)

    def _attention(self, x: Tensor, attend: Tensor) -> Tensor:
        batch, count, width = x.shape
        q, k, v = self.project(x).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.rate if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=rate)
        return self.output(mixed.transpose(1, 2).reshape(batch, count, width))


class MaskedTransformer(nn.Module):
    """``(latents, text) -> z``, a condition for the head at every token (Meng et al. 2025, arXiv:2411.16575).

    Args:
        latent: width of a latent.
        tokens: most latents of a clip.
        text_dim: width of a text; the zero vector is no text.
        width, layers, heads, hidden, dropout: 1024, 1, 16, 4096 and 0.2 in the paper.

    Attributes:
        mask_latent: (latent,) what stands at a masked token; learned, zero at first.
    """

    def __init__(
        self,
        latent: int,
        tokens: int,
        text_dim: int,
        width: int = 1024,
        layers: int = 1,
        heads: int = 16,
        hidden: int = 4096,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.width, self.tokens = width, tokens
        self.mask_latent = nn.Parameter(torch.zeros(latent))
        self.read, self.text = nn.Linear(latent, width), nn.Linear(text_dim, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(AdaLNZeroBlock(width, heads, hidden, dropout) for _ in range(layers))
        self.register_buffer("positions", positions(tokens, width), persistent=False)

    def forward(self, latents: Tensor, seen: Tensor, text: Tensor) -> Tensor:
        """latents (B, N, latent), seen (B, N) bool, False on padding, text (B, E) -> (B, N, width)."""
        if latents.shape[1] > self.tokens:
            raise ValueError(f"{latents.shape[1]} latents exceed tokens = {self.tokens}: crop the clips")
        x = self.dropout(self.read(latents) + self.positions[: latents.shape[1]])
        condition, attend = self.text(text), seen[:, None, None, :]
        for block in self.blocks:
            x = block(x, condition, attend)
        return x
