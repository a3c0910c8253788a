"""Figure of steering through the sampler."""

from __future__ import annotations

import re
from collections.abc import Mapping

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from plugins.generative.figures import tile


def adjoint_guidance_figure(metrics: Mapping[str, float], images: Mapping[str, Tensor], target: int) -> Figure:
    """Steered digits, gradient errors and peak memory.

    Args:
        metrics: Of the study adjoint_guidance.
        images: what was steered -> (n, H, W) images in [-1, 1], "before" first.
        target: Class steered to.
    """
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    pictures, errors, memory = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    palette = matplotlib.colormaps["tab10"]

    rows = list(images.values())
    height = rows[0].shape[-2] + 1
    pictures.imshow(tile(torch.cat(rows), len(rows[0])).numpy(), cmap="gray_r", vmin=-1, vmax=1)
    labels = [
        f"{name.replace('_', ', ')}\np = {metrics[f'probability/{name}']:.2f}, judged {metrics[f'judged/{name}']:.2f}"
        for name in images
    ]
    pictures.set_yticks([(row + 0.5) * height - 1 for row in range(len(rows))], labels, fontsize=9)
    pictures.set_xticks([])
    pictures.tick_params(length=0)
    for side in pictures.spines.values():
        side.set_visible(False)
    pictures.set_title(f"Steered towards {target}, through the sampler")

    for index, ((method, _), curve) in enumerate(_curves(metrics, r"mixture_error/(\w+)/()n(\d+)").items()):
        errors.loglog(*curve, "s:", color=palette(index + 6), label=f"mixture, {method}, against fine grid")
    colours = {"noise": palette(0), "conditioning": palette(1), "weights": palette(2)}
    for (what, _), curve in _curves(metrics, r"gradient_gap/(\w+)/()n(\d+)").items():
        errors.loglog(*curve, "o-", color=colours[what], label=f"digits, {what}, against autograd, same steps")
    errors.set_xlabel("steps N")
    errors.set_ylabel("relative error")
    errors.set_title("Gradient of the adjoint")
    errors.legend(fontsize=7, loc="lower left")
    low, high = errors.get_ylim()
    errors.set_ylim(low / 300, high)

    peaks = _curves(metrics, r"peak_mib/(\w+)/()n(\d+)")
    for index, ((mode, _), curve) in enumerate(peaks.items()):
        memory.loglog(*curve, "o-", color=palette(index + 3), label=mode)
    memory.set_xlabel("steps N")
    memory.set_ylabel("peak memory of forward and backward [MiB]")
    memory.set_title("Memory")
    memory.legend()
    for axis in (errors, memory):
        steps = sorted({n for curve in peaks.values() for n in curve[0]})
        axis.set_xticks(steps, [str(n) for n in steps])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    return figure


def _curves(metrics: Mapping[str, float], pattern: str) -> dict[tuple[str, str], tuple[list[int], list[float]]]:
    """(mode, what) -> (steps, values) of the metrics whose names match."""
    curves: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
    for name, value in metrics.items():
        if match := re.fullmatch(pattern, name):
            steps, values = curves.setdefault((match[1], match[2]), ([], []))
            steps.append(int(match[3]))
            values.append(value)
    return curves
