"""What the convolution layers share: the kernel's pixel grid in units of the group's action."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.liegroups.groups import LieGroup
from plugins.liegroups.haar import Samples
from plugins.liegroups.layers.grid import kernel_offsets, require_kernel_size, require_window, window


class GroupLayer(nn.Module):
    """A layer on fields F(x, g), tensors [batch, channels, samples, height, width].

    ``unit`` is the number of pixels in one unit of length of the group's action; it matters only for actions that are
    not linear (homographies). Kernels see offsets divided by the kernel's radius ``kernel_size / 2``. ``padding``
    (default: the output keeps its size) is of zeros, or "replicate", which continues a field whose background is
    constant but not zero, as it is behind a normalisation: a border of zeros would be seen by shifted images.
    """

    def __init__(
        self, group: LieGroup, kernel_size: int, padding: int | None, window: str, unit: float,
        padding_mode: str = "zeros",
    ):  # fmt: skip
        super().__init__()
        if padding_mode not in ("zeros", "replicate"):
            raise ValueError(f"padding_mode={padding_mode!r}: choose 'zeros' or 'replicate'")
        self.padding_mode = padding_mode
        if group.space_dim != 2:
            raise ValueError(f"group={group.name} acts on R^{group.space_dim}; these layers work on images")
        if not unit > 0:
            raise ValueError(f"unit={unit} must be a positive number of pixels")
        self.group = group
        self.kernel_size = require_kernel_size(kernel_size)
        self.padding = kernel_size // 2 if padding is None else padding
        self.window = require_window(window)
        self.unit = unit
        self.register_buffer("offsets", kernel_offsets(kernel_size), persistent=False)

    @property
    def taps(self) -> int:
        """Number of pixels of the kernel."""
        return self.kernel_size**2

    def kernel_points(self, g_inv: Tensor, sign: float = 1.0) -> tuple[Tensor, Tensor]:
        """``g_inv`` [N, m, m] -> (z [N, k^2, 2], log Jacobian [N, k^2]): the grid moved by g^-1 in kernel units.

        Offsets without an image (beyond a vanishing line) are put far outside every window, with Jacobian zero.
        """
        u = sign * self.offsets.to(g_inv) / self.unit
        g_inv = g_inv[:, None]
        visible = self.group.visible(g_inv, u)
        z = self.group.act(g_inv, u) * (2 * self.unit / self.kernel_size)
        z = torch.where(visible[..., None], z, torch.full_like(z, 1e3))
        return z, torch.where(visible, self.group.log_jacobian(g_inv, u), -torch.inf)

    def convolve(self, x: Tensor, weight: Tensor, groups: int = 1, stride: int = 1) -> Tensor:
        """2-D convolution of ``x`` with this layer's padding."""
        padding = self.padding
        if self.padding_mode == "replicate" and padding:
            x, padding = nn.functional.pad(x, [padding] * 4, mode="replicate"), 0
        return nn.functional.conv2d(x, weight, padding=padding, groups=groups, stride=stride)

    def measure(self, samples: Samples) -> Tensor:
        """Weight [N] of each sample in the integral over space and group: ``w_j |det g_j|^-1 / N``."""
        return (samples.log_weight - self.group.log_abs_det(samples.g)).exp() / len(samples)

    def group_norm2(self, k: Tensor) -> Tensor | None:
        """Squared norm of the coordinates of ``k`` where the window needs it."""
        return self.group.coordinates(k).square().sum(-1) if self.window == "sigmoid" else None

    def windowed(self, z: Tensor, norm2: Tensor | None = None) -> Tensor:
        """The window at ``z``."""
        return window(self.window, z, norm2)


def flatten_field(field: Tensor, samples: Samples, channels: int) -> Tensor:
    """[B, C, N, H, W] -> [B, C*N, H, W] after checking it against the samples and channels a layer expects."""
    if field.dim() != 5 or field.shape[1] != channels or field.shape[2] != len(samples):
        raise ValueError(
            f"field: expected [batch, {channels} channels, {len(samples)} samples, height, width], got "
            f"{tuple(field.shape)}; a layer's input samples are the output samples of the layer before it"
        )
    return field.flatten(1, 2)


def without_autocast(device_type: str) -> torch.autocast:
    """Group algebra stays in full precision under mixed-precision training."""
    return torch.autocast(device_type=device_type, enabled=False)
