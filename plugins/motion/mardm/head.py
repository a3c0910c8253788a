"""MARDM's heads: a small diffusion that draws one latent given the transformer's word on it.

Li et al. 2024 (arXiv:2406.11838) for diffusion heads, Ma et al. 2024 (arXiv:2401.08740) for SiT's velocity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from plugins.generative.grids import append_zero, time_uniform
from plugins.generative.parameterizations import NetworkDenoiser
from plugins.generative.schedules import Flow, NoiseSchedule, VPDiscrete
from plugins.generative.solvers import Ancestral, DPMSolverPP2M, Solver

from ..guidance import combine
from ..mdm.schedule import cosine_betas
from ..networks import TimestepEmbedding


class ModulatedBlock(nn.Module):
    """``x + gate * MLP(norm(x) (1 + scale) + shift)``, the three from the condition, zero at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.network = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        return x + gate * self.network(torch.addcmul(shift, self.norm(x), 1 + scale))


class DiffusionMLP(nn.Module):
    """``(x, t, z) -> answer``, residual MLP blocks modulated by time and condition; exactly 0 before training.

    Args:
        latent: width of x and of the answer.
        condition: width of z.
        width, blocks: 1792 and 16 in the paper.
        time_scale: factor on the time before its sinusoids; the paper has none, for times in [0, 1] too.
    """

    def __init__(
        self, latent: int, condition: int, width: int = 1792, blocks: int = 16, time_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.read, self.time = nn.Linear(latent, width), TimestepEmbedding(width, 256, time_scale)
        self.condition, self.activation = nn.Linear(condition, width), nn.SiLU()
        self.blocks = nn.ModuleList(ModulatedBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation, self.write = nn.Linear(width, 2 * width), nn.Linear(width, latent)
        for layer in (self.modulation, self.write):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """x (M, latent), t (M,), z (M, condition) -> (M, latent)."""
        condition = self.activation(self.time(t) + self.condition(z))
        x = self.read(x)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        return self.write(torch.addcmul(shift, self.norm(x), 1 + scale))


class Head(nn.Module, ABC):
    """A diffusion over single latents.

    Args:
        network: ``(x, t, z) -> answer``, e.g. :class:`DiffusionMLP`.
        solver: of the sampling.
    """

    schedule: NoiseSchedule

    def __init__(self, network: nn.Module, solver: Solver) -> None:
        super().__init__()
        self.network, self.solver = network, solver

    @abstractmethod
    def loss(self, x: Tensor, z: Tensor) -> Tensor:
        """Mean squared error of the network at random times, for latents x (M, latent) and conditions z."""

    @abstractmethod
    def denoiser(self, z: Tensor, null: Tensor | None, scale: float) -> NetworkDenoiser:
        """What solvers call; guided inside the network's answer where ``null``, conditions without text, is given."""

    @abstractmethod
    def levels(self) -> Tensor:
        """The grid of noise levels for the solver."""

    def sample(self, z: Tensor, null: Tensor | None, scale: float, noise: Callable[[], Tensor]) -> Tensor:
        """One latent for each condition z (M, condition).

        Args:
            null: (M, condition), the conditions without text, or None for no guidance.
            scale: of the guidance ``u + scale (c - u)`` of the network's answers, from the same x.
            noise: unit normals (M, latent), for the start and for stochastic solvers.
        """
        levels = self.levels()
        start = float(levels[0]) * noise()
        return self.solver.sample(self.denoiser(z, null, scale), start, levels, noise=lambda sigma, below: noise())

    def _guided(self, x: Tensor, t: Tensor, z: Tensor, null: Tensor | None, scale: float) -> Tensor:
        if null is None:
            return self.network(x, t, z)
        both = self.network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([z, null]))
        return combine(*both.chunk(2), scale)


class SiTHead(Head):
    """A flow from noise at time 0 to data at time 1, ``x_s = (1 - s) eps + s x``, velocity ``x - eps``.

    Args:
        network: its time is s in [0, 1].
        steps: evaluations of the velocity, uniform in time but for the last, from ``t_min`` onto the denoiser's answer.
        solver: second-order DPM-Solver++ when omitted, which bears the infinite noise-to-signal ratio of the start.
            The reference's adaptive one is ``DormandPrince(rtol=1e-3, atol=1e-6)``, for which only the ends count.
        t_min: schedule time, from data at 0, of the last but one point.
    """

    def __init__(
        self, network: nn.Module, steps: int = 16, solver: Solver | None = None, t_min: float = 1e-3
    ) -> None:
        super().__init__(network, solver or DPMSolverPP2M())
        self.schedule = Flow(t_min=t_min)
        self.steps = steps
        self.levels()

    def loss(self, x: Tensor, z: Tensor) -> Tensor:
        s = torch.rand(len(x), dtype=x.dtype, device=x.device)
        noise = torch.randn_like(x)
        made = self.network(torch.lerp(noise, x, s[:, None]), s, z)
        return (made - (x - noise)).square().mean()

    def denoiser(self, z: Tensor, null: Tensor | None, scale: float) -> NetworkDenoiser:
        # the schedule's time runs from data to noise, and so does its velocity
        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return -self._guided(x, 1 - t, z, null, scale)

        return NetworkDenoiser(velocity, self.schedule, "flow")

    def levels(self) -> Tensor:
        return time_uniform(self.schedule, self.steps, end="zero")


class DDPMHead(Head):
    """A DDPM of few cosine steps that predicts the noise and samples all of them ancestrally.

    Args:
        network: its time is the step's index 0 … steps - 1.
        steps: 50 in the paper, for training and sampling alike.
        solver: ancestral when omitted.
    """

    def __init__(self, network: nn.Module, steps: int = 50, solver: Solver | None = None) -> None:
        super().__init__(network, solver or Ancestral())
        self.schedule = VPDiscrete(cosine_betas(steps))
        times = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        self.register_buffer("alphas", self.schedule.alpha(times).float(), persistent=False)
        self.register_buffer("sigmas", self.schedule.sigma(times).float(), persistent=False)

    def loss(self, x: Tensor, z: Tensor) -> Tensor:
        t = torch.randint(self.schedule.steps, (len(x),), device=x.device)
        noise = torch.randn_like(x)
        made = self.network(self.alphas[t, None] * x + self.sigmas[t, None] * noise, t.to(x.dtype), z)
        return (made - noise).square().mean()

    def denoiser(self, z: Tensor, null: Tensor | None, scale: float) -> NetworkDenoiser:
        return NetworkDenoiser(lambda x, t: self._guided(x, t, z, null, scale), self.schedule, "epsilon")

    def levels(self) -> Tensor:
        times = torch.arange(self.schedule.steps, 0, -1, dtype=torch.float64) / self.schedule.steps
        return append_zero(self.schedule.sigma_tilde(times))
