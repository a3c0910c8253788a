"""Noise schedules: how much signal and noise a point of time holds, and back from noise level to time."""

from .base import NoiseSchedule
from .flow import Flow
from .variance_exploding import EDM, VE
from .variance_preserving import VPCosine, VPDiscrete, VPLinear

__all__ = ["EDM", "VE", "Flow", "NoiseSchedule", "VPCosine", "VPDiscrete", "VPLinear"]
