"""Positions, orientations, the grids that sample them and the invariants of pairs of them."""

from plugins.equivariant.geometry.cutoff import PolynomialCutoff
from plugins.equivariant.geometry.frames import equivariant_frames
from plugins.equivariant.geometry.grids import (
    Grid,
    OrientationGrid,
    antipodal,
    circle,
    design,
    dodecahedral,
    fibonacci,
    icosahedral,
    make_grid,
    moments,
    quadrature_weights,
    repulsion,
)
from plugins.equivariant.geometry.invariants import (
    chirality,
    fiber_attributes,
    grid_attributes,
    pose,
    position,
    position_orientation,
    spatial_attributes,
)
from plugins.equivariant.geometry.norms import safe_norm
from plugins.equivariant.geometry.rotations import random_orthogonal

__all__ = [
    "Grid",
    "OrientationGrid",
    "PolynomialCutoff",
    "antipodal",
    "chirality",
    "circle",
    "design",
    "dodecahedral",
    "equivariant_frames",
    "fiber_attributes",
    "fibonacci",
    "grid_attributes",
    "icosahedral",
    "make_grid",
    "moments",
    "pose",
    "position",
    "position_orientation",
    "quadrature_weights",
    "random_orthogonal",
    "repulsion",
    "safe_norm",
    "spatial_attributes",
]
