"""Motion data: BVH archives and folders, HumanML3D's layout, stick figures; all give batches of normalised features."""

from plugins.motion.data.bandai_namco import BandaiNamco
from plugins.motion.data.bvh_folder import BVHFolder
from plugins.motion.data.cache import cache_folder, cached
from plugins.motion.data.captioned import CaptionedMotion
from plugins.motion.data.clips import Clips, MotionSet, collate, tail_split
from plugins.motion.data.export import export_humanml3d
from plugins.motion.data.module import MotionData
from plugins.motion.data.synthetic import StickFigures

__all__ = [
    "BVHFolder",
    "BandaiNamco",
    "CaptionedMotion",
    "Clips",
    "MotionData",
    "MotionSet",
    "StickFigures",
    "cache_folder",
    "cached",
    "collate",
    "export_humanml3d",
    "tail_split",
]
