"""Trajectories of charged particles in empty space (Kipf et al. 2018; Fuchs et al. 2020; Satorras et al. 2021).

n particles with charges of +-1 attract and repel by Coulomb's law with unit masses. All trajectories advance together;
particles and coordinates lie in the leading dimensions, so that every operation runs over contiguous memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm


@dataclass(frozen=True)
class ChargedParticles:
    """Settings of the simulation; the defaults are the benchmark's.

    Attributes:
        particles: n >= 1.
        steps: integration steps; frames are stored after steps ``every``, ``2 every``, ... below ``steps``.
        every: steps between frames.
        dt: length of a step.
        strength: of the interaction: F_i = strength * sum_j q_i q_j (x_i - x_j) / |x_i - x_j|^3.
        speed: of every particle at the start, in a random direction.
        box: half the edge of the box in which particles start; it does not confine them later.
        max_force: each component of the force on a particle is clipped to +- this.
    """

    particles: int = 5
    steps: int = 5000
    every: int = 100
    dt: float = 1e-3
    strength: float = 1.0
    speed: float = 0.5
    box: float = 5.0
    max_force: float = 100.0

    def __post_init__(self) -> None:
        for name in ("particles", "steps", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("dt", "box", "max_force"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.frames < 1:
            raise ValueError(f"steps = {self.steps} store no frame: raise it above every = {self.every}")

    @property
    def frames(self) -> int:
        """Stored frames of a trajectory: 49 by default; frame k is the state at time ``(k + 1) every dt``."""
        return (self.steps - 1) // self.every


@dataclass(frozen=True)
class Trajectories:
    """B trajectories of T frames.

    Attributes:
        pos: (B, T, n, 3) positions.
        vel: (B, T, n, 3) velocities, half a step behind the positions.
        charges: (B, n), +-1.
    """

    pos: Tensor
    vel: Tensor
    charges: Tensor

    def __len__(self) -> int:
        return len(self.pos)

    def __getitem__(self, index: slice) -> Trajectories:
        return Trajectories(self.pos[index], self.vel[index], self.charges[index])


def coulomb_forces(pos: Tensor, charges: Tensor, strength: float = 1.0, max_force: float | None = None) -> Tensor:
    """Forces on the particles.

    Args:
        pos: (n, 3, B) positions.
        charges: (n, B).
        strength: of the interaction.
        max_force: clip of each component; None for none.

    Returns:
        (n, 3, B); their sum over the particles vanishes where nothing is clipped.
    """
    i, j = torch.triu_indices(len(pos), len(pos), 1, device=pos.device)
    # from differences: |a|^2 + |b|^2 - 2 a.b turns negative at close encounters
    separation = pos[i] - pos[j]
    squared = separation.square().sum(1)
    weight = strength * charges[i] * charges[j] * squared.rsqrt() / squared
    on_first = separation * weight[:, None]
    forces = torch.zeros_like(pos).index_add_(0, i, on_first).index_add_(0, j, on_first, alpha=-1)
    return forces if max_force is None else forces.clamp_(-max_force, max_force)


def energy(pos: Tensor, vel: Tensor, charges: Tensor, strength: float = 1.0) -> Tensor:
    """Kinetic plus potential energy of states (..., n, 3) with charges (..., n), broadcast: (...)."""
    i, j = torch.triu_indices(pos.shape[-2], pos.shape[-2], 1, device=pos.device)
    distance = (pos[..., i, :] - pos[..., j, :]).norm(dim=-1)
    potential = strength * (charges[..., i] * charges[..., j] / distance).sum(-1)
    return 0.5 * vel.square().sum((-1, -2)) + potential


def simulate(
    count: int, seed: int, settings: ChargedParticles | None = None, chunk: int = 1000, progress: bool = False
) -> Trajectories:
    """Draw ``count`` initial states and integrate them (symplectic leap-frog, float64).

    Positions are standard normal times (n / 5)^(1/3), reflected into the box; charges are +-1 with equal probability.
    Chunk c draws from a generator seeded with (seed, c), so the result depends on ``count``, ``seed`` and ``chunk``.

    Args:
        count: number of trajectories.
        seed: of the initial states.
        settings: of the simulation.
        chunk: trajectories integrated together; about a thousand fit into a processor's cache.
        progress: show a bar.

    Returns:
        float32 trajectories.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    settings = settings or ChargedParticles()
    sizes = [min(chunk, count - start) for start in range(0, count, chunk)]
    with tqdm(total=len(sizes) * settings.steps, desc="Charged particles", unit="step", disable=not progress) as bar:
        parts = [_integrate(size, (seed << 20) + number, settings, bar) for number, size in enumerate(sizes)]
    return Trajectories(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _integrate(count: int, seed: int, s: ChargedParticles, bar: tqdm) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (s.particles, 3, count)
    pos = torch.randn(shape, generator=generator, dtype=torch.float64) * (s.particles / 5) ** (1 / 3)
    vel = torch.randn(shape, generator=generator, dtype=torch.float64)
    vel *= s.speed / vel.norm(dim=1, keepdim=True)
    charges = torch.randint(0, 2, (s.particles, count), generator=generator).double() * 2 - 1
    while bool((outside := pos.abs() > s.box).any()):
        pos = torch.where(outside, pos.sign() * 2 * s.box - pos, pos)
        vel = torch.where(outside, -pos.sign() * vel.abs(), vel)
    all_pos = torch.empty(s.frames, *shape, dtype=torch.float32)
    all_vel = torch.empty_like(all_pos)
    vel.add_(coulomb_forces(pos, charges, s.strength, s.max_force), alpha=s.dt)
    for step in range(1, s.steps):
        pos.add_(vel, alpha=s.dt)
        if step % s.every == 0:
            all_pos[step // s.every - 1], all_vel[step // s.every - 1] = pos, vel
            bar.update(s.every)
        vel.add_(coulomb_forces(pos, charges, s.strength, s.max_force), alpha=s.dt)
    bar.update(s.steps - (s.steps - 1) // s.every * s.every)
    ordered = (3, 0, 1, 2)
    return all_pos.permute(ordered).contiguous(), all_vel.permute(ordered).contiguous(), charges.T.float().contiguous()
