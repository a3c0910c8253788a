"""Group cross-correlation: from fields to fields, with one dense convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.liegroups.groups import LieGroup
from plugins.liegroups.haar import Samples
from plugins.liegroups.kernels import KernelFactory, Siren
from plugins.liegroups.layers.base import GroupLayer, flatten_field, without_autocast


class GroupConv(GroupLayer):
    """``F'(x, g) = int int F(x', g') k(g^-1 (x' - x), g^-1 g') |det g'|^-1 dx' dmu(g')``.

    Field [B, C, N, H, W] at the input samples -> [B, C', N', H', W'] at the output samples. The kernel is evaluated
    for every pair of samples and every pixel, and applied by one convolution of ``C N`` to ``C' N'`` channels. The
    order ``g^-1 g'`` is the left-invariant one. ``kernel`` replaces the built one: any module from
    [..., 2 + group.feature_dim] to [..., C', C].
    """

    def __init__(
        self, group: LieGroup, in_channels: int, out_channels: int, kernel_size: int = 5, padding: int | None = None,
        padding_mode: str = "zeros", window: str = "disc", unit: float = 1.0, kernel_factory: KernelFactory = Siren,
        kernel: nn.Module | None = None,
    ):  # fmt: skip
        super().__init__(group, kernel_size, padding, window, unit, padding_mode)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel = kernel or kernel_factory(2 + group.feature_dim, out_channels, in_channels, self.taps)

    def weight(self, inp: Samples, out: Samples) -> Tensor:
        """Convolution weight [C', N', C, N, k, k]."""
        with without_autocast(out.g.device.type):
            z, _ = self.kernel_points(out.g_inv)
            if self.group.local_element_depends_on_offset:
                u = self.offsets.to(z) / self.unit
                k = self.group.local_element(out.g_inv[:, None, None], u, inp.g[None, :, None])
            else:
                k = self.group.local_element(out.g_inv[:, None], torch.zeros_like(z[:1, :1]), inp.g)[:, :, None]
            features = self.group.features(k)
            batch = (len(out), len(inp), self.taps)
            rows = torch.cat([z[:, None].expand(*batch, -1), features.expand(*batch, -1)], dim=-1)
            norm2 = self.group_norm2(k)
            factor = self.windowed(z[:, None], norm2) * self.measure(inp)[:, None]
            values = self.kernel(rows) * factor[..., None, None]
        values = values.permute(3, 0, 4, 1, 2)
        return values.unflatten(-1, (self.kernel_size, self.kernel_size))

    def forward(self, field: Tensor, inp: Samples, out: Samples) -> Tensor:
        flat = flatten_field(field, inp, self.in_channels)
        weight = self.weight(inp, out).flatten(2, 3).flatten(0, 1).to(flat.dtype)
        result = self.convolve(flat, weight)
        return result.unflatten(1, (self.out_channels, len(out)))
