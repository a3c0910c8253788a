"""What a generator of motion is to those who train, sample and edit with it."""

from .averaging import Averaged
from .base import Edit, Method, Noise, Update, keep_known

__all__ = ["Averaged", "Edit", "Method", "Noise", "Update", "keep_known"]
