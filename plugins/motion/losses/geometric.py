"""Errors of a predicted clip: features, joint positions, velocities and feet (Tevet et al. 2022, arXiv:2209.14916)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Decode = Callable[[Tensor], Tensor]
"""Normalised features (B, T, D) -> joint positions (B, T, J, 3) in metres."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real frames of each clip, then over clips; values (B, T, ...), mask (B, T) bool.

    A clip without a real frame counts as 0.
    """
    per_frame = values.flatten(2).mean(-1) if values.ndim > 2 else values
    weight = mask.to(values.dtype)
    return ((per_frame * weight).sum(1) / weight.sum(1).clamp_min(1)).mean()


@dataclass(frozen=True)
class GeometricLoss:
    """A weighted sum of squared errors.

    Args:
        features: weight of the error of the features.
        positions: weight of the error of the joint positions, in square metres.
        velocities: weight of the error of the frame differences of the features after the first ``root`` ones.
        contacts: weight of the predicted velocity of feet that stand still in the data.
        root: leading features that describe the root and have no part in ``velocities`` (turn, two velocities, height).
        feet: joints of the feet.
        standing: a foot stands where it moves at most this many metres between two frames.

    Published: action sets 1, 1, 1, 1; text sets 1 (MDM) or 100 (EMDM) for ``features`` and 0 for the rest.
    """

    features: float = 1.0
    positions: float = 0.0
    velocities: float = 0.0
    contacts: float = 0.0
    root: int = 4
    feet: Sequence[int] = ()
    standing: float = 0.01

    def __post_init__(self) -> None:
        if min(self.features, self.positions, self.velocities, self.contacts) < 0:
            raise ValueError(f"the weights of {self} must not be negative")
        if self.contacts and not self.feet:
            raise ValueError("contacts needs the joints of the feet: set feet")

    @property
    def needs_positions(self) -> bool:
        return bool(self.positions or self.contacts)

    def __call__(
        self, prediction: Tensor, target: Tensor, mask: Tensor, decode: Decode | None = None
    ) -> dict[str, Tensor]:
        """The weighted terms by name; their sum is the loss.

        Args:
            prediction, target: (B, T, D) normalised features.
            mask: (B, T) bool, True on real frames.
            decode: features to joint positions; needed for ``positions`` and ``contacts``.
        """
        terms = {}
        if self.features:
            terms["features"] = self.features * masked_mean((prediction - target).square(), mask)
        both = mask[:, 1:] & mask[:, :-1]
        if self.velocities:
            error = (prediction - target)[..., self.root :].diff(dim=1)
            terms["velocities"] = self.velocities * masked_mean(error.square(), both)
        if self.needs_positions:
            if decode is None:
                raise ValueError("the weights of positions and contacts need a decoder from features to joints")
            with torch.no_grad():
                real = decode(target).to(prediction.dtype)
            made = decode(prediction).to(prediction.dtype)
            if self.positions:
                terms["positions"] = self.positions * masked_mean((made - real).square().sum(-1), mask)
            if self.contacts:
                feet = list(self.feet)
                still = real[:, :, feet].diff(dim=1).norm(dim=-1) <= self.standing
                slide = made[:, :, feet].diff(dim=1).square().sum(-1) * still
                terms["contacts"] = self.contacts * masked_mean(slide, both)
        return terms
