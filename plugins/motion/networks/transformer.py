"""The transformer encoder of MDM and EMDM, on fused attention, with keys masked by length."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "selu": F.selu, "relu": F.relu, "silu": F.silu}


class TransformerLayer(nn.Module):
    """Self-attention and a two-layer network, each with a residual (Vaswani et al. 2017).

    Args:
        width: of a token, divisible by ``heads``.
        heads: of the attention.
        hidden: width of the network's inner layer.
        activation: one of :data:`ACTIVATIONS`.
        dropout: on attention weights, inner layer and both residual branches.
        norm: ``"post"`` normalises sums (the papers'), ``"pre"`` the branches' inputs, which trains at higher rates.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: str = "gelu",
        dropout: float = 0.1,
        norm: str = "post",
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width = {width} is not divisible by heads = {heads}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation = {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        if norm not in ("post", "pre"):
            raise ValueError(f"norm = {norm!r} is neither 'post' nor 'pre'")
        self.heads, self.post, self.activation = heads, norm == "post", activation
        self.project, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, attend: Tensor | None = None) -> Tensor:
        """x (B, N, width); attend (B, 1, 1, N) bool, True on the keys that may be seen, or None for all."""
        if self.post:
            x = self.norms[0](x + self._attention(x, attend))
            return self.norms[1](x + self._network(x))
        x = x + self._attention(self.norms[0](x), attend)
        return x + self._network(self.norms[1](x))

    def _attention(self, x: Tensor, attend: Tensor | None) -> Tensor:
        batch, count, width = x.shape
        q, k, v = self.project(x).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=rate)
        return self.dropout(self.output(mixed.transpose(1, 2).reshape(batch, count, width)))

    def _network(self, x: Tensor) -> Tensor:
        return self.dropout(self.outer(self.dropout(ACTIVATIONS[self.activation](self.inner(x)))))


class Transformer(nn.Module):
    """A stack of :class:`TransformerLayer`; pre-norm stacks end in a LayerNorm."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        activation: str = "gelu",
        dropout: float = 0.1,
        norm: str = "post",
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers = {layers} must be at least 1")
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, hidden, activation, dropout, norm) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width) if norm == "pre" else nn.Identity()

    def prefixed(
        self, prefix: Tensor, tokens: Tensor, seen: Tensor, positions: Tensor, dropout: nn.Module | None = None
    ) -> Tensor:
        """``forward`` over tokens (B, N, width) behind a prefix (B, P, width) that all may see, positions added.

        Args:
            seen: (B, N) bool, of the tokens.
            positions: (P + N or more, width).
            dropout: of what is read.
        """
        x = torch.cat([prefix, tokens], dim=1)
        x = x + positions[: x.shape[1]]
        every = torch.cat([seen.new_ones(len(seen), prefix.shape[1]), seen], dim=1)
        return self(x if dropout is None else dropout(x), every)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x (B, N, width); seen (B, N) bool, False on padding, which no token attends to."""
        attend = None if seen is None else seen[:, None, None, :]
        for layer in self.layers:
            x = layer(x, attend)
        return self.norm(x)
