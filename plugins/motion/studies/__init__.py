"""Trained generators put to use: sentences to motion, and motion with a part made anew."""

from plugins.motion.studies.edit import EditMotion
from plugins.motion.studies.generate import GenerateMotion

__all__ = ["EditMotion", "GenerateMotion"]
