"""Bi-invariant attributes of pairs: numbers that label, up to rigid motions, how a sender lies from a receiver.

A convolution that commutes with a group G shares its weights over all pairs one element of G carries into one another,
that is over the orbits of G on pairs; a kernel may therefore be any function of invariants of the pair, and loses
nothing if the invariants tell all orbits apart (Bekkers et al., ICLR 2024, thm. 1).

Throughout, the receiver has position p and orientation n (or pose (p, R)), the sender q and m (or (q, S)), and
r = q - p, sender minus receiver. Translations leave only r; what remains is invariance under the rotations of r, n, m.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.equivariant.geometry.norms import safe_norm, safe_sqrt

ATTRIBUTES = ("ponita", "universal")


def position(rel: Tensor) -> Tensor:
    """Pairs in R^n under E(n): (..., n) → (..., 1), the distance |r|.

    Rotations act transitively on vectors of one length, so |r| labels the orbits.
    """
    return safe_norm(rel, keepdim=True)


def position_orientation(
    rel: Tensor, receiver: Tensor, sender: Tensor, attributes: str = "ponita", smooth: bool = False
) -> Tensor:
    """Pairs in R^n x S^(n-1), n = 2 or 3.

    "ponita", n = 3, under E(3): (r.n, |r - (r.n) n|, n.m). The rotations that fix n turn r about it, which leaves the
        part of r along n and the length of the rest. A pair has 10 - 6 = 4 degrees of freedom, though: how m lies
        around n with respect to r is missing. For n = e_z and r = e_x, the senders m = e_x and m = e_y look the same.
    "universal", n = 3, under E(3): (r.n, |r|^2, r.m, n.m), all inner products of r, n, m but the constant ones. By the
        first fundamental theorem of O(3) every invariant is a function of them (Bellaard, Smets and Duits,
        arXiv:2504.03299), and they are polynomials, so smooth. They do not see handedness; `chirality` does.
    n = 2, under SE(2): with J the quarter turn, (r.n, r.Jn) are the coordinates of r in the frame of n, which fixes r;
        m is fixed by its angle from n. "ponita" keeps n.m, which loses the sign of the angle; "universal" adds Jn.m.

    Args:
        rel: (..., n) displacements r.
        receiver, sender: (..., n) unit orientations n, m.
        attributes: "ponita" or "universal".
        smooth: with "ponita" in 3D, |r - (r.n) n|^2 in place of its root, which has a kink where r is along n: with the
            root, forces jump as a bond crosses an orientation.

    Returns:
        (..., 3), or (..., 4) when universal.
    """
    spatial = spatial_attributes(rel, receiver, attributes, smooth)
    fiber = fiber_attributes(receiver, sender, attributes)
    if attributes == "universal" and rel.shape[-1] == 3:
        spatial = torch.cat([spatial, (rel * sender).sum(-1, keepdim=True)], -1)
    return torch.cat([spatial, fiber], -1)


def spatial_attributes(rel: Tensor, receiver: Tensor, attributes: str = "ponita", smooth: bool = False) -> Tensor:
    """The two attributes (..., 2) of a pair that do not involve the sender's orientation; all a separable kernel sees.

    For n = 3 they are (r.n, |r - (r.n) n|), or with `smooth` (r.n, |r - (r.n) n|^2), or when universal (r.n, |r|^2);
    for n = 2 always (r.n, r.Jn). Either pair fixes r up to turns about n.
    """
    _known(attributes)
    along = (rel * receiver).sum(-1, keepdim=True)
    if rel.shape[-1] == 2:
        return torch.cat([along, (rel * quarter_turn(receiver)).sum(-1, keepdim=True)], -1)
    if attributes == "universal":
        return torch.cat([along, rel.square().sum(-1, keepdim=True).expand(along.shape)], -1)
    # not |r|^2 - (r.n)^2, which cancels near the axis
    across = (rel - along * receiver).square().sum(-1, keepdim=True)
    return torch.cat([along, across if smooth else safe_sqrt(across)], -1)


def fiber_attributes(receiver: Tensor, sender: Tensor, attributes: str = "ponita") -> Tensor:
    """Attributes of two orientations at one position: n.m, (..., 1); in 2D when universal (n.m, Jn.m), (..., 2).

    The cosine and not the angle, whose slope at 0 and pi is infinite.
    """
    _known(attributes)
    cosine = (receiver * sender).sum(-1, keepdim=True)
    if attributes == "universal" and receiver.shape[-1] == 2:
        return torch.cat([cosine, (quarter_turn(receiver) * sender).sum(-1, keepdim=True)], -1)
    return cosine


def grid_attributes(rel: Tensor, points: Tensor, attributes: str = "ponita", smooth: bool = False) -> Tensor:
    """`spatial_attributes` of displacements (K, n) against every orientation (O, n): (K, O, 2)."""
    _known(attributes)
    n = rel.shape[-1]
    if n == 2:
        return torch.stack([rel @ points.T, rel @ quarter_turn(points).T], -1)
    if attributes == "universal":
        along = rel @ points.T
        return torch.stack([along, rel.square().sum(-1, keepdim=True).expand(along.shape)], -1)
    # one matrix product gives r.n and the components of r - (r.n) n
    across = torch.eye(n, dtype=rel.dtype, device=rel.device) - points[:, :, None] * points[:, None, :]
    maps = torch.cat([points[:, None, :], across], 1)
    components = (rel @ maps.view(-1, n).T).view(-1, len(points), n + 1)
    square = components[..., 1:].square().sum(-1)
    return torch.stack([components[..., 0], square if smooth else safe_sqrt(square)], -1)


def pose(rel: Tensor, receiver: Tensor, sender: Tensor) -> Tensor:
    """Pairs in SE(n) under SE(n): (R^T r, R^T S) flattened, (..., n) and (..., n, n) twice → (..., n + n^2).

    The group acts on itself simply transitively, so the relative pose (p, R)^-1 (q, S) is a complete invariant.
    """
    turned = receiver.transpose(-1, -2)
    return torch.cat([(turned @ rel[..., None])[..., 0], (turned @ sender).flatten(-2)], -1)


def chirality(rel: Tensor, receiver: Tensor, sender: Tensor) -> Tensor:
    """(..., 1) det[r, n, m] in 3D: invariant under SE(3), of opposite sign for mirror images.

    Beside the universal attributes it completes them for SE(3); its square is a function of them.
    """
    return (rel * torch.linalg.cross(receiver, sender)).sum(-1, keepdim=True)


def quarter_turn(x: Tensor) -> Tensor:
    """J x = (-x_2, x_1), counter-clockwise."""
    return torch.stack([-x[..., 1], x[..., 0]], -1)


def _known(attributes: str) -> None:
    if attributes not in ATTRIBUTES:
        raise ValueError(f"attributes must be one of {', '.join(ATTRIBUTES)}, not {attributes!r}")
