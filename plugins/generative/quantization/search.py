"""Search of the clipping range and of the exponent/mantissa split for the least mean squared error on given values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plugins.generative.quantization.formats import Format, FPFormat, INTFormat
from plugins.generative.quantization.quantizer import Quantizer

__all__ = ["SearchResult", "search_clip", "search_format"]


class SearchResult(NamedTuple):
    """The best quantizer, its mean squared error, and the least error each format reached, by name."""

    quantizer: Quantizer
    mse: float
    mse_by_format: dict[str, float]


def _errors(rows: Tensor, format: Format, scale: Tensor, shift: Tensor | None) -> Tensor:
    """Mean squared error of each row, for one scale and shift a row: (C, n) -> (C,)."""
    centred = rows if shift is None else rows - shift[:, None]
    return (format.quantize(centred / scale[:, None]).mul_(scale[:, None]) - centred).square_().mean(1)


def search_clip(
    x: Tensor,
    format: Format,
    channel_axis: int | None = None,
    asymmetric: bool = False,
    candidates: int = 64,
    shrink: float = 0.03,
    stretch: float = 2.0,
) -> tuple[Quantizer, Tensor]:
    """The clipping value of least mean squared error, for the whole of ``x`` or for each channel.

    Clipping values from ``shrink`` to ``stretch`` times the largest |x| are tried on a logarithmic grid (a
    floating-point grid nearly repeats itself with every factor of two, so the error is not unimodal), then twice on
    a finer grid around the best. ``stretch`` > 1 because moving the binades against the data can be worth more than
    the top codes it leaves unused.

    Args:
        x: values to fit (n >= 1), any shape.
        asymmetric: for ``INTFormat`` only: the grid spans the shrunk [min, max] with zero on it, not ±max.
        candidates: points of the logarithmic grid, at least 2.

    Returns:
        The quantizer, and the mean squared error: 0-d, or (C,).
    """
    if x.numel() == 0:
        raise ValueError("x is empty: there is nothing to search on")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x holds NaN or infinity: no clipping range fits it")
    if candidates < 2 or not 0 < shrink < stretch:
        raise ValueError(
            f"candidates={candidates}, shrink={shrink}, stretch={stretch}: need at least 2 and 0 < shrink < stretch"
        )
    if asymmetric and not isinstance(format, INTFormat):
        raise ValueError(f"asymmetric=True needs an INTFormat, not {format.name}: floating-point grids centre on zero")
    rows = x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
    rows = rows.reshape(1, -1) if channel_axis is None else rows.transpose(0, channel_axis).flatten(1)
    top = rows.abs().amax(1)
    top = torch.where(top > 0, top, 1.0)
    # Zero stays inside the range, so that it can be put on the grid exactly.
    low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
    width = torch.where(high > low, high - low, 1.0)

    def grid_of(ratio: Tensor) -> tuple[Tensor, Tensor | None]:
        if not asymmetric:
            return top * ratio / format.max_value, None
        scale = width * ratio / (format.max_value - format.min_value)
        return scale, scale * (torch.round(low * ratio / scale) - format.min_value)

    best_error = torch.full_like(top, torch.inf)
    best_ratio = torch.ones_like(top)

    def attempt(ratio: Tensor) -> None:
        error = _errors(rows, format, *grid_of(ratio))
        better = error < best_error
        best_error[better], best_ratio[better] = error[better], ratio[better]

    spacing = (stretch / shrink) ** (1 / (candidates - 1))
    for k in range(candidates):
        attempt(torch.full_like(top, shrink * spacing**k))
    for _ in range(2):
        centre, spacing = best_ratio.clone(), spacing ** (1 / 4)
        for k in (-3, -2, -1, 1, 2, 3):
            attempt(centre * spacing**k)
    scale, shift = grid_of(best_ratio)
    if channel_axis is None:
        scale, shift, best_error = scale[0], None if shift is None else shift[0], best_error[0]
    return Quantizer(format, scale, channel_axis, shift), best_error


def search_format(
    x: Tensor,
    formats: Sequence[Format],
    channel_axis: int | None = None,
    asymmetric_integers: bool = False,
    candidates: int = 64,
) -> SearchResult:
    """The format, with its best clipping range, of least mean squared error on ``x``.

    One format serves the whole tensor; with ``channel_axis`` each channel has its own clipping value (real-valued
    bias). Chen et al., arXiv:2408.06995, search both for every weight and activation tensor of a diffusion model.

    Args:
        formats: at least one, for instance ``fp_splits(8)``.
        asymmetric_integers: give integer formats the asymmetric grid.
    """
    if not formats:
        raise ValueError("formats is empty: give at least one, for instance fp_splits(8)")
    best: tuple[float, Quantizer] | None = None
    errors: dict[str, float] = {}
    for format in formats:
        asymmetric = asymmetric_integers and not isinstance(format, FPFormat)
        quantizer, error = search_clip(x, format, channel_axis, asymmetric, candidates)
        errors[format.name] = float(error.mean())
        if best is None or errors[format.name] < best[0]:
            best = errors[format.name], quantizer
    return SearchResult(best[1], best[0], errors)
