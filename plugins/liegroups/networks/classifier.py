"""Invariant classifiers on a group: lift, convolve on the group, pool over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from plugins.liegroups.haar import SamplePlan, Samples
from plugins.liegroups.kernels import KernelFactory, Siren
from plugins.liegroups.layers import (
    DepthwiseGroupConv,
    FieldNorm,
    GroupConv,
    GroupPool,
    LiftingConv,
    SeparableGroupConv,
)

CONVOLUTIONS: dict[str, Callable[..., nn.Module]] = {
    "dense": GroupConv,
    "separable": SeparableGroupConv,
    "depthwise": DepthwiseGroupConv,
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": nn.functional.gelu, "relu": nn.functional.relu}


class GroupBlock(nn.Module):
    """Group convolution, normalisation, activation; with a shortcut where channels and samples allow it."""

    def __init__(self, conv: nn.Module, norm: str, residual: bool, activation: str = "gelu"):
        super().__init__()
        self.conv = conv
        self.norm = FieldNorm(conv.out_channels, norm)
        self.residual = residual and conv.in_channels == conv.out_channels
        self.activation = ACTIVATIONS[activation]

    def forward(self, field: Tensor, inp: Samples, out: Samples) -> Tensor:
        y = self.norm(self.conv(field, inp, out))
        if self.residual and inp is out and y.shape == field.shape:
            y = y + field
        return self.activation(y)


class GroupClassifier(nn.Module):
    """Classifier invariant under R^2 x| H up to discretisation, for any group and sample plan.

    Images [B, C, H, W] with background zero (so that zero padding continues them exactly) -> logits [B, classes].
    ``channels`` and ``kernel_sizes`` describe the lifting layer and then each group convolution; ``pool`` the factor
    by which a stage's output is averaged over space. ``stride`` thins out the lifting layer. ``convolution``: "dense"
    (any kernel), "separable" or "depthwise" (with ``rank`` terms; ``group_kernel_factory`` makes their group factors
    if they are to be of another kind). The plan must have one set for each stage.
    ``margin`` pixels of background are added around the image, so that what touches its border is seen whole;
    ``padding_mode`` is that of the group convolutions. ``unit``: pixels of the image in one unit of the group's action,
    which matters for homographies only.
    Evaluation averages the logits over the plan's fixed draws.
    """

    def __init__(
        self, plan: SamplePlan, classes: int = 10, in_channels: int = 1, channels: Sequence[int] = (12, 24, 32),
        kernel_sizes: Sequence[int] = (7, 5, 5), pool: Sequence[int] = (1, 1, 1), stride: int = 2,
        convolution: str = "depthwise", rank: int = 1, kernel_factory: KernelFactory = Siren,
        group_kernel_factory: KernelFactory | None = None, window: str = "bump",
        norm: str = "batch", residual: bool = True, activation: str = "gelu", hidden: int = 64, dropout: float = 0.3,
        unit: float = 1.0, group_pool: str = "max", padding_mode: str = "replicate",
        margin: int = 0,
    ):  # fmt: skip
        super().__init__()
        stages = len(channels)
        if not len(kernel_sizes) == len(pool) == len(plan.sets) == stages or stages < 1:
            raise ValueError(
                f"channels, kernel_sizes, pool and the plan's sets must have one entry for each stage; got "
                f"{stages}, {len(kernel_sizes)}, {len(pool)} and {len(plan.sets)}"
            )
        if convolution not in CONVOLUTIONS:
            raise ValueError(f"convolution={convolution!r} is unknown; choose one of {', '.join(CONVOLUTIONS)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
        if convolution == "dense" and (rank != 1 or group_kernel_factory is not None):
            raise ValueError(
                f"rank={rank}, group_kernel_factory: no meaning for dense kernels; use 'separable' or 'depthwise'"
            )
        if margin < 0:
            raise ValueError(f"margin={margin}: the number of pixels added around an image cannot be negative")
        self.margin = margin
        self.plan, self.pool, self.activation = plan, tuple(pool), ACTIVATIONS[activation]
        group = plan.group
        self.lift = LiftingConv(
            group, in_channels, channels[0], kernel_sizes[0], window=window, unit=unit, kernel_factory=kernel_factory,
            stride=stride,
        )  # fmt: skip
        self.lift_norm = FieldNorm(channels[0], norm)
        self.blocks = nn.ModuleList()
        options = {"window": window, "kernel_factory": kernel_factory, "padding_mode": padding_mode}
        if convolution != "dense":
            options |= {"rank": rank, "group_kernel_factory": group_kernel_factory}
        scale = stride
        for i in range(1, stages):
            scale *= pool[i - 1]
            conv = CONVOLUTIONS[convolution](
                group, channels[i - 1], channels[i], kernel_sizes[i], unit=unit / scale, **options
            )
            self.blocks.append(GroupBlock(conv, norm, residual, activation))
        self.readout = GroupPool(group_pool, space=True)
        self.head = nn.Sequential(
            nn.Linear(channels[-1], hidden, bias=False), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def features(self, images: Tensor, stages: list[Samples]) -> Tensor:
        """Invariant features [B, channels[-1]] for given samples."""
        images = nn.functional.pad(images, [self.margin] * 4)
        field = self.activation(self.lift_norm(self.lift(images, stages[0])))
        field = _pool(field, self.pool[0])
        for block, inp, out, factor in zip(self.blocks, stages[:-1], stages[1:], self.pool[1:], strict=True):
            field = _pool(block(field, inp, out), factor)
        return self.readout(field, stages[-1])

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            return self.head(self.features(images, self.plan()))
        draws = self.plan.evaluation_draws()
        return torch.stack([self.head(self.features(images, stages)) for stages in draws]).mean(0)


def _pool(field: Tensor, factor: int) -> Tensor:
    """Average over overlapping squares of side 2 * factor: a plain average would depend on the phase of the grid."""
    if factor == 1:
        return field
    edge = factor // 2
    padded = nn.functional.pad(field.flatten(1, 2), [edge, factor - edge, edge, factor - edge], mode="replicate")
    return nn.functional.avg_pool2d(padded, 2 * factor, factor).unflatten(1, field.shape[1:3])
