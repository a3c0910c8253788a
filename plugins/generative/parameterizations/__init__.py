"""What networks predict, the conversions between it, and the adapters that make denoisers of networks."""

from .conversions import PREDICTIONS, convert, from_x0_eps, to_x0_eps
from .denoiser import EDMDenoiser, Network, NetworkDenoiser
from .guidance import ClassifierFreeGuidance, Threshold, cfg

__all__ = [
    "PREDICTIONS",
    "ClassifierFreeGuidance",
    "EDMDenoiser",
    "Network",
    "NetworkDenoiser",
    "Threshold",
    "cfg",
    "convert",
    "from_x0_eps",
    "to_x0_eps",
]
