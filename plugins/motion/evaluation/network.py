"""The judge's network: a small convolutional classifier of motion that also places motions and texts in one space."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = 3  # halvings of the frame rate


class Judgement(NamedTuple):
    """embedding (B, E), content (B, C) and style (B, S) logits."""

    embedding: Tensor
    content: Tensor
    style: Tensor


class _Block(nn.Module):
    """Residual convolution over time that sees real frames only."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 1)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = (F.gelu(self.norm(x)) * mask).mT
        y = F.gelu(self.first(y))
        y = F.dropout(self.second(y), self.dropout, self.training).mT
        return (x + y) * mask


class MotionEvaluator(nn.Module):
    """Classifies content and style of normalised features, and embeds them for Fréchet distances and retrieval.

    Padded frames never matter: a clip gets the same judgement whatever it is batched with.

    Args:
        features: leading columns of a frame that are looked at. The first 4 + 3(J − 1) say everything about the
            motion; judging redundant columns would punish what no animation shows (Meng et al. 2025, sec. 3).
        text_dim: width of text embeddings.
        contents, styles: numbers of labels.
        width: channels.
        embedding: width E of the embedding. Small, so that a few hundred clips determine its covariance.
        dropout: of the blocks, and of the text embedding.
    """

    def __init__(
        self,
        features: int,
        text_dim: int,
        contents: int,
        styles: int,
        width: int = 128,
        embedding: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.features = features
        self.inlet = nn.Conv1d(features, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(STRIDES + 1))
        self.down = nn.ModuleList(nn.Conv1d(width, width, 4, stride=2, padding=1) for _ in range(STRIDES))
        self.embedding = nn.Sequential(
            nn.Linear(2 * width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, embedding)
        )
        self.content = nn.Linear(embedding, contents)
        self.style = nn.Linear(embedding, styles)
        self.text = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(text_dim, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, embedding)
        )

    def embed(self, motion: Tensor, mask: Tensor) -> Tensor:
        """Embedding (B, E) of normalised features (B, T, D ≥ features) and mask (B, T), real frames first.

        Raises:
            ValueError: too few columns, or a clip without a real frame.
        """
        if motion.shape[-1] < self.features:
            raise ValueError(f"the evaluator reads {self.features} columns a frame; motion has {motion.shape[-1]}")
        if mask.shape != motion.shape[:2] or not bool(mask.any(-1).all()):
            raise ValueError("mask must be (B, T) with at least one real frame in every clip")
        unit = 2**STRIDES
        extra = -motion.shape[1] % unit
        x = F.pad(motion[..., : self.features], (0, 0, 0, extra))
        real = F.pad(mask, (0, extra)).unsqueeze(-1)
        x = self.inlet((x * real).mT).mT * real
        for i, block in enumerate(self.blocks):
            x = block(x, real)
            if i < STRIDES:
                real = real[:, ::2]
                x = self.down[i](x.mT).mT * real
        mean = x.sum(1) / real.sum(1)
        peak = x.masked_fill(~real, -torch.inf).amax(1)
        return self.embedding(torch.cat([mean, peak], -1))

    def embed_text(self, text_emb: Tensor) -> Tensor:
        """Texts (B, text_dim) in the space of the motions, (B, E)."""
        return self.text(text_emb)

    def forward(self, motion: Tensor, mask: Tensor) -> Judgement:
        embedding = self.embed(motion, mask)
        return Judgement(embedding, self.content(embedding), self.style(embedding))
