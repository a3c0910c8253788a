"""Interatomic potentials: energies and the conservative forces that are their gradients, and dynamics with them."""

from .dynamics import Trajectory, energy_drift, nve
from .metrics import net_torque, rotational_spread
from .potential import Potential

__all__ = ["Potential", "Trajectory", "energy_drift", "net_torque", "nve", "rotational_spread"]
