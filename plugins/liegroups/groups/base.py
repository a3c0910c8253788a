"""The interface of a group. A new group is one subclass: hat/vee come from a basis, the rest has defaults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from plugins.liegroups.linalg import matrix_log, phi1


class LieGroup(ABC):
    """A group of real matrices that acts on R^n.

    Elements are tensors [..., m, m] with m = ``rep_dim``; algebra vectors [..., ``dim``]; points [..., ``space_dim``].
    A subclass must give ``name``, ``dim``, ``rep_dim``, ``space_dim`` and ``basis``. The defaults then provide exp,
    log, adjoint, action, determinants and, in exponential coordinates, the Haar density; a group whose exponential is
    not surjective overrides ``coordinates``, ``from_coordinates`` and ``haar_log_density`` together.

    Two coordinate maps exist: ``exp``/``log`` of the algebra, and ``from_coordinates``/``coordinates``, which cover
    the whole group (up to a null set) and are what kernels and samplers use.
    """

    name: str
    dim: int
    rep_dim: int
    space_dim: int

    @property
    @abstractmethod
    def basis(self) -> Tensor:
        """Basis of the Lie algebra, float64 [dim, m, m]."""

    @cached_property
    def _dual_basis(self) -> Tensor:
        return torch.linalg.pinv(self.basis.reshape(self.dim, -1)).T.reshape(self.basis.shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    # --- algebra -----------------------------------------------------------------------------------------------
    def hat(self, v: Tensor) -> Tensor:
        """Algebra coordinates [..., dim] -> algebra matrix [..., m, m]."""
        if v.shape[-1] != self.dim:
            raise ValueError(f"v: {self.name} has {self.dim} coordinates, got a last axis of {v.shape[-1]}")
        return torch.einsum("...d,dij->...ij", v, self.basis.to(v))

    def vee(self, a: Tensor) -> Tensor:
        """Algebra matrix [..., m, m] -> coordinates [..., dim]; inverse of ``hat``."""
        return torch.einsum("...ij,dij->...d", a, self._dual_basis.to(a))

    def exp(self, v: Tensor) -> Tensor:
        """Matrix exponential of ``hat(v)``."""
        return torch.linalg.matrix_exp(self.hat(v))

    def log(self, g: Tensor) -> Tensor:
        """Principal logarithm in algebra coordinates. Raises ValueError where no real logarithm exists."""
        return self.vee(matrix_log(g))

    # --- group -------------------------------------------------------------------------------------------------
    def identity(self, *batch: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """Identity elements of shape [*batch, m, m]."""
        return torch.eye(self.rep_dim, dtype=dtype, device=device).expand(*batch, self.rep_dim, self.rep_dim)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """Product ``g h``."""
        return g @ h

    def inverse(self, g: Tensor) -> Tensor:
        """Inverse element."""
        return torch.linalg.inv(g)

    def adjoint(self, g: Tensor) -> Tensor:
        """Matrix [..., dim, dim] of ``v -> vee(g hat(v) g^-1)``."""
        basis = self.basis.to(g)
        moved = g.unsqueeze(-3) @ basis @ self.inverse(g).unsqueeze(-3)
        return self.vee(moved).mT

    def belongs(self, g: Tensor, atol: float = 1e-5) -> Tensor:
        """bool [...]: whether each matrix lies in the group, by distance to its projection relative to its norm."""
        scale = torch.linalg.matrix_norm(g).clamp_min(1.0)
        gap = torch.linalg.matrix_norm(g - self.project(g)) / scale
        return torch.nan_to_num(gap, nan=torch.inf) <= atol

    @abstractmethod
    def project(self, m: Tensor) -> Tensor:
        """A group element near the matrix ``m`` [..., m, m], equal to it when ``m`` belongs already."""

    # --- coordinates that cover the group ------------------------------------------------------------------------
    def coordinates(self, g: Tensor) -> Tensor:
        """Coordinates [..., dim] used by kernels and samplers; by default those of ``log``."""
        return self.log(g)

    def from_coordinates(self, v: Tensor) -> Tensor:
        """Inverse of ``coordinates``."""
        return self.exp(v)

    @property
    def feature_dim(self) -> int:
        """Length of ``features``."""
        return self.dim

    def features(self, g: Tensor) -> Tensor:
        """What kernels see of an element, [..., feature_dim]: ``coordinates`` with angles as (cos, sin): no cut."""
        return self.coordinates(g)

    # --- measure -----------------------------------------------------------------------------------------------
    def haar_log_density(self, v: Tensor) -> Tensor:
        """Log density [...] of the left Haar measure with respect to Lebesgue measure of ``coordinates``.

        Default, for exponential coordinates: ``log |det phi1(-ad_v)|`` (Helgason 2000, theorem I.1.14), valid near 0.
        """
        a = self.hat(v)
        basis = self.basis.to(v)
        bracket = a.unsqueeze(-3) @ basis - basis @ a.unsqueeze(-3)
        ad = self.vee(bracket).mT
        return torch.linalg.slogdet(phi1(-ad)).logabsdet

    def log_modular(self, g: Tensor) -> Tensor:
        """Log of the modular function, ``mu_left(E g) = Delta(g) mu_left(E)``, that is ``-log |det Ad_g|``."""
        return -torch.linalg.slogdet(self.adjoint(g)).logabsdet

    def modular_function(self, g: Tensor) -> Tensor:
        """``Delta(g)``; one everywhere for a unimodular group. ``d mu_right = d mu_left / Delta``."""
        return self.log_modular(g).exp()

    # --- action on space ---------------------------------------------------------------------------------------
    def act(self, g: Tensor, x: Tensor) -> Tensor:
        """Image of points: ``g`` [..., m, m] and ``x`` [..., n], batch axes broadcast."""
        n = self.space_dim
        moved = (g[..., :n, :n] @ x.unsqueeze(-1)).squeeze(-1)
        return moved if self.rep_dim == n else moved + g[..., :n, n]

    def log_jacobian(self, g: Tensor, x: Tensor) -> Tensor:
        """``log |det d(g x)/dx|`` at points ``x``, batch axes broadcast as in ``act``."""
        value = self.log_abs_det(g)
        return value.expand(torch.broadcast_shapes(value.shape, x.shape[:-1]))

    def log_abs_det(self, g: Tensor) -> Tensor:
        """``log |det|`` of the action's derivative at the origin, [...]."""
        n = self.space_dim
        return torch.linalg.slogdet(g[..., :n, :n]).logabsdet

    def visible(self, g: Tensor, x: Tensor) -> Tensor:
        """bool [...]: whether points ``x`` have an image under ``g`` on the same side of infinity; all, if linear."""
        return torch.ones(torch.broadcast_shapes(g.shape[:-2], x.shape[:-1]), dtype=torch.bool, device=x.device)

    def local_element(self, g_inv: Tensor, u: Tensor, h: Tensor) -> Tensor:
        """The element ``k`` in ``(T_x g)^-1 T_{x+u} h = T_{g^-1 u} k``, T the translations of the plane.

        ``g^-1 h`` for linear groups, where it does not depend on the offset ``u``; the batch axes broadcast.
        """
        return self.compose(g_inv, h)

    @property
    def local_element_depends_on_offset(self) -> bool:
        """Whether ``local_element`` must be evaluated anew at every pixel of the kernel."""
        return False


def random_elements(
    group: LieGroup, n: int, scale: float = 0.5, generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:  # fmt: skip
    """``n`` elements [n, m, m] with normal coordinates of standard deviation ``scale`` (not Haar distributed)."""
    v = torch.randn(n, group.dim, generator=generator, dtype=torch.float64)
    return group.from_coordinates(scale * v).to(dtype)
