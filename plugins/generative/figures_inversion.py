"""Figure of exact inversion."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from plugins.generative.figures import tile


def exact_inversion_figure(
    errors: Mapping[str, Mapping[int, float]], images: Tensor, rebuilt: Mapping[tuple[str, int], Tensor]
) -> Figure:
    """Left: round-trip error against steps. Right: real images, and what each method brings back of them.

    Args:
        errors: method -> steps -> largest error of the recovered noise.
        images: (n, H, W) real images in [-1, 1].
        rebuilt: (method, steps) -> (n, H, W) images taken to noise and back.
    """
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    curves, pictures = figure.subplots(1, 2, width_ratios=(1, 1.2))
    palette = matplotlib.colormaps["tab10"]
    methods = list(dict.fromkeys(name.split("/")[0] for name in errors))
    for name, by_steps in errors.items():
        method, _, dtype = name.partition("/")
        style = "--" if dtype == "float32" else "-"
        colour = "black" if method == "ddim" else palette(methods.index(method) % 10)
        label = "naive DDIM inversion" if method == "ddim" else f"{_label(method)}, {dtype}"
        curves.loglog(list(by_steps), list(by_steps.values()), "o" + style, color=colour, label=label)
    curves.axhline(1e-12, color="0.5", ls=":", lw=1)
    steps = sorted({n for by_steps in errors.values() for n in by_steps})
    curves.set_xticks(steps, [str(n) for n in steps])
    curves.minorticks_off()
    curves.set_ylim(top=1e6)
    curves.set_xlabel("steps")
    curves.set_ylabel("largest error of the recovered noise (its std is 80)")
    curves.set_title("Noise to sample and back")
    curves.grid(alpha=0.3)
    figure.legend(fontsize=8, ncols=5, loc="outside lower center")

    ends = {min(steps), max(steps)}
    kept = {(name, n): result for (name, n), result in rebuilt.items() if n in ends}
    rows = [images, *kept.values()]
    names = ["real", *(f"{'BDIA' if name == 'bdia' else 'naive DDIM'}, {n} steps" for name, n in kept)]
    height = images.shape[-2] + 1
    pictures.imshow(tile(torch.cat(rows), len(images)).numpy(), cmap="gray_r", vmin=-1, vmax=1)
    pictures.set_yticks([(row + 0.5) * height - 1 for row in range(len(rows))], names)
    pictures.set_xticks([])
    pictures.tick_params(length=0)
    for side in pictures.spines.values():
        side.set_visible(False)
    pictures.set_title("Image to noise and back")
    return figure


def _label(method: str) -> str:
    """bdia_0.5 -> BDIA, gamma 0.5; bdia_heun -> BDIA, Heun."""
    kind = method.removeprefix("bdia_")
    return "BDIA, Heun" if kind == "heun" else f"BDIA, gamma {kind}"
