"""Molecular dynamics at constant energy, the test of a potential's smoothness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

BOLTZMANN = 8.617333262e-5
"""eV / K."""

FEMTOSECOND = 0.09822694788
"""In units of angstrom sqrt(u / eV), the time unit in which v = dr/dt has m v^2 / 2 in eV."""


@dataclass(frozen=True)
class Trajectory:
    """A recorded trajectory.

    Attributes:
        times: (T,) in ps.
        kinetic, potential: (T,) in eV.
        pos: (T, n, 3) in angstrom.
    """

    times: np.ndarray
    kinetic: np.ndarray
    potential: np.ndarray
    pos: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """(T,) total energy in eV."""
        return self.kinetic + self.potential

    @property
    def temperature(self) -> np.ndarray:
        """(T,) kinetic temperature in K, three degrees of freedom less for the fixed centre of mass."""
        freedom = max(1, 3 * self.pos.shape[1] - 3)
        return 2 * self.kinetic / (freedom * BOLTZMANN)


def nve(
    potential: Callable[[np.ndarray], tuple[float, np.ndarray]],
    pos: np.ndarray,
    masses: np.ndarray,
    picoseconds: float,
    timestep: float = 0.5,
    temperature: float = 300.0,
    seed: int = 0,
    every: int = 10,
    progress: bool = False,
) -> Trajectory:
    """Velocity Verlet from Maxwell-Boltzmann velocities, without thermostat.

    Args:
        potential: positions (n, 3) → energy in eV and forces (n, 3) in eV / angstrom.
        pos: (n, 3) start in angstrom.
        masses: (n,) in u.
        picoseconds: length.
        timestep: in fs.
        temperature: in K, of the drawn velocities, whose total momentum is removed.
        seed: of the velocities.
        every: steps between records; the first and the last state are among them.
        progress: show a bar.

    Raises:
        ValueError: a length or a time step that is not positive, or a trajectory that leaves finite numbers.
    """
    if not (picoseconds > 0 and timestep > 0):
        raise ValueError(f"picoseconds and timestep must be positive, not {picoseconds} and {timestep}")
    steps = max(1, round(picoseconds * 1000 / timestep))
    dt, mass = timestep * FEMTOSECOND, np.asarray(masses, dtype=np.float64)[:, None]
    pos = np.array(pos, dtype=np.float64)
    vel = np.random.default_rng(seed).standard_normal(pos.shape) * np.sqrt(BOLTZMANN * temperature / mass)
    vel -= (mass * vel).sum(0) / mass.sum()
    energy, forces = potential(pos)
    records: list[tuple[float, float, float, np.ndarray]] = []
    for step in tqdm(range(steps + 1), desc="Molecular dynamics", unit="step", disable=not progress):
        if step % every == 0 or step == steps:
            records.append((step * timestep / 1000, 0.5 * float((mass * vel**2).sum()), energy, pos.copy()))
        if step == steps:
            break
        vel = vel + 0.5 * dt * forces / mass
        pos = pos + dt * vel
        energy, forces = potential(pos)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise ValueError(
                f"energy or forces are not finite at step {step + 1}: shorten timestep = {timestep} fs, or train the "
                "potential further"
            )
        vel = vel + 0.5 * dt * forces / mass
    times, kinetic, values, positions = zip(*records, strict=True)
    return Trajectory(np.array(times), np.array(kinetic), np.array(values), np.stack(positions))


def energy_drift(trajectory: Trajectory) -> float:
    """Slope of the straight line through the total energy, in meV per atom and ps.

    Raises:
        ValueError: fewer than two records.
    """
    if len(trajectory.times) < 2:
        raise ValueError("a drift needs at least two records: run longer, or record more often")
    slope = np.polyfit(trajectory.times, trajectory.total - trajectory.total[0], 1)[0]
    return float(slope) * 1000 / trajectory.pos.shape[1]
