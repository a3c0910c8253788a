"""A diffusion of a few large steps: pairs of neighbouring noise levels, and the posterior between them.

Xiao et al. 2022 (arXiv:2112.07804), as EMDM uses it (Zhou et al. 2024, arXiv:2312.02256).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.generative.schedules import VPLinear


def _times(steps: int, first: float) -> Tensor:
    if steps < 1:
        raise ValueError(f"steps = {steps} must be at least 1")
    return torch.arange(steps + 1, dtype=torch.float64) / steps * (1 - first) + first


def vp_betas(steps: int, beta_min: float = 0.1, beta_max: float = 20.0, first: float = 1e-3) -> Tensor:
    """``beta_i = 1 - abar(u_i) / abar(u_{i-1})``, i = 1 … steps, of the continuous VP schedule; (steps,) float64.

    ``u_i = i / steps (1 - first) + first``.
    """
    log_power = -VPLinear(beta_min, beta_max).integrated_beta(_times(steps, first))
    return -torch.expm1(log_power.diff())


def geometric_betas(steps: int, beta_min: float = 0.1, beta_max: float = 20.0, first: float = 1e-3) -> Tensor:
    """As :func:`vp_betas`, of the noise power ``beta_min (beta_max / beta_min)^u``, which must stay below 1."""
    if not 0 < beta_min < beta_max < 1:
        raise ValueError(f"need 0 < beta_min < beta_max < 1 for a noise power, got {beta_min} and {beta_max}")
    power = 1 - beta_min * (beta_max / beta_min) ** _times(steps, first)
    return 1 - power[1:] / power[:-1]


BETAS = {"vp": vp_betas, "geometric": geometric_betas}


class DenoisingSteps(nn.Module):
    """Coefficients of a diffusion of T steps, computed in float64 and kept in float32.

    The levels 0 … T hold ``x_k = s_k x0 + sqrt(1 - s_k^2) eps`` with ``s_0 = sqrt(1 - 1e-8)``, the data, and level T
    almost pure noise. A step t in 0 … T - 1 leads from level t + 1 to level t.

    Args:
        steps: T.
        schedule: ``"vp"`` or ``"geometric"``.
        beta_min, beta_max: of the schedule.
    """

    FIRST = 1e-8

    def __init__(self, steps: int = 10, schedule: str = "vp", beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        super().__init__()
        if schedule not in BETAS:
            raise ValueError(f"schedule = {schedule!r} is not one of {', '.join(BETAS)}")
        self.steps = steps
        betas = BETAS[schedule](steps, beta_min, beta_max)
        pairs = torch.cat([betas.new_tensor([self.FIRST]), betas])
        signal = torch.cumprod(1 - pairs, 0).sqrt()
        # the posterior is built on the steps proper: at t = 0 the level below is the data itself
        power = torch.cumprod(1 - betas, 0)
        below = torch.cat([power.new_ones(1), power[:-1]])
        variance = betas * (1 - below) / (1 - power)
        for name, values in {
            "signal": signal,
            "noise": (1 - signal.square()).sqrt(),
            "step_signal": (1 - betas).sqrt(),
            "step_noise": betas.sqrt(),
            "on_x0": betas * below.sqrt() / (1 - power),
            "on_next": (1 - below) * (1 - betas).sqrt() / (1 - power),
            "posterior_std": variance.clamp_min(1e-20).sqrt() * (torch.arange(steps) > 0),
        }.items():
            self.register_buffer(name, values.float(), persistent=False)

    def pair(self, x0: Tensor, t: Tensor, noise: Tensor, step_noise: Tensor) -> tuple[Tensor, Tensor]:
        """``(x_t, x_{t+1})`` of one forward path; t (B,) in 0 … T - 1, both noises of x0's shape."""
        x_t = _at(self.signal, t, x0) * x0 + _at(self.noise, t, x0) * noise
        return x_t, _at(self.step_signal, t, x0) * x_t + _at(self.step_noise, t, x0) * step_noise

    def posterior(self, x0: Tensor, x_next: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw from ``q(x_t | x_{t+1}, x0)``; without noise at t = 0, where it is x0."""
        mean = _at(self.on_x0, t, x0) * x0 + _at(self.on_next, t, x0) * x_next
        return mean + _at(self.posterior_std, t, x0) * noise


def _at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    return table.to(like.dtype)[t].view(-1, *[1] * (like.ndim - 1))
