"""The LightningModules: networks side by side in one run, each trained for the same time."""

from .equal_time import EqualTime
from .generation import MoleculeDiffusion
from .nbody import NBodyForecasters
from .potentials import Potentials
from .properties import PropertyRegressors

__all__ = ["EqualTime", "MoleculeDiffusion", "NBodyForecasters", "Potentials", "PropertyRegressors"]
