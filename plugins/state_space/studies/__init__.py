"""Experiments without training: the quality of perturbations, and speed."""

from plugins.state_space.studies.quality import PTDQuality
from plugins.state_space.studies.speed import LayerSpeed

__all__ = ["LayerSpeed", "PTDQuality"]
