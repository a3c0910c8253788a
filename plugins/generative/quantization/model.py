"""Post-training quantization of a whole network, in place and reversible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from plugins.generative.quantization.calibration import Batches, collect_inputs, collect_moments
from plugins.generative.quantization.concatenation import find_concatenations
from plugins.generative.quantization.formats import Format, INTFormat, parse_formats
from plugins.generative.quantization.layers import QuantizedLayer, quantizable_layers, weight_rows
from plugins.generative.quantization.quantizer import Quantizer, absmax_quantizer
from plugins.generative.quantization.rounding import Moments, learn_rounding, output_error
from plugins.generative.quantization.search import search_format

__all__ = ["LayerReport", "QuantizationConfig", "quantize_model", "quantized", "restore_model"]


@dataclass(frozen=True)
class QuantizationConfig:
    """How to quantize a network.

    Args:
        weight_formats: candidates for the weights (one format a layer, one scale an output channel), as formats or
            names (``"E4M3FN"``, ``"INT8"``, ``"FP8"`` for all splits); empty keeps them.
        input_formats: candidates for the layers' inputs (one format and scale a tensor); empty keeps them.
        search: choose clipping range and format by mean squared error; ``False`` takes the first format of each list
            at the largest magnitude (per channel for weights, per tensor for inputs).
        rounding_steps: steps of rounding learning for the weights; 0 rounds to nearest.
        split_concatenations: give each part of a concatenated input its own quantizer.
        skip: layers left alone, by name; ``*`` matches anything.
    """

    weight_formats: str | Sequence[str | Format] = ()
    input_formats: str | Sequence[str | Format] = ()
    search: bool = True
    rounding_steps: int = 0
    split_concatenations: bool = True
    skip: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight_formats", parse_formats(self.weight_formats))
        object.__setattr__(self, "input_formats", parse_formats(self.input_formats))
        object.__setattr__(self, "skip", tuple(self.skip))
        if not self.weight_formats and not self.input_formats:
            raise ValueError("weight_formats and input_formats are both empty: nothing would be quantized")
        if self.rounding_steps < 0:
            raise ValueError(f"rounding_steps={self.rounding_steps}: it must be 0 or more")
        if self.rounding_steps and not self.weight_formats:
            raise ValueError("rounding_steps needs weight_formats: rounding learning is about the weights")


class LayerReport(NamedTuple):
    """What was done to one layer. Errors are E|output change|² over E|output|² on the calibration inputs (no bias)."""

    name: str
    weight_format: str | None
    input_formats: tuple[str, ...]
    nearest_error: float
    error: float


def _weight_quantizer(weight: Tensor, config: QuantizationConfig) -> Quantizer:
    if not config.search:
        return absmax_quantizer(weight, config.weight_formats[0], channel_axis=0)
    return search_format(weight, config.weight_formats, channel_axis=0).quantizer


def _input_quantizers(sample: Tensor, parts: tuple[int, ...], config: QuantizationConfig) -> list[Quantizer]:
    pieces = sample.split(parts, dim=1)
    if not config.search:
        return [_absmax_input(piece, config.input_formats[0]) for piece in pieces]
    return [search_format(piece, config.input_formats, asymmetric_integers=True).quantizer for piece in pieces]


def _absmax_input(x: Tensor, format: Format) -> Quantizer:
    if not isinstance(format, INTFormat):
        return absmax_quantizer(x, format)
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    if not bool(high > low):
        return Quantizer(format, torch.ones_like(high))
    scale = (high - low) / (format.max_value - format.min_value)
    return Quantizer(format, scale, shift=scale * (torch.round(low / scale) - format.min_value))


def _round_weight(
    layer: nn.Module, quantizer: Quantizer | None, moments: list[Moments], steps: int
) -> tuple[Tensor, float, float]:
    """The weight on its grid, with the relative output errors of rounding to nearest and of what was done."""
    rows = weight_rows(layer)
    groups = rows.split(len(rows) // len(moments))
    pieces: list[Tensor] = []
    nearest = learned = power = 0.0
    for index, (group, moment) in enumerate(zip(groups, moments, strict=True)):
        power += float(((group.double() @ moment.xx) * group).sum())
        if quantizer is None:
            pieces.append(group)
        else:
            span = slice(index * len(group), (index + 1) * len(group))
            own = Quantizer(quantizer.format, quantizer.scale[span], channel_axis=0)
            if steps:
                result = learn_rounding(group, own, moment, steps)
                pieces.append(result.weight)
                nearest, learned = nearest + result.nearest_error, learned + result.learned_error
                continue
            pieces.append(own(group))
        error = float(output_error(group, pieces[-1], moment).sum())
        nearest, learned = nearest + error, learned + error
    power = power or 1.0
    return torch.cat(pieces).view_as(layer.weight), nearest / power, learned / power


@torch.no_grad()
def quantize_model(
    model: nn.Module,
    batches: Batches,
    config: QuantizationConfig,
    forward: Callable[..., Any] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> list[LayerReport]:
    """Replace the Linear and Conv layers of ``model`` by quantized ones, calibrated on ``batches``.

    The arithmetic is simulated: weights and inputs are rounded to their low-bit grids and multiplied in the model's own
    precision. Weights and biases of the original layers are not touched; :func:`restore_model` puts them back. Layers
    that the batches never reach are left alone. The model is calibrated in the mode (train or eval) it is in.

    Args:
        model: changed in place.
        batches: tuples of arguments, one for each noise level (see ``noisy_batches``).
        forward: called as ``forward(*batch)``; ``model`` itself where absent.
        seed: of the sampling of calibration values.

    Returns:
        One report for each quantized layer, in the order of the model.

    Raises:
        ValueError: if the model is quantized already, or nothing in it can be.
    """
    if any(isinstance(module, QuantizedLayer) for module in model.modules()):
        raise ValueError("the model is quantized already; call restore_model first")
    run = forward or model
    layers = {
        name: layer
        for name, layer in quantizable_layers(model).items()
        if not any(fnmatch(name, pattern) for pattern in config.skip)
    }
    samples = collect_inputs(layers, run, batches, seed=seed, progress=progress)
    layers = {name: layer for name, layer in layers.items() if name in samples}
    if not layers:
        raise ValueError("no Linear, Conv1d or Conv2d layer (outside `skip`) was reached by the calibration batches")
    parts = {name: (sample.shape[1],) for name, sample in samples.items()}
    if config.input_formats and config.split_concatenations:
        parts |= find_concatenations(layers, lambda: run(*batches[0]))

    inputs: dict[str, list[Quantizer]] = {}
    if config.input_formats:
        for name in tqdm(layers, desc="input formats", disable=not progress, leave=False):
            inputs[name] = _input_quantizers(samples[name], parts[name], config)
    drafts = {
        name: QuantizedLayer(layer, layer.weight, inputs.get(name), parts[name]) for name, layer in layers.items()
    }
    quantize_input = {name: draft.quantize_input for name, draft in drafts.items()} if inputs else None
    moments = collect_moments(layers, run, batches, quantize_input, seed=seed, progress=progress)

    reports = []
    for name in tqdm(layers, desc="weights", disable=not progress, leave=False):
        layer = layers[name]
        quantizer = _weight_quantizer(weight_rows(layer), config) if config.weight_formats else None
        weight, nearest, error = _round_weight(layer, quantizer, moments[name], config.rounding_steps)
        drafts[name].weight.copy_(weight)
        formats = tuple(q.format.name for q in inputs.get(name, []))
        reports.append(LayerReport(name, quantizer and quantizer.format.name, formats, nearest, error))

    _replace(model, {id(layer): drafts[name].train(layer.training) for name, layer in layers.items()})
    return reports


def _replace(model: nn.Module, substitutes: dict[int, nn.Module]) -> None:
    """Put ``substitutes[id(child)]`` in the place of every such child, wherever it is registered."""
    for module in list(model.modules()):
        if id(module) in substitutes or module in substitutes.values():
            continue
        for name, child in module._modules.items():
            if child is not None and id(child) in substitutes:
                module._modules[name] = substitutes[id(child)]


def restore_model(model: nn.Module) -> nn.Module:
    """Put the original layers back in the place of the quantized ones; returns ``model``."""
    _replace(model, {id(m): m.original for m in model.modules() if isinstance(m, QuantizedLayer)})
    return model


@contextmanager
def quantized(
    model: nn.Module,
    batches: Batches,
    config: QuantizationConfig,
    forward: Callable[..., Any] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Iterator[list[LayerReport]]:
    """:func:`quantize_model` for the length of a block, restored at its end whatever happens."""
    try:
        yield quantize_model(model, batches, config, forward, seed, progress)
    finally:
        restore_model(model)
