"""Charged particles: the standard forecasting benchmark of equivariant networks, from its physics."""

from .charged_particles import ChargedParticles, Trajectories, coulomb_forces, energy, simulate
from .floors import fitted_time, mean_squared_error

__all__ = [
    "ChargedParticles",
    "Trajectories",
    "coulomb_forces",
    "energy",
    "fitted_time",
    "mean_squared_error",
    "simulate",
]
