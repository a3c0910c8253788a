"""``liegroups/equivariance``: the equivariance error of every layer against the number of samples of the group."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from framework.study import Study
from plugins.liegroups.equivariance import equivariance_error
from plugins.liegroups.figures import convergence_figure
from plugins.liegroups.groups import LieGroup, make_group
from plugins.liegroups.haar import CoordinateNormal, FiniteGroupRule, HaarUniformSO, Sampler
from plugins.liegroups.kernels import MLP
from plugins.liegroups.layers import (
    DepthwiseGroupConv,
    GroupConv,
    GroupPool,
    LiftingConv,
    ProjectionConv,
    SeparableGroupConv,
)

LAYERS = ("lifting", "group_conv", "separable", "depthwise", "projection", "pooling")


class LocalisedKernel(nn.Module):
    """``base`` times a Gaussian of the group features around the identity: its integrals over the group converge."""

    def __init__(self, base: nn.Module, centre: Tensor, width: float, skip: int):
        super().__init__()
        self.base, self.width, self.skip = base, width, skip
        self.register_buffer("centre", centre)

    def forward(self, z: Tensor) -> Tensor:
        distance2 = (z[..., self.skip :] - self.centre).square().sum(-1)
        return self.base(z) * torch.exp(-distance2 / (2 * self.width**2))[..., None, None]


def make_layer(name: str, group: LieGroup, size: int = 7, channels: int = 2, width: float = 0.35) -> nn.Module:
    """A float64 layer with random smooth kernels, localised in the group where it integrates over it."""
    unit = size / 2
    options = {"kernel_size": size, "window": "bump", "unit": unit, "kernel_factory": MLP}
    centre = group.features(group.identity(dtype=torch.float64))
    if name == "lifting":
        layer = LiftingConv(group, channels, channels, **options)
    elif name == "group_conv":
        layer = GroupConv(group, channels, channels, **options)
        layer.kernel = LocalisedKernel(layer.kernel, centre, width, 2)
    elif name in ("separable", "depthwise"):
        layer = {"separable": SeparableGroupConv, "depthwise": DepthwiseGroupConv}[name](
            group, channels, channels, **options
        )
        layer.kernel.group_net = LocalisedKernel(layer.kernel.group_net, centre, width, 0)
    elif name == "projection":
        layer = ProjectionConv(group, channels, channels, **options)
    elif name == "pooling":
        layer = GroupPool("mean", space=False)
    else:
        raise ValueError(f"layer={name!r} is unknown; choose from {', '.join(LAYERS)}")
    return layer.double()


def sampler_of(group: LieGroup) -> Sampler | None:
    """The random sampler of the study; None for a finite group, which has one exact set."""
    if getattr(group, "elements", None) is not None:
        return None
    if group.name == "so2":
        return HaarUniformSO(2)
    return CoordinateNormal(group, 0.45)


def layer_errors(
    group: LieGroup, layer: str, samples: list[int], repeats: int, seed: int, elements: int = 3
) -> dict[int, float]:  # fmt: skip
    """Root mean square error over ``repeats`` draws, for every number of samples; a finite group uses its order."""
    torch.manual_seed(seed)
    module = make_layer(layer, group)
    sampler = sampler_of(group)
    generator = torch.Generator().manual_seed(seed)
    out = FiniteGroupRule(group)() if sampler is None else CoordinateNormal(group, 0.15)(2, generator)
    errors = {}
    for n in samples if sampler else [len(out)]:
        total = 0.0
        for k in range(repeats):
            draw = torch.Generator().manual_seed(seed + 1000 * k + 1)
            inp = out if sampler is None else sampler(n, draw)
            moves = torch.Generator().manual_seed(seed + k)
            # the mean of GroupPool normalises its weights, every other layer keeps the measure
            error = equivariance_error(module, group, inp=inp, out=out, elements=elements, scale=0.1, generator=moves)
            total += error**2
        errors[n] = (total / repeats) ** 0.5
    return errors


class EquivarianceStudy(Study):
    """Metrics ``error/<group>/<layer>/samples<k>``, and a figure of all of them.

    Analytic inputs are moved exactly and output samples move along, so the error of a layer that integrates over the
    group is the Monte Carlo error of that integral (slope -1/2) down to the floor set by the pixel grid; the lifting
    layer integrates over space only and shows the floor alone. Finite groups are exact.
    """

    def __init__(
        self, groups: tuple[str, ...] = ("so2", "scaled_so2", "sl2", "gl2", "centred_homography", "c8"),
        layers: tuple[str, ...] = LAYERS, samples: tuple[int, ...] = (8, 32, 128, 512), repeats: int = 4,
        seed: int = 0, fast: bool = False,
    ):  # fmt: skip
        super().__init__()
        if not samples or min(samples) < 1 or repeats < 1:
            raise ValueError(f"samples={samples}, repeats={repeats}: all must be positive")
        self.groups, self.layers = tuple(groups), tuple(layers)
        self.samples, self.repeats = ([4, 8], 1) if fast else (sorted(samples), repeats)
        self.seed = seed

    def study(self) -> dict[str, float]:
        curves: dict[str, dict[str, dict[int, float]]] = {}
        metrics: dict[str, float] = {}
        pairs = [
            (name, layer)
            for name in self.groups
            for layer in self.layers
            if not (layer in ("separable", "depthwise") and make_group(name).local_element_depends_on_offset)
        ]
        for name, layer in tqdm(pairs, desc="equivariance", unit="layer"):
            errors = layer_errors(make_group(name), layer, list(self.samples), self.repeats, self.seed)
            curves.setdefault(name, {})[layer] = errors
            for n, error in errors.items():
                metrics[f"error/{name}/{layer}/samples{n}"] = error
        self.save_figure("equivariance_error", convergence_figure(curves))
        return metrics
