"""Lifting convolution: from an image to a field on the group."""

from __future__ import annotations

from torch import Tensor, nn

from plugins.liegroups.groups import LieGroup
from plugins.liegroups.haar import Samples
from plugins.liegroups.kernels import KernelFactory, Siren
from plugins.liegroups.layers.base import GroupLayer, flatten_field, without_autocast


class LiftingConv(GroupLayer):
    """``F(x, g) = |det g|^-1 int f(x') k(g^-1 (x' - x)) dx'``, exactly equivariant under R^2 x| H.

    The factor is the Jacobian of ``u -> g^-1 u``, evaluated at every pixel for actions that are not linear. Image
    [B, C, H, W] -> field [B, C', N', H', W'] at the output samples. ``kernel`` replaces the built one: any module from
    [..., 2] (offsets over the kernel's radius) to [..., C', C]. ``stride`` keeps every stride-th output pixel only.
    """

    def __init__(
        self, group: LieGroup, in_channels: int, out_channels: int, kernel_size: int = 5, padding: int | None = None,
        padding_mode: str = "zeros", window: str = "disc", unit: float = 1.0, kernel_factory: KernelFactory = Siren,
        kernel: nn.Module | None = None,
        stride: int = 1,
    ):  # fmt: skip
        super().__init__(group, kernel_size, padding, window, unit, padding_mode)
        if stride < 1:
            raise ValueError(f"stride={stride} must be at least 1")
        self.stride = stride
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel = kernel or kernel_factory(2, out_channels, in_channels, self.taps)

    def weight(self, out: Samples) -> Tensor:
        """Convolution weight [C', N', C, k, k]."""
        with without_autocast(out.g.device.type):
            z, log_jacobian = self.kernel_points(out.g_inv)
            factor = self.windowed(z) * log_jacobian.exp()
            values = self.kernel(z) * factor[..., None, None]
        values = values.permute(2, 0, 3, 1)
        return values.unflatten(-1, (self.kernel_size, self.kernel_size))

    def forward(self, image: Tensor, out: Samples) -> Tensor:
        weight = self.weight(out).flatten(0, 1).to(image.dtype)
        field = self.convolve(image, weight, stride=self.stride)
        return field.unflatten(1, (self.out_channels, len(out)))


class ProjectionConv(GroupLayer):
    """``f(x) = int int F(x', g) k(g^-1 (x - x')) |det g|^-1 dx' dmu(g)``: from a field back to an image.

    Field [B, C, N, H, W] -> image [B, C', H', W'], equivariant: it commutes with the action on both sides.
    """

    def __init__(
        self, group: LieGroup, in_channels: int, out_channels: int, kernel_size: int = 5, padding: int | None = None,
        padding_mode: str = "zeros", window: str = "disc", unit: float = 1.0, kernel_factory: KernelFactory = Siren,
        kernel: nn.Module | None = None,
    ):  # fmt: skip
        super().__init__(group, kernel_size, padding, window, unit, padding_mode)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel = kernel or kernel_factory(2, out_channels, in_channels, self.taps)

    def weight(self, inp: Samples) -> Tensor:
        """Convolution weight [C', C, N, k, k]."""
        with without_autocast(inp.g.device.type):
            z, _ = self.kernel_points(inp.g_inv, sign=-1.0)
            factor = self.windowed(z) * self.measure(inp)[:, None]
            values = self.kernel(z) * factor[..., None, None]
        values = values.permute(2, 3, 0, 1)
        return values.unflatten(-1, (self.kernel_size, self.kernel_size))

    def forward(self, field: Tensor, inp: Samples) -> Tensor:
        flat = flatten_field(field, inp, self.in_channels)
        return self.convolve(flat, self.weight(inp).flatten(1, 2).to(flat.dtype))
