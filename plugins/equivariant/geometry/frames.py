"""Frames that rotate with a point cloud."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.equivariant.graphs.scatter import centre, scatter_sum


def equivariant_frames(pos: Tensor, batch: Tensor, num_graphs: int, eps: float = 1e-12) -> Tensor:
    """(G, n, n) rotation of each graph, columns its axes, with frames(R x + t) = R frames(x) for rotations R.

    About the centroid c, with r = x - c: the first axis is along v = sum |r|^2 r, the second along the part of
    (sum r r^T) v orthogonal to it, the third completes a right-handed frame. A reflection S turns the frame into
    S frame diag(1, .., 1, -1).

    No choice of frame is continuous everywhere: this one jumps where v vanishes (every centrally symmetric cloud) or
    where v is an eigenvector of the inertia (a linear molecule, a symmetry axis); energies built on it jump there
    too. In such clouds the missing axes are taken from the coordinate axes, which is not equivariant.
    """
    n = pos.shape[1]
    count = torch.bincount(batch, minlength=num_graphs).clamp(min=1).to(pos)[:, None]
    centred = centre(pos, batch, num_graphs)
    square = centred.square().sum(-1, keepdim=True)
    scale = (scatter_sum(square, batch, num_graphs) / count).clamp(min=eps)
    first = scatter_sum(square * centred, batch, num_graphs) / (count * scale**1.5)
    inertia = scatter_sum(centred[:, :, None] * centred[:, None, :], batch, num_graphs) / (count * scale)[..., None]
    second = (inertia @ first[..., None])[..., 0]
    axes: list[Tensor] = []
    fallback = torch.eye(n, dtype=pos.dtype, device=pos.device)
    for candidate in [first, second][: n - 1]:
        axes.append(_orthonormal([candidate, *fallback.expand(num_graphs, n, n).unbind(1)], axes, eps))
    if n == 2:
        last = torch.stack([-axes[0][:, 1], axes[0][:, 0]], -1)
    else:
        last = torch.linalg.cross(axes[0], axes[1])
    return torch.stack([*axes, last], -1)


def _orthonormal(candidates: list[Tensor], axes: list[Tensor], eps: float) -> Tensor:
    """The first candidate, graph by graph, that is not in the span of `axes`, made orthonormal to them."""
    chosen, missing = None, None
    for candidate in candidates:
        for axis in axes:
            candidate = candidate - (candidate * axis).sum(-1, keepdim=True) * axis
        square = candidate.square().sum(-1, keepdim=True)
        good = square > eps
        unit = torch.where(good, candidate, 0) * torch.where(good, square, 1).rsqrt()
        if chosen is None:
            chosen, missing = unit, ~good
        else:
            chosen = torch.where(missing & good, unit, chosen)
            missing = missing & ~good
    assert chosen is not None
    return chosen
