"""Factorisations of matrix groups: ``split(g)`` gives the factors, ``join(*factors)`` puts them together again."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from plugins.liegroups.linalg import polar_log, sym_exp


class Decomposition(Protocol):
    """A factorisation with an inverse: ``join(*split(g)) == g``."""

    def split(self, g: Tensor) -> tuple[Tensor, ...]:
        """Factors of ``g`` [..., n, n]."""
        ...

    def join(self, *factors: Tensor) -> Tensor:
        """The element with these factors."""
        ...


class CartanPolar:
    """``g = e^X R`` for det g > 0, any n: X symmetric (traceless for SL), R in SO(n). A diffeomorphism."""

    def split(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """-> (X [..., n, n], R [..., n, n])."""
        return polar_log(g)

    def join(self, x: Tensor, r: Tensor) -> Tensor:
        """``e^X R``."""
        return sym_exp(x) @ r

    def split_scale(self, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> (log det g [...], traceless X [..., n, n], R): R+ x SSPD(n) x SO(n), factor by factor."""
        x, r = self.split(g)
        n = g.shape[-1]
        log_det = x.diagonal(dim1=-2, dim2=-1).sum(-1)
        eye = torch.eye(n, dtype=g.dtype, device=g.device)
        return log_det, x - log_det[..., None, None] / n * eye, r

    def join_scale(self, log_det: Tensor, x: Tensor, r: Tensor) -> Tensor:
        """Inverse of ``split_scale``."""
        return (log_det / x.shape[-1]).exp()[..., None, None] * self.join(x, r)


class QR:
    """Iwasawa form ``g = K B``: K in SO(n), B upper triangular with a positive diagonal; det g > 0."""

    def split(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """-> (K, B). Raises ValueError for a non-positive determinant."""
        if g.numel() and bool((torch.linalg.det(g.detach()) <= 0).any()):
            raise ValueError("g: the QR decomposition with a rotation factor needs det g > 0")
        q, r = torch.linalg.qr(g)
        sign = r.diagonal(dim1=-2, dim2=-1).sign()
        return q * sign.unsqueeze(-2), r * sign.unsqueeze(-1)

    def join(self, k: Tensor, b: Tensor) -> Tensor:
        """``K B``."""
        return k @ b

    def log_density(self, b: Tensor) -> Tensor:
        """Log Haar density ``-sum_i i log b_ii`` for ``dK prod_{i<=j} db_ij``, up to a constant; b [..., n, n]."""
        index = torch.arange(1, b.shape[-1] + 1, dtype=b.dtype, device=b.device)
        return -(index * b.diagonal(dim1=-2, dim2=-1).log()).sum(-1)


class KAK:
    """``g = K1 diag(e^a) K2`` with K1, K2 in SO(n) and a_1 >= ... >= a_n; det g > 0. Not unique where a's repeat."""

    def split(self, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> (K1 [..., n, n], a [..., n], K2 [..., n, n]). Raises ValueError for a non-positive determinant."""
        if g.numel() and bool((torch.linalg.det(g.detach()) <= 0).any()):
            raise ValueError("g: the KAK decomposition with rotation factors needs det g > 0")
        u, s, vh = torch.linalg.svd(g)
        # u and vh have determinants of equal sign: flip the same column and row of both
        sign = torch.linalg.det(u).sign()
        flip = torch.ones_like(s)
        flip = torch.cat([flip[..., :-1], sign[..., None]], dim=-1)
        return u * flip.unsqueeze(-2), s.log(), vh * flip.unsqueeze(-1)

    def join(self, k1: Tensor, a: Tensor, k2: Tensor) -> Tensor:
        """``K1 diag(e^a) K2``."""
        return (k1 * a.exp().unsqueeze(-2)) @ k2

    def log_density(self, a: Tensor) -> Tensor:
        """Log Haar density ``sum_{i<j} log |sinh(a_i - a_j)|`` for ``dK1 da dK2``, up to a constant; a [..., n]."""
        i, j = torch.triu_indices(a.shape[-1], a.shape[-1], 1, device=a.device)
        gap = (a[..., i] - a[..., j]).abs()
        return torch.sinh(gap).log().sum(-1)
