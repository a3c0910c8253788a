"""Baselines: a plain network with global pooling, the same with augmentation, regular C_N, and escnn's C_N."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plugins.liegroups.data.warp import gl2_maps, warp
from plugins.liegroups.groups import Cyclic, Dihedral
from plugins.liegroups.haar import FiniteGroupRule, SamplePlan
from plugins.liegroups.kernels import MLP, BSpline, KernelFactory
from plugins.liegroups.networks.classifier import GroupClassifier


class ConvClassifier(nn.Module):
    """Convolutions, batch norm, GELU, average pooling between them, global maximum: translation-invariant only."""

    def __init__(
        self, classes: int = 10, in_channels: int = 1, channels: Sequence[int] = (16, 24, 32),
        kernel_sizes: Sequence[int] = (5, 5, 3), pool: Sequence[int] = (2, 1, 1), hidden: int = 64,
        dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for out, size, factor in zip(channels, kernel_sizes, pool, strict=True):
            layers += [nn.Conv2d(width, out, size, padding=size // 2), nn.BatchNorm2d(out), nn.GELU()]
            if factor > 1:
                layers.append(nn.AvgPool2d(factor))
            width = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).amax((2, 3)))


class AugmentedClassifier(nn.Module):
    """A classifier trained on random GL2-MNIST maps of its images; unchanged in evaluation."""

    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            images = warp(images, gl2_maps(len(images)).to(images.device))
        return self.classifier(images)


def regular_classifier(
    n: int = 8, reflections: bool = False, channels: Sequence[int] = (16, 16, 32),
    kernel_sizes: Sequence[int] = (7, 5, 5), pool: Sequence[int] = (2, 1, 1), stride: int = 1,
    convolution: str = "depthwise", rank: int = 1, kernel_factory: KernelFactory = BSpline,
    group_kernel_factory: KernelFactory | None = MLP, classes: int = 10, dropout: float = 0.0,
) -> GroupClassifier:  # fmt: skip
    """Regular C_N (or D_N) network: the group classifier on a finite group, where the sum over samples is exact."""
    group = Dihedral(n) if reflections else Cyclic(n)
    plan = SamplePlan(FiniteGroupRule(group), sets=[0] * len(channels))
    return GroupClassifier(
        plan, classes=classes, channels=channels, kernel_sizes=kernel_sizes, pool=pool, stride=stride,
        convolution=convolution, rank=rank, kernel_factory=kernel_factory,
        group_kernel_factory=None if convolution == "dense" else group_kernel_factory, window="disc",
        activation="relu", dropout=dropout,
    )  # fmt: skip


def escnn_classifier(
    n: int = 8, channels: Sequence[int] = (8, 8, 16), kernel_sizes: Sequence[int] = (7, 5, 5), classes: int = 10
) -> nn.Module:  # fmt: skip
    """The same regular C_N network in escnn. Raises ValueError, naming the requirement, where escnn is missing."""
    try:
        from escnn import gspaces
        from escnn import nn as enn
    except ImportError as error:
        raise ValueError(
            "peers=true needs escnn: install the extra 'liegroups' (escnn 1.0.11 runs with numpy 1.26 and scipy 1.13)"
        ) from error

    class EscnnClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            space = gspaces.rot2dOnR2(n)
            self.input_type = enn.FieldType(space, [space.trivial_repr])
            layers, current = [], self.input_type
            for i, (width, size) in enumerate(zip(channels, kernel_sizes, strict=True)):
                field = enn.FieldType(space, width * [space.regular_repr])
                layers += [
                    enn.R2Conv(current, field, size, padding=size // 2),
                    enn.InnerBatchNorm(field),
                    enn.ReLU(field),
                ]
                if i == 0:
                    layers.append(enn.PointwiseAvgPool2D(field, 2))
                current = field
            self.body = enn.SequentialModule(*layers)
            self.readout = enn.GroupPooling(current)
            self.head = nn.Linear(channels[-1], classes)

        def forward(self, images: Tensor) -> Tensor:
            field = self.readout(self.body(enn.GeometricTensor(images, self.input_type)))
            return self.head(torch.amax(field.tensor, (2, 3)))

    return EscnnClassifier()
