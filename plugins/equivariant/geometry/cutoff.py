"""A smooth window on distances."""

from __future__ import annotations

from torch import Tensor, nn


class PolynomialCutoff(nn.Module):
    """u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2) for x = r / radius < 1, else 0.

    u(0) = 1, and u, u', u'' vanish at the radius (Gasteiger, Gross, Günnemann, ICLR 2020, eq. 8), so that energies
    and forces stay continuous as neighbours come and go.

    Args:
        radius: where the window closes; positive.
        p: order, at least 2 for a smooth start.
    """

    def __init__(self, radius: float, p: int = 6) -> None:
        super().__init__()
        if not radius > 0:
            raise ValueError(f"radius must be positive, not {radius}")
        if p < 2:
            raise ValueError(f"p must be at least 2, not {p}")
        self.radius, self.p = float(radius), int(p)

    def forward(self, distance: Tensor) -> Tensor:
        p, x = self.p, (distance / self.radius).clamp(max=1.0)
        power = x**p
        return 1 + power * (-(p + 1) * (p + 2) / 2 + x * (p * (p + 2) - x * (p * (p + 1) / 2)))

    def extra_repr(self) -> str:
        return f"radius={self.radius}, p={self.p}"
