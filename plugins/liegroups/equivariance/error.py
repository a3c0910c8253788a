"""How far a module is from commuting with a group: ``equivariance_error(module, group)`` for every module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from plugins.liegroups.data.warp import warp
from plugins.liegroups.equivariance.fields import random_pattern
from plugins.liegroups.groups import LieGroup
from plugins.liegroups.haar import CoordinateNormal, FiniteGroupRule, Samples
from plugins.liegroups.layers import (
    DepthwiseGroupConv,
    FieldNorm,
    GroupConv,
    GroupPool,
    LiftingConv,
    ProjectionConv,
    SeparableGroupConv,
)
from plugins.liegroups.layers.grid import kernel_offsets

Action = Callable[[Tensor, Tensor], Tensor]
"""``action(h, x)`` with one element ``h`` [m, m] and a batch ``x``."""


def random_moves(group: LieGroup, n: int, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """``n`` float64 elements to test with: coordinates normal with standard deviation ``scale``; for a finite group its
    elements after the identity, in turn."""
    elements = getattr(group, "elements", None)
    if elements is not None:
        index = 1 + torch.arange(n) % max(len(elements) - 1, 1)
        return elements[index % len(elements)]
    v = scale * torch.randn(n, group.dim, generator=generator, dtype=torch.float64)
    return group.from_coordinates(v)


@torch.no_grad()
def equivariance_error(
    module: nn.Module, group: LieGroup, x: Tensor | None = None, *, action_in: Action | None = None,
    action_out: Action | None = None, inp: Samples | None = None, out: Samples | None = None, elements: int = 4,
    scale: float = 0.2, generator: torch.Generator | None = None,
) -> float:  # fmt: skip
    """Relative error ``|Phi(h x) - h Phi(x)| / |Phi(x)|``, root mean square over ``elements`` random h.

    - A layer of this package: x is an analytic pattern moved exactly, the output samples are moved along with h
      (``h g_i``), and outputs are compared at the fixed pixel in the centre. The input samples stay, so the error is
      that of the integral over the group and of the pixel grid. ``inp`` and ``out`` default to 64 and 4 random
      samples, or all elements of a finite group.
    - Any other module: images ``x`` [batch, channels, side, side], by default analytic patterns. ``action_in``
      defaults to resampling the images (exact for patterns), ``action_out`` to the identity: the module is taken to
      be invariant, and the error is relative to the spread of its outputs over the batch.

    The module is evaluated in evaluation mode and its own dtype, and left as it was. ``scale`` is the standard
    deviation of the coordinates of h; ``generator`` makes the draw reproducible (default: seed 0).
    """
    if elements < 1:
        raise ValueError(f"elements={elements} must be at least 1")
    generator = generator or torch.Generator().manual_seed(0)
    moves = random_moves(group, elements, scale, generator)
    was_training = module.training
    module.eval()
    try:
        if isinstance(module, _LAYERS) and x is None and action_in is None:
            pairs = _layer_pairs(module, group, moves, inp, out, generator)
            spread = False
        else:
            pairs = _module_pairs(module, group, moves, x, action_in, action_out, generator)
            spread = action_out is None
        numerator = denominator = 0.0
        for moved, expected in pairs:
            reference = expected - expected.mean(0, keepdim=True) if spread else expected
            numerator += float((moved - expected).double().square().mean())
            denominator += float(reference.double().square().mean())
    finally:
        module.train(was_training)
    return (numerator / denominator) ** 0.5 if denominator > 0 else float(numerator > 0)


_LAYERS = (LiftingConv, GroupConv, SeparableGroupConv, DepthwiseGroupConv, ProjectionConv, GroupPool, FieldNorm)


def _dtype_device(module: nn.Module) -> tuple[torch.dtype, torch.device]:
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype, tensor.device
    return torch.float64, torch.device("cpu")


def _default_samples(group: LieGroup, n: int, generator: torch.Generator) -> Samples:
    if getattr(group, "elements", None) is not None:
        return FiniteGroupRule(group)()
    return CoordinateNormal(group, 0.5)(n, generator)


def _layer_pairs(module, group, moves, inp, out, generator):
    dtype, device = _dtype_device(module)
    size = getattr(module, "kernel_size", 1)
    unit = getattr(module, "unit", 1.0)
    channels = getattr(module, "in_channels", None) or (
        module.batch_norm.num_features if getattr(module, "batch_norm", None) is not None else 3
    )
    inp = (inp or _default_samples(group, 64, generator)).to(dtype=torch.float64, device="cpu")
    out = (out or _default_samples(group, 4, generator)).to(dtype=torch.float64, device="cpu")
    grid = kernel_offsets(size, torch.float64) / unit
    radius = size / 2 / unit
    pattern = random_pattern(group, 4, channels, radius, width=0.45 * max(radius, 1 / unit), generator=generator)

    def place(samples: Samples) -> Samples:
        return samples.to(dtype=dtype, device=device)

    def respond(h: Tensor) -> Tensor:
        if isinstance(module, LiftingConv):
            image = pattern.image(group, h, grid).unflatten(-1, (size, size)).to(device, dtype)
            y = module(image, place(out.left_translate(group, h)))
            return _centre(y)
        if isinstance(module, FieldNorm):
            # normalisation acts pointwise: its statistics must not change under a permutation of space and samples
            moved = out.left_translate(group, h)
            return module(pattern.field(group, h, grid, moved).unflatten(-1, (size, size)).to(device, dtype))
        field = pattern.field(group, h, grid, inp).unflatten(-1, (size, size)).to(device, dtype)
        if isinstance(module, GroupPool):
            return module(field, place(inp)).flatten(1)
        if isinstance(module, ProjectionConv):
            return _centre(module(field, place(inp)))
        return _centre(module(field, place(inp), place(out.left_translate(group, h))))

    identity = group.identity(dtype=torch.float64)
    expected = respond(identity)
    for h in moves:
        yield respond(h), expected


def _centre(y: Tensor) -> Tensor:
    return y[..., y.shape[-2] // 2, y.shape[-1] // 2]


def _module_pairs(module, group, moves, x, action_in, action_out, generator):
    dtype, device = _dtype_device(module)
    if x is None:
        side, unit = 33, 1.0
        channels = next((m.in_channels for m in module.modules() if hasattr(m, "in_channels")), 1)
        unit = next((m.unit for m in module.modules() if hasattr(m, "unit")), 1.0)
        grid = kernel_offsets(side, torch.float64) / unit
        pattern = random_pattern(group, 8, channels, side / 6 / unit, 2.0 / unit, generator=generator)

        def image(h: Tensor) -> Tensor:
            return pattern.image(group, h, grid).unflatten(-1, (side, side)).to(device, dtype)

        x = image(group.identity(dtype=torch.float64))
        moved = [image(h) for h in moves]
    else:
        unit = next((m.unit for m in module.modules() if hasattr(m, "unit")), 1.0)
        act = action_in or (
            lambda h, images: warp(images, _in_pixels(h, unit).to(images.device).expand(len(images), -1, -1))
        )
        moved = [act(h, x) for h in moves]
    expected = module(x)
    for h, image_h in zip(moves, moved, strict=True):
        yield module(image_h), action_out(h, expected) if action_out else expected


def _in_pixels(h: Tensor, unit: float) -> Tensor:
    """A map of the group's unit of length as a map of pixels: only projective maps change."""
    if h.shape[-1] == 2 or unit == 1.0:
        return h
    scale = torch.diag(torch.tensor([unit, unit, 1.0], dtype=h.dtype))
    return scale @ h @ torch.linalg.inv(scale)
