"""Group cross-correlations with separating kernels: the same functions as ``GroupConv`` at a fraction of the cost."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.liegroups.groups import LieGroup
from plugins.liegroups.haar import Samples
from plugins.liegroups.kernels import DepthwiseKernel, KernelFactory, SeparableKernel, Siren
from plugins.liegroups.layers.base import GroupLayer, flatten_field, without_autocast


class SeparableGroupConv(GroupLayer):
    """``GroupConv`` for kernels ``k(x, h) = sum_r k_s(x) k_H(h)``, computing the same function at a fraction of cost.

    The group factor needs N N' kernel evaluations and the spatial one N' k^2, instead of N N' k^2 for both; applying
    it takes ``C N C' N' rank`` multiplications a pixel for the mixture and ``C' N' rank k^2`` for the spatial
    convolutions, instead of ``C N C' N' k^2``. Raises ValueError for groups whose local element depends on the offset
    (centred homographies), where no kernel separates.
    """

    def __init__(
        self, group: LieGroup, in_channels: int, out_channels: int, kernel_size: int = 5, padding: int | None = None,
        padding_mode: str = "zeros", window: str = "disc", unit: float = 1.0, kernel_factory: KernelFactory = Siren,
        group_kernel_factory: KernelFactory | None = None, rank: int = 1,
        kernel: SeparableKernel | None = None,
    ):  # fmt: skip
        super().__init__(group, kernel_size, padding, window, unit, padding_mode)
        _require_separable(group, window)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel = kernel or SeparableKernel(
            2, group.feature_dim, out_channels, in_channels, self.taps, kernel_factory, rank, group_kernel_factory
        )

    def weights(self, inp: Samples, out: Samples) -> tuple[Tensor, Tensor]:
        """-> (mixture [C', N', rank, C, N], spatial [C', N', rank, k, k])."""
        with without_autocast(out.g.device.type):
            z, _ = self.kernel_points(out.g_inv)
            spatial = self.kernel.spatial(z) * self.windowed(z)[..., None, None]
            features = self.group.features(self.group.compose(out.g_inv[:, None], inp.g))
            mixture = self.kernel.group(features) * self.measure(inp)[:, None, None, None]
        spatial = spatial.permute(2, 0, 3, 1).unflatten(-1, (self.kernel_size, self.kernel_size))
        return mixture.permute(2, 0, 3, 4, 1), spatial

    def forward(self, field: Tensor, inp: Samples, out: Samples) -> Tensor:
        flat = flatten_field(field, inp, self.in_channels)
        mixture, spatial = self.weights(inp, out)
        mixed = nn.functional.conv2d(flat, mixture.flatten(0, 2).flatten(1)[..., None, None].to(flat.dtype))
        result = self.convolve(mixed, spatial.flatten(0, 1).to(flat.dtype), groups=self.out_channels * len(out))
        return result.unflatten(1, (self.out_channels, len(out)))


class DepthwiseGroupConv(GroupLayer):
    """``GroupConv`` for kernels ``k(x, h)[o, i] = sum_r k_s(x)[o, r, i] k_H(h)[r, i]``: depthwise over the group.

    Every channel is integrated over the group by itself; then each output sample has its own spatial convolution that
    mixes channels: ``C rank N N' + C C' rank N' k^2`` multiplications a pixel, so the cost of the convolution is linear
    in the number of samples. Raises ValueError as ``SeparableGroupConv``.
    """

    def __init__(
        self, group: LieGroup, in_channels: int, out_channels: int, kernel_size: int = 5, padding: int | None = None,
        padding_mode: str = "zeros", window: str = "disc", unit: float = 1.0, kernel_factory: KernelFactory = Siren,
        group_kernel_factory: KernelFactory | None = None, rank: int = 1,
        kernel: DepthwiseKernel | None = None,
    ):  # fmt: skip
        super().__init__(group, kernel_size, padding, window, unit, padding_mode)
        _require_separable(group, window)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel = kernel or DepthwiseKernel(
            2, group.feature_dim, out_channels, in_channels, self.taps, kernel_factory, rank, group_kernel_factory
        )

    def weights(self, inp: Samples, out: Samples) -> tuple[Tensor, Tensor]:
        """-> (integral over the group [C, rank, N', N], spatial [N', C', rank, C, k, k])."""
        with without_autocast(out.g.device.type):
            z, _ = self.kernel_points(out.g_inv)
            spatial = self.kernel.spatial(z) * self.windowed(z)[..., None, None, None]
            features = self.group.features(self.group.compose(out.g_inv[:, None], inp.g))
            group = self.kernel.group(features) * self.measure(inp)[:, None, None]
        spatial = spatial.permute(0, 2, 3, 4, 1).unflatten(-1, (self.kernel_size, self.kernel_size))
        return group.permute(3, 2, 0, 1), spatial

    def forward(self, field: Tensor, inp: Samples, out: Samples) -> Tensor:
        flatten_field(field, inp, self.in_channels)
        group, spatial = self.weights(inp, out)
        batch, channels, _, height, width = field.shape
        # one matrix product for each channel: [rank N', N] times [N, batch pixels]
        columns = field.flatten(3).permute(1, 2, 0, 3).flatten(2)
        moved = torch.bmm(group.flatten(1, 2).to(field.dtype), columns)
        moved = moved.unflatten(1, (-1, len(out))).unflatten(-1, (batch, height, width))
        moved = moved.permute(3, 2, 1, 0, 4, 5).flatten(1, 3)
        weight = spatial.flatten(0, 1).flatten(1, 2).to(field.dtype)
        result = self.convolve(moved, weight, groups=len(out))
        return result.unflatten(1, (len(out), self.out_channels)).transpose(1, 2)


def _require_separable(group: LieGroup, window: str) -> None:
    if group.local_element_depends_on_offset:
        raise ValueError(f"group={group.name}: space and group do not separate for it; use GroupConv")
    if window == "sigmoid":
        raise ValueError("window='sigmoid' couples space and group; use 'disc', 'bump' or 'none' here")
