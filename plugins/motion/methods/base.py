"""The common face of MDM, EMDM and MARDM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from plugins.generative.rates import warm_cosine

from ..losses.geometric import Decode
from ..networks.masks import check_lengths

Noise = Callable[[tuple[int, ...]], Tensor]
"""``noise(shape) -> unit normals``; the first dimension is the clips'."""

Edit = tuple[Tensor, Tensor]
"""``known`` (B, frames, 1 or D) bool, and ``motion`` (B, frames, D), which must stay where that is True."""

Batch = Mapping[str, Any]
"""``motion`` (B, T, D) normalised, ``lengths`` (B,), ``mask`` (B, T) bool, ``text_emb`` (B, E)."""


class Update(NamedTuple):
    """One optimiser step that a method asks for.

    Attributes:
        optimizer: which of the method's optimisers; its gradients are cleared before ``loss.backward()``.
        loss: a scalar with a graph.
        logs: what to show, by name.
    """

    optimizer: str
    loss: Tensor
    logs: dict[str, Tensor]


class Method(nn.Module, ABC):
    """A text-conditioned generator of variable-length motion, with what is needed to train it.

    Whoever trains it goes through ``updates(batch, progress)`` and for each one clears the gradients of the named
    optimiser, propagates the loss, steps, and calls ``stepped(name)``. The next update is computed after the step.

    Args:
        features: width of a frame.
        frames: longest clip, in frames.
        warmup: share of the budget over which learning rates rise.
        final_rate: learning rate at the end, as a factor on the full one (a cosine leads there).

    Attributes:
        decode: normalised features -> joint positions (B, T, J, 3); set by whoever knows the representation, needed
            by losses on positions alone.
        quick: options of ``generate`` that make it a matter of moments, to see that it runs.
    """

    quick: Mapping[str, Any] = {}

    def __init__(self, features: int, frames: int, warmup: float = 0.02, final_rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup = {warmup} must lie in [0, 1)")
        self.features, self.frames = features, frames
        self.warmup, self.final_rate = warmup, final_rate
        self.decode: Decode | None = None

    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Fresh optimisers by name."""

    @abstractmethod
    def updates(self, batch: Batch, progress: float) -> Iterator[Update]:
        """The optimiser steps on one batch, at a used share ``progress`` in [0, 1] of the training budget."""

    def rate(self, optimizer: str, progress: float) -> float:
        """Factor on the learning rate of one optimiser."""
        return warm_cosine(progress, self.warmup, self.final_rate)

    def stepped(self, optimizer: str) -> None:
        """Called after each optimiser step; keeps averages."""
        return None

    @abstractmethod
    def generate(
        self,
        text_emb: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        *,
        noise: Noise | None = None,
        known: Tensor | None = None,
        motion: Tensor | None = None,
    ) -> Tensor:
        """Clips for texts, from the averaged weights.

        Args:
            text_emb: (B, E) text embeddings; a zero row is no text.
            lengths: (B,) frames, each in 1 … ``frames``.
            generator: of the random numbers, on the model's device; torch's global one when omitted.
            noise: source of unit normals in its place. A clip comes out the same, to rounding, whatever it is
                batched with, as long as its rows of noise are the same.
            known: (B, frames) or (B, frames, D) bool, True where ``motion`` is given and must stay.
            motion: (B, frames, D) normalised features, read where ``known``.

        Returns:
            (B, frames, D) normalised features, zero on padding.
        """

    def check_batch(self, batch: Batch) -> None:
        """Refuse a batch of the wrong shape, naming what is wrong."""
        shape = tuple(batch["motion"].shape)
        if shape[1:] != (self.frames, self.features):
            raise ValueError(
                f"motion has shape {shape}; this {type(self).__name__} was built for (B, {self.frames}, "
                f"{self.features}): set frames and features to the data's"
            )

    def open_request(
        self,
        text_emb: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None,
        noise: Noise | None,
        known: Tensor | None,
        motion: Tensor | None,
    ) -> tuple[Noise, Edit | None]:
        """What ``generate`` begins with: the arguments checked, the source of noise, and the edit if there is one."""
        if text_emb.ndim != 2 or lengths.shape != text_emb.shape[:1]:
            raise ValueError(
                f"text_emb (B, E) and lengths (B,) do not belong together: shapes {tuple(text_emb.shape)} and "
                f"{tuple(lengths.shape)}"
            )
        check_lengths(lengths, self.frames)
        source = noise or gaussian_noise(text_emb, generator)
        return source, guard_known(known, motion, len(text_emb), self.frames)


def gaussian_noise(like: Tensor, generator: torch.Generator | None) -> Noise:
    """Unit normals of the dtype and device of ``like``."""

    def noise(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)

    return noise


def guard_known(known: Tensor | None, motion: Tensor | None, clips: int, frames: int) -> Edit | None:
    """``known`` as (B, frames, 1 or D) bool with its ``motion``, or None without an edit.

    Raises:
        ValueError: one is given without the other, or a shape is wrong.
    """
    if known is None and motion is None:
        return None
    if known is None or motion is None:
        raise ValueError("an edit needs both: known says which frames stay, motion holds them")
    if known.shape[:2] != (clips, frames) or motion.shape[:2] != (clips, frames):
        raise ValueError(
            f"known and motion must begin with (B, frames) = ({clips}, {frames}); got {tuple(known.shape)} and "
            f"{tuple(motion.shape)}"
        )
    return (known if known.ndim == 3 else known[..., None]), motion


def keep_known(x: Tensor, edit: Edit | None) -> Tensor:
    """Motion x (B, T, D), T at most ``frames``, with what an edit gives put in its place."""
    if edit is None:
        return x
    known, motion = (part[:, : x.shape[1]] for part in edit)
    return torch.where(known, motion, x)
