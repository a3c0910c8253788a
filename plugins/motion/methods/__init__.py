"""What a generator of motion is to those who train, sample and edit with it."""

from .averaging import Averaged
from .base import Method, Noise, Update, gaussian_noise, guard_known
from .rates import warm_cosine

__all__ = ["Averaged", "Method", "Noise", "Update", "gaussian_noise", "guard_known", "warm_cosine"]
