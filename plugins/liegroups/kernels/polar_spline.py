"""B-splines on the polar coordinates of a planar group: periodic in the angle, local in the symmetric part."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from plugins.liegroups.kernels.networks import BSpline, SeparableKernel, cubic_bspline


class PolarSpline(nn.Module):
    """``sum_{a,m} c_am B(angle - 2 pi a / angles) prod_d B3((x_d - s m_d) / s)``, cubic splines, periodic in the angle.

    For features (x_1, ..., x_d, cos, sin), as the planar groups with rotations give them (SO(2): d = 0; SL(2): 2;
    GL+(2): 3). The nodes m are the origin and the 2 d points +-e_d; ``spacing`` s is that of the symmetric coordinates.
    Every relative rotation has coefficients of its own, so orientations are told apart from the first step; a smooth
    network starts nearly constant in the angle, blurs orientations, and learns many times more slowly.
    """

    def __init__(
        self, features: int, out_channels: int, in_channels: int, taps: int, angles: int = 8, spacing: float = 0.3
    ):  # fmt: skip
        super().__init__()
        if features < 2 or angles < 4 or not spacing > 0:
            raise ValueError(
                f"features={features}, angles={angles}, spacing={spacing}: features must end with (cos, sin), with at "
                "least 4 angles and a positive spacing"
            )
        self.angles, self.spacing = angles, spacing
        d = features - 2
        eye = torch.eye(d)
        self.register_buffer("nodes", spacing * torch.cat([torch.zeros(1, d), eye, -eye]), persistent=False)
        scale = 1 / math.sqrt(in_channels * taps)
        self.coefficients = nn.Parameter(scale * torch.randn(angles, 2 * d + 1, out_channels, in_channels))

    def forward(self, z: Tensor) -> Tensor:
        step = 2 * math.pi / self.angles
        angle = torch.atan2(z[..., -1], z[..., -2])[..., None]
        gap = angle - step * torch.arange(self.angles, dtype=z.dtype, device=z.device)
        turn = cubic_bspline((torch.remainder(gap + math.pi, 2 * math.pi) - math.pi) / step)
        stretch = cubic_bspline((z[..., None, :-2] - self.nodes) / self.spacing).prod(-1)
        return torch.einsum("...a,...m,amoi->...oi", turn, stretch, self.coefficients)


def product_kernel(
    features: int, out_channels: int, in_channels: int, taps: int, centers: int = 49, angles: int = 8,
    spacing: float = 0.3, rank: int = 1,
) -> nn.Module:  # fmt: skip
    """B-splines in the plane times ``PolarSpline`` in the group, as a kernel of a dense layer.

    For groups that allow no separable layer (centred homographies) the product is evaluated densely, but trains as
    fast. Of two features, those of a lifting layer, only the plane's splines remain.
    """
    if features == 2:
        return BSpline(2, out_channels, in_channels, taps, centers)

    def plane(n: int, out: int, inp: int, count: int) -> nn.Module:
        return BSpline(n, out, inp, count, centers)

    def polar(n: int, out: int, inp: int, count: int) -> nn.Module:
        return PolarSpline(n, out, inp, count, angles, spacing)

    return SeparableKernel(2, features - 2, out_channels, in_channels, taps, plane, rank, polar)
