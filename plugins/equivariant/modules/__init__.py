"""The LightningModules: networks side by side in one run, each trained for the same time."""

from .equal_time import EqualTime
from .nbody import NBodyForecasters
from .potentials import Potentials

__all__ = ["EqualTime", "NBodyForecasters", "Potentials"]
