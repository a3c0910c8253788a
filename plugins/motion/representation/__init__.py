"""Motion representations: positions ↔ features relative to the heading, and their normalisation."""

from plugins.motion.representation.canonical import canonicalize, facing_rotations, gaussian_smooth
from plugins.motion.representation.features import Essential, HumanML3D
from plugins.motion.representation.normalization import Normalizer

__all__ = [
    "Essential",
    "HumanML3D",
    "Normalizer",
    "canonicalize",
    "facing_rotations",
    "gaussian_smooth",
]
