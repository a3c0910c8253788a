"""Convolution on R^n x S^(n-1), separable or not, and on R^n."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from plugins.equivariant.layers.factored import FactoredKernel
from plugins.equivariant.layers.messages import Messages
from plugins.equivariant.layers.transpose import channels_first, channels_last


class PositionOrientationConv(nn.Module):
    """Depthwise group convolution over positions and orientations (Bekkers et al., ICLR 2024, eq. 12).

    Separable, with k_s, k_f linear in their bases and no bias:
        y_i(n) = k_s(0) x_i(n) + sum_j k_s(p_j - p_i, n) x_j(n)       over positions
        z_i(n) = sum_m w_m k_f(n.m) y_i(m) + b                         over orientations
    with quadrature weights w that sum to one. Unseparated, both sums are one, over kernels k(p_j - p_i, n, m):
        z_i(n) = sum_m w_m [k(0, n, m) x_i(m) + sum_j k(p_j - p_i, n, m) x_j(m)] + b.
    Sums, not means, over neighbours. Channels are mixed elsewhere (see ConvNextBlock).

    Args:
        channels: C.
        basis_dim: functions in the spatial (or joint) basis.
        fiber_dim: functions in the fibre basis; 0 for R^n, where there are no orientations to sum over.
        separable: as above.
    """

    calibrated: Tensor

    def __init__(self, channels: int, basis_dim: int, fiber_dim: int = 0, separable: bool = True) -> None:
        super().__init__()
        self.spatial = nn.Linear(basis_dim, channels, bias=False)
        self.fiber = nn.Linear(fiber_dim, channels, bias=False) if separable and fiber_dim else None
        self.bias = nn.Parameter(torch.zeros(channels))
        self.separable = separable
        self.register_buffer("calibrated", torch.tensor(False))

    def forward(self, x: Tensor, messages: Messages, basis: Tensor, self_basis: Tensor, fiber: Tensor | None) -> Tensor:
        """Convolve.

        Args:
            x: (N, O, C) features.
            messages: the edges.
            basis: (K, O, B), or (K, O, O, B) with (receiver, sender) orientations when not separable.
            self_basis: the basis at zero displacement, broadcastable to the shape of `basis` at one edge.
            fiber: (O, O, B) fibre basis times the quadrature weight of the second orientation; the weights alone,
                (O,), when not separable; None on R^n.
        """
        if not self.separable:
            return self._joint(x, messages, basis, self_basis, fiber) + self.bias
        kernel = None if self.fiber is None else self.fiber(fiber)
        return self.convolve(x, messages, self.spatial(basis), self.spatial(self_basis), kernel)

    def convolve(
        self,
        x: Tensor,
        messages: Messages,
        kernel: Tensor | FactoredKernel,
        self_kernel: Tensor,
        fiber_kernel: Tensor | Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        """The separable convolution by kernels (K, O, C), (1, O, C) and (O, O, C), or a map, that are known already."""
        y = messages(kernel, x) + self_kernel * x
        if isinstance(fiber_kernel, Tensor):
            y = _over_orientations(y, fiber_kernel)
        elif fiber_kernel is not None:
            y = fiber_kernel(y)
        return y + self.bias

    def over_positions(self, x: Tensor, messages: Messages, basis: Tensor, self_basis: Tensor) -> Tensor:
        """The first sum, (N, O, C)."""
        return messages(self.spatial(basis), x) + self.spatial(self_basis) * x

    def over_orientations(self, y: Tensor, fiber: Tensor) -> Tensor:
        """The second sum, (N, O, C), without bias."""
        assert self.fiber is not None
        return _over_orientations(y, self.fiber(fiber))

    @torch.no_grad()
    def calibrate_(
        self, x: Tensor, messages: Messages, basis: Tensor, self_basis: Tensor, fiber: Tensor | None
    ) -> None:
        """Rescale the kernels so that each sum of the convolution keeps the standard deviation of its input.

        k_s *= std(x) / std(y), k_f *= std(y) / std(z), over nodes, orientations and channels, and over all ranks of a
        distributed job, which thereby agree. A sum that is constant leaves its kernel as it is.
        """
        if not self.separable:
            self.spatial.weight.mul_(_ratio(x, self._joint(x, messages, basis, self_basis, fiber)))
        else:
            y = self.over_positions(x, messages, basis, self_basis)
            ratio = _ratio(x, y)
            self.spatial.weight.mul_(ratio)
            if self.fiber is not None:
                y = y * ratio
                self.fiber.weight.mul_(_ratio(y, self.over_orientations(y, fiber)))
        self.calibrated.fill_(True)

    def _joint(self, x: Tensor, messages: Messages, basis: Tensor, self_basis: Tensor, weights: Tensor) -> Tensor:
        if messages.mirrored:
            raise ValueError("the unseparated form reads its edges one by one: build Messages with mirrored=False")
        kernel = self.spatial(basis) * weights[:, None]
        moved = torch.einsum("eabc,ebc->eac", kernel, x.index_select(0, messages.sender))
        out = torch.zeros_like(x).index_add(0, messages.receiver, moved)
        own = (self.spatial(self_basis) * weights[:, None]).expand(x.shape[1], x.shape[1], -1)
        return out + torch.einsum("abc,nbc->nac", own, x)


def _over_orientations(y: Tensor, kernel: Tensor) -> Tensor:
    """sum_m kernel[n, m, c] y[i, m, c], (N, O, C)."""
    # laid out so that all channels are one call of the library
    return channels_last(torch.bmm(channels_first(y), kernel.permute(2, 1, 0).contiguous()))


def _ratio(before: Tensor, after: Tensor) -> Tensor:
    """std(before) / std(after) over the batches of all ranks; one where either vanishes or is not finite."""
    moments = torch.stack([m for t in (before, after) for m in (t.new_tensor(t.numel()), t.sum(), t.square().sum())])
    moments = moments.double()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(moments)
    (n, s, q), (m, t, r) = moments[:3], moments[3:]
    ratio = (((q - s**2 / n) / (n - 1)) / ((r - t**2 / m) / (m - 1))).sqrt()
    usable = torch.isfinite(ratio) & (ratio > 0)
    return torch.where(usable, ratio, 1).to(before.dtype)
