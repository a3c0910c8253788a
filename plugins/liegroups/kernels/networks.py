"""Continuous convolution kernels: networks from kernel coordinates to a matrix of channel weights.

Every kernel maps coordinates [..., F] to values [..., out_channels, in_channels], so that a layer can evaluate it at
any offset and any relative group element. ``taps`` is the number of offsets (k^2, say) a layer sums over; the last
layer is scaled by ``1 / sqrt(in_channels * taps)`` so that activations start at unit size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

KernelFactory = Callable[[int, int, int, int], nn.Module]
"""``factory(features, out_channels, in_channels, taps)``."""


class Siren(nn.Module):
    """Sine network (Sitzmann et al. 2020): ``layers`` sine layers of ``width``, frequency ``omega``.

    First layer U(+-1/features), hidden layers U(+-sqrt(6/width)/omega) without initial bias, output layer
    U(+-sqrt(6/width)) / sqrt(in_channels * taps).
    """

    def __init__(
        self, features: int, out_channels: int, in_channels: int, taps: int, width: int = 60, layers: int = 3,
        omega: float = 10.0,
    ):  # fmt: skip
        super().__init__()
        _require_layers(layers, width)
        self.shape = (out_channels, in_channels)
        self.omega = omega
        self.hidden = nn.ModuleList(nn.Linear(features if i == 0 else width, width) for i in range(layers))
        self.out = nn.Linear(width, out_channels * in_channels)
        with torch.no_grad():
            self.hidden[0].weight.uniform_(-1 / features, 1 / features)
            for layer in self.hidden[1:]:
                bound = math.sqrt(6 / width) / omega
                layer.weight.uniform_(-bound, bound)
                layer.bias.zero_()
            bound = math.sqrt(6 / width) / math.sqrt(in_channels * taps)
            self.out.weight.uniform_(-bound, bound)
            self.out.bias.zero_()

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.hidden:
            z = torch.sin(self.omega * layer(z))
        return self.out(z).unflatten(-1, self.shape)


class MLP(nn.Module):
    """Plain network with ``layers`` GELU layers of ``width``: the smoothest kernels."""

    def __init__(
        self, features: int, out_channels: int, in_channels: int, taps: int, width: int = 64, layers: int = 2
    ):  # fmt: skip
        super().__init__()
        _require_layers(layers, width)
        self.shape = (out_channels, in_channels)
        self.hidden = nn.ModuleList(nn.Linear(features if i == 0 else width, width) for i in range(layers))
        self.out = nn.Linear(width, out_channels * in_channels)
        with torch.no_grad():
            for i, layer in enumerate(self.hidden):
                bound = math.sqrt(6 / layer.in_features) * (2.0 if i == 0 else 1.0)
                layer.weight.uniform_(-bound, bound)
                layer.bias.uniform_(-1, 1)
            bound = math.sqrt(6 / width) / math.sqrt(in_channels * taps)
            self.out.weight.uniform_(-bound, bound)
            self.out.bias.zero_()

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.hidden:
            z = nn.functional.gelu(layer(z))
        return self.out(z).unflatten(-1, self.shape)


class Wire(nn.Module):
    """Gabor network (Saragadam et al. 2023): ``sin(omega W1 z) * exp(-(sigma W2 z)^2)`` in every layer."""

    def __init__(
        self, features: int, out_channels: int, in_channels: int, taps: int, width: int = 60, layers: int = 2,
        omega: float = 10.0, sigma: float = 3.0,
    ):  # fmt: skip
        super().__init__()
        _require_layers(layers, width)
        self.shape = (out_channels, in_channels)
        self.omega, self.sigma = omega, sigma
        sizes = [features] + [width] * (layers - 1)
        self.wave = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.envelope = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.out = nn.Linear(width, out_channels * in_channels)
        with torch.no_grad():
            for i, (wave, envelope) in enumerate(zip(self.wave, self.envelope, strict=True)):
                size = wave.in_features
                bound = 1 / size if i == 0 else math.sqrt(6 / size) / omega
                wave.weight.uniform_(-bound, bound)
                envelope.weight.uniform_(-1 / (sigma * size), 1 / (sigma * size))
            bound = math.sqrt(6 / width) / math.sqrt(in_channels * taps)
            self.out.weight.uniform_(-bound, bound)
            self.out.bias.zero_()

    def forward(self, z: Tensor) -> Tensor:
        for wave, envelope in zip(self.wave, self.envelope, strict=True):
            z = torch.sin(self.omega * wave(z)) * torch.exp(-(self.sigma * envelope(z)).square())
        return self.out(z).unflatten(-1, self.shape)


class BSpline(nn.Module):
    """Cubic B-splines on scattered centres (Bekkers 2020): ``sum_m c_m prod_d B3((z_d - m_d) / spacing)``.

    ``centers`` quasi-random points fill the box [-extent, extent]^features; kernels have compact support in every
    coordinate. The coefficients are the parameters, so the kernel is linear in them.
    """

    def __init__(
        self, features: int, out_channels: int, in_channels: int, taps: int, centers: int = 64, extent: float = 1.0,
        spacing: float | None = None,
    ):  # fmt: skip
        super().__init__()
        if centers < 1 or not extent > 0:
            raise ValueError(f"centers={centers}, extent={extent}: both must be positive")
        sobol = torch.quasirandom.SobolEngine(features, scramble=False)
        points = sobol.draw(centers + 1, dtype=torch.float64)[1:]
        self.spacing = spacing or 2 * extent / max(centers ** (1 / features) - 1, 1.0)
        self.register_buffer("points", ((2 * points - 1) * extent).to(torch.get_default_dtype()))
        scale = 1 / math.sqrt(in_channels * taps)
        self.coefficients = nn.Parameter(scale * torch.randn(centers, out_channels, in_channels))

    def forward(self, z: Tensor) -> Tensor:
        basis = cubic_bspline((z.unsqueeze(-2) - self.points) / self.spacing).prod(-1)
        return torch.einsum("...m,moi->...oi", basis, self.coefficients)


def cubic_bspline(x: Tensor) -> Tensor:
    """Cardinal cubic B-spline, support [-2, 2], scaled to one at 0."""
    a = x.abs()
    inner = 1 - 1.5 * a * a + 0.75 * a**3
    outer = 0.25 * (2 - a).clamp_min(0) ** 3
    return torch.where(a < 1, inner, outer)


class SeparableKernel(nn.Module):
    """``k(x, h)[o, i] = sum_r k_s(x)[o, r] k_H(h)[o, r, i]`` (Knigge et al. 2022, for rank 1).

    ``forward`` evaluates it densely on concatenated coordinates, as any kernel; ``spatial`` and ``group`` give the
    factors, of shapes [..., out, rank] and [..., out, rank, in], from which a layer convolves without forming it.
    ``group_factory`` makes the group factor of another kind than the spatial one.
    """

    def __init__(
        self, space_features: int, group_features: int, out_channels: int, in_channels: int, taps: int,
        factory: KernelFactory = Siren, rank: int = 1, group_factory: KernelFactory | None = None,
    ):  # fmt: skip
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank} must be at least 1")
        self.space_features, self.rank, self.shape = space_features, rank, (out_channels, in_channels)
        self.spatial_net = factory(space_features, out_channels, rank, taps)
        self.group_net = (group_factory or factory)(group_features, out_channels * rank, in_channels, 1)

    def spatial(self, z: Tensor) -> Tensor:
        """[..., space_features] -> [..., out, rank]."""
        return self.spatial_net(z)

    def group(self, features: Tensor) -> Tensor:
        """[..., group_features] -> [..., out, rank, in]."""
        return self.group_net(features).unflatten(-2, (self.shape[0], self.rank))

    def forward(self, z: Tensor) -> Tensor:
        space, group = z[..., : self.space_features], z[..., self.space_features :]
        return torch.einsum("...or,...ori->...oi", self.spatial(space), self.group(group))


class DepthwiseKernel(nn.Module):
    """``k(x, h)[o, i] = sum_r k_s(x)[o, r, i] k_H(h)[r, i]``: depthwise over the group, channels mixed in space.

    ``forward`` evaluates it densely on concatenated coordinates; ``spatial`` and ``group`` give factors of shapes
    [..., out, rank, in] and [..., rank, in].
    """

    def __init__(
        self, space_features: int, group_features: int, out_channels: int, in_channels: int, taps: int,
        factory: KernelFactory = Siren, rank: int = 1, group_factory: KernelFactory | None = None,
    ):  # fmt: skip
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank} must be at least 1")
        self.space_features, self.rank, self.shape = space_features, rank, (out_channels, in_channels)
        self.spatial_net = factory(space_features, out_channels, rank * in_channels, taps)
        self.group_net = (group_factory or factory)(group_features, rank, in_channels, 1)
        # unit second moment, as the spatial factor carries the scale of the whole kernel
        self.group_scale = math.sqrt(in_channels)

    def spatial(self, z: Tensor) -> Tensor:
        """[..., space_features] -> [..., out, rank, in]."""
        return self.spatial_net(z).unflatten(-1, (self.rank, self.shape[1]))

    def group(self, features: Tensor) -> Tensor:
        """[..., group_features] -> [..., rank, in]."""
        return self.group_scale * self.group_net(features)

    def forward(self, z: Tensor) -> Tensor:
        space, group = z[..., : self.space_features], z[..., self.space_features :]
        return torch.einsum("...ori,...ri->...oi", self.spatial(space), self.group(group))


def _require_layers(layers: int, width: int) -> None:
    if layers < 1 or width < 1:
        raise ValueError(f"layers={layers}, width={width}: a kernel network needs at least one layer of one unit")
