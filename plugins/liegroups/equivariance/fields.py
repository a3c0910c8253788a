"""Analytic images and fields on a group that can be moved by any element exactly, without resampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plugins.liegroups.groups import LieGroup
from plugins.liegroups.haar import Samples


@dataclass(frozen=True)
class Pattern:
    """Gaussian bumps at frames ``T_p q``: they make an image, and a field on the group localised near the frames.

    points p: [batch, bumps, 2] in units of the group's action; frames q: [batch, bumps, m, m] group elements;
    amplitudes: [batch, channels, bumps]; ``width`` of the bumps in space, ``group_width`` in group coordinates.
    """

    points: Tensor
    frames: Tensor
    amplitudes: Tensor
    width: float
    group_width: float

    def image(self, group: LieGroup, h: Tensor, grid: Tensor) -> Tensor:
        """``f(h^-1 x)`` [batch, channels, P] at points ``grid`` [P, 2], f a sum of round bumps at the points."""
        source = group.act(group.inverse(h), grid)
        distance2 = (source[None, :, None] - self.points[:, None]).square().sum(-1)
        return torch.einsum("bcm,bpm->bcp", self.amplitudes, torch.exp(-distance2 / (2 * self.width**2)))

    def field(self, group: LieGroup, h: Tensor, grid: Tensor, samples: Samples) -> Tensor:
        """``(h F)(x, g) = F(h^-1 (x, g))`` [batch, channels, N, P] at points ``grid`` [P, 2] and samples.

        ``F(x, g) = sum_m a_cm phi_c(z_m, k_m)`` with ``(T_x g)^-1 T_p q = T_z k``: moving the frames moves the field.
        """
        points = group.act(h, self.points)
        frames = group.local_element(h, self.points, self.frames)
        channels = self.amplitudes.shape[1]
        angle = 2.4 * torch.arange(channels, dtype=grid.dtype) + 0.7
        centres = 0.7 * self.width * torch.stack([angle.cos(), angle.sin()], -1)
        g_inv = samples.g_inv[:, None, None, None]
        u = points[None, :, :, None] - grid  # [1, batch, bumps, P, 2]
        z = group.act(g_inv, u)
        if group.local_element_depends_on_offset:
            k = group.local_element(g_inv, u, frames[None, :, :, None])
        else:
            k = group.local_element(g_inv, u[..., :1, :], frames[None, :, :, None])
        near = torch.exp(-group.coordinates(k).square().sum(-1) / (2 * self.group_width**2))
        near = torch.where(group.visible(g_inv, u), near, 0.0)
        distance2 = (z[:, :, None] - centres[:, None, None]).square().sum(-1)
        bumps = torch.exp(-distance2 / (2 * self.width**2)) * near[:, :, None]
        return torch.einsum("bcm,nbcmp->bcnp", self.amplitudes, bumps)


def random_pattern(
    group: LieGroup, batch: int, channels: int, radius: float, width: float, group_width: float = 0.3,
    bumps: int = 5, generator: torch.Generator | None = None,
) -> Pattern:  # fmt: skip
    """Points uniform in the square of half side ``radius``, frames near the identity, normal amplitudes (float64)."""
    points = (2 * torch.rand(batch, bumps, 2, generator=generator, dtype=torch.float64) - 1) * radius
    v = 0.2 * torch.randn(batch, bumps, group.dim, generator=generator, dtype=torch.float64)
    amplitudes = torch.randn(batch, channels, bumps, generator=generator, dtype=torch.float64)
    return Pattern(points, group.from_coordinates(v), amplitudes, width, group_width)
