"""Calibration: what a network's layers see at many noise levels, gathered by hooks that are gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from plugins.generative.quantization.layers import channel_axis, input_rows
from plugins.generative.quantization.rounding import Moments
from plugins.generative.schedules import NoiseSchedule

__all__ = ["Batches", "collect_inputs", "collect_moments", "noisy_batches"]

Batches = Sequence[tuple[Any, ...]]


def noisy_batches(
    clean: Tensor,
    times: Sequence[float] | Tensor,
    schedule: NoiseSchedule,
    seed: int = 0,
    extra: tuple[Tensor, ...] = (),
) -> list[tuple[Tensor, ...]]:
    """Calibration batches (α_t x + σ_t ε, t, *extra), one for each time: the inputs a denoiser sees along its way.

    Args:
        clean: data x, (B, ...); every batch uses all of it with fresh noise.
        times: of the noise levels, in the schedule's time, which is also what the network is given.
        schedule: what gives α and σ at a time.
        seed: of the noise.
        extra: further arguments of the network, (B, ...) each, such as labels.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for time in torch.as_tensor(times, dtype=torch.float64):
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)
        t = torch.full((len(clean),), float(time), dtype=clean.dtype, device=clean.device)
        batches.append((float(schedule.alpha(time)) * clean + float(schedule.sigma(time)) * noise, t, *extra))
    return batches


@contextmanager
def _observed(layers: dict[str, nn.Module], observe: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """Call ``observe(name, layer, input)`` before every forward of the layers, for the length of the block."""

    def hook_of(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            observe(name, layer, (args[0] if args else kwargs["input"]).detach())

        return hook

    handles = [layer.register_forward_pre_hook(hook_of(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sample(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` of the rows along the first axis without replacement, or all when there are fewer."""
    if len(rows) <= count:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]


def _check(batches: Batches) -> None:
    if len(batches) == 0:
        raise ValueError("batches is empty: calibration needs at least one batch of the network's arguments")


@torch.no_grad()
def collect_inputs(
    layers: dict[str, nn.Module],
    forward: Callable[..., Any],
    batches: Batches,
    max_values: int = 32768,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Tensor]:
    """A random sample of each layer's inputs, as rows of channels (n, C), equally many from every batch.

    Args:
        layers: layers by name.
        forward: called as ``forward(*batch)``; the network or anything that calls it.
        batches: tuples of arguments, one for each noise level.
        max_values: about how many numbers to keep of each layer.

    A layer that no batch reaches is absent from the result.
    """
    _check(batches)
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[Tensor]] = {}

    def observe(name: str, layer: nn.Module, x: Tensor) -> None:
        rows = x.movedim(channel_axis(layer), -1).flatten(0, -2)
        count = max(1, max_values // (rows.shape[1] * len(batches)))
        found.setdefault(name, []).append(_sample(rows, count, generator))

    with _observed(layers, observe):
        for batch in tqdm(batches, desc="calibration inputs", disable=not progress, leave=False):
            forward(*batch)
    samples = {name: torch.cat(parts) for name, parts in found.items()}
    for name, sample in samples.items():
        if not bool(torch.isfinite(sample).all()):
            raise ValueError(f"layer {name!r} saw NaN or infinity in calibration; check the batches and the network")
    return samples


@torch.no_grad()
def collect_moments(
    layers: dict[str, nn.Module],
    forward: Callable[..., Any],
    batches: Batches,
    quantize_input: dict[str, Callable[[Tensor], Tensor]] | None = None,
    max_rows: int = 1024,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, list[Moments]]:
    """Second moments of each layer's input rows, and of the same rows quantized: one ``Moments`` for each group.

    Args:
        quantize_input: by layer name, what the quantized layer does to its input; the identity where absent.
        max_rows: rows (patches of a convolution) taken at random from each batch.
    """
    _check(batches)
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, int] = {}
    quantize_input = quantize_input or {}

    def observe(name: str, layer: nn.Module, x: Tensor) -> None:
        rows = input_rows(layer, x).transpose(0, 1)  # (n, groups, K)
        pick = _sample(torch.arange(len(rows)), max_rows, generator).to(rows.device)
        x_rows = rows[pick].transpose(0, 1).double()
        if name in quantize_input:
            q_rows = input_rows(layer, quantize_input[name](x)).transpose(0, 1)[pick].transpose(0, 1).double()
            products = [x_rows.mT @ x_rows, x_rows.mT @ q_rows, q_rows.mT @ q_rows]
        else:
            products = [x_rows.mT @ x_rows]
        if name in sums:
            for total, product in zip(sums[name], products, strict=True):
                total += product
        else:
            sums[name] = products
        counts[name] = counts.get(name, 0) + len(pick)

    with _observed(layers, observe):
        for batch in tqdm(batches, desc="calibration moments", disable=not progress, leave=False):
            forward(*batch)
    moments = {}
    for name, totals in sums.items():
        xx, xq, qq = (total / counts[name] for total in (totals if len(totals) == 3 else totals * 3))
        moments[name] = [Moments(*m) for m in zip(xx, xq, qq, strict=True)]
    return moments
