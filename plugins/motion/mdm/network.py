"""MDM's denoiser: one token of time and text, then the frames."""

from __future__ import annotations

from torch import Tensor, nn

from ..networks import Patches, TimestepEmbedding, Transformer, positions


class MDMNetwork(nn.Module):
    """``(x_t, t, text) -> x0``: an encoder over ``[time + text, frames]`` (Tevet et al. 2022, arXiv:2209.14916).

    Args:
        features, frames, text_dim: widths of a frame and of a text, and the longest clip.
        width, layers, heads, hidden, dropout, activation, norm: of the :class:`~plugins.motion.networks.Transformer`.
        patch: frames a token; 1 in the paper.
        overlap: blend the frames that neighbouring tokens write.

    Padding is masked as a key and zeroed at the input: a clip's answer does not depend on what it is batched with.
    """

    def __init__(
        self,
        features: int,
        frames: int,
        text_dim: int,
        width: int = 512,
        layers: int = 8,
        heads: int = 4,
        hidden: int = 1024,
        dropout: float = 0.1,
        activation: str = "gelu",
        norm: str = "post",
        patch: int = 1,
        overlap: bool = False,
    ) -> None:
        super().__init__()
        if frames % patch:
            raise ValueError(f"frames = {frames} must be a multiple of patch = {patch}")
        self.features, self.frames, self.patch = features, frames, patch
        self.patches = Patches(features, width, patch, overlap=overlap)
        self.time, self.text = TimestepEmbedding(width), nn.Linear(text_dim, width)
        self.transformer = Transformer(width, layers, heads, hidden, activation, dropout, norm)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("positions", positions(1 + frames // patch, width), persistent=False)

    def forward(self, x: Tensor, t: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), t (B,) step index 0 … N - 1, text (B, E), mask (B, T) bool -> x0 (B, T, D).

        T is a multiple of ``patch``, at most ``frames``.
        """
        token = (self.time(t) + self.text(text))[:, None]
        tokens, seen = self.patches.tokens(x * mask[..., None]), self.patches.seen(mask)
        hidden = self.transformer.prefixed(token, tokens, seen, self.positions, self.dropout)
        return self.patches.frames(hidden[:, 1:], seen)
