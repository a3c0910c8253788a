"""Invariant integration: weighted samples, random and structured samplers, volumes, and the plan of a network."""

from plugins.liegroups.haar.integrate import Estimate, integrate
from plugins.liegroups.haar.plan import SamplePlan
from plugins.liegroups.haar.samplers import (
    CoordinateBox,
    CoordinateNormal,
    HaarBallSL2,
    HaarUniformSO,
    LogNormalSPD,
    PolarBall,
    ProductSampler,
    Sampler,
    haar_rotations,
    stratified_angles,
)
from plugins.liegroups.haar.samples import Samples, samples_of
from plugins.liegroups.haar.structured import CoordinateGrid, FiniteGroupRule, StarGrid
from plugins.liegroups.haar.volumes import (
    polar_ball_volume,
    rotation_group_volume,
    sl2_ball_volume,
    sl2_fraction_without_log,
    spd_constant,
)

__all__ = [
    "CoordinateBox",
    "CoordinateGrid",
    "CoordinateNormal",
    "Estimate",
    "FiniteGroupRule",
    "HaarBallSL2",
    "HaarUniformSO",
    "LogNormalSPD",
    "PolarBall",
    "ProductSampler",
    "SamplePlan",
    "Sampler",
    "Samples",
    "StarGrid",
    "haar_rotations",
    "integrate",
    "polar_ball_volume",
    "rotation_group_volume",
    "samples_of",
    "sl2_ball_volume",
    "sl2_fraction_without_log",
    "spd_constant",
    "stratified_angles",
]
