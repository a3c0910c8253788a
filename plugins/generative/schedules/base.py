"""What every noise schedule provides."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class NoiseSchedule(ABC):
    """Forward marginal ``x_t = alpha(t) x0 + sigma(t) eps``, with data at ``t_min`` and noise at ``t_max``.

    Time grows with the noise (t = 0 is data), the convention of diffusion models; flow-matching code that puts
    data at 1 reads it as ``1 - t``.  Every method is elementwise: it takes a tensor of any shape (or a number,
    which becomes a float64 scalar) and answers in the same shape and dtype.

    Two equivalent measures of the noise serve every solver: ``sigma_tilde = sigma / alpha`` (the noise level of
    ``y = x / alpha``, "sigma" of EDM, "rho" of DEIS) and ``lambda_ = -log sigma_tilde`` (half the log-SNR).
    A subclass gives ``alpha``, ``sigma``, ``sigma_tilde`` and ``inverse_sigma_tilde``.

    Attributes:
        t_min, t_max: the range samplers use by default.  Outside it the formulas hold as far as they are defined.
    """

    t_min: float
    t_max: float

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        """Signal scale, in [0, 1]."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        """Noise scale, >= 0."""

    @abstractmethod
    def sigma_tilde(self, t: Tensor | float) -> Tensor:
        """Noise-to-signal ratio ``sigma / alpha``, strictly increasing in t."""

    @abstractmethod
    def inverse_sigma_tilde(self, sigma_tilde: Tensor | float) -> Tensor:
        """The time with this noise-to-signal ratio."""

    def lambda_(self, t: Tensor | float) -> Tensor:
        """Half log-SNR ``log(alpha / sigma)``, strictly decreasing in t; +inf where sigma is 0."""
        return -torch.log(self.sigma_tilde(t))

    def inverse_lambda(self, lam: Tensor | float) -> Tensor:
        """The time with this half log-SNR."""
        return self.inverse_sigma_tilde(torch.exp(-as_tensor(lam)))

    def alpha_at(self, sigma_tilde: Tensor | float) -> Tensor:
        """Signal scale where the noise-to-signal ratio is ``sigma_tilde``."""
        return self.alpha(self.inverse_sigma_tilde(sigma_tilde))

    def require_in_range(self, t: Tensor) -> None:
        """Raise ``ValueError`` naming the first time outside [t_min, t_max] (with a rounding allowance)."""
        slack = 1e-9 * max(abs(self.t_min), abs(self.t_max))
        outside = (t < self.t_min - slack) | (t > self.t_max + slack) | ~torch.isfinite(t)
        if bool(outside.any()):
            raise ValueError(
                f"t = {t[outside].flatten()[0].item():g} lies outside [{self.t_min:g}, {self.t_max:g}] "
                f"of {type(self).__name__}; choose times inside it or a schedule with a wider range"
            )


def as_tensor(value: Tensor | float) -> Tensor:
    """A floating-point tensor: tensors of floats pass through, anything else becomes float64."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value
    return torch.as_tensor(value, dtype=torch.float64)
