"""Metrics of generated motion, as plain functions of features or positions."""

from plugins.generative.metrics import frechet_distance
from plugins.motion.metrics.intervals import Interval, confidence_interval
from plugins.motion.metrics.physical import PhysicalChecks, heading, net_yaw, root_speed, wrist_lead
from plugins.motion.metrics.quality import acceleration_rms, bone_drift, foot_skating
from plugins.motion.metrics.retrieval import accuracy, distinct_pools, matching_distance, r_precision
from plugins.motion.metrics.variety import diversity, multimodality

__all__ = [
    "Interval",
    "PhysicalChecks",
    "acceleration_rms",
    "accuracy",
    "bone_drift",
    "confidence_interval",
    "distinct_pools",
    "diversity",
    "foot_skating",
    "frechet_distance",
    "heading",
    "matching_distance",
    "multimodality",
    "net_yaw",
    "r_precision",
    "root_speed",
    "wrist_lead",
]
