"""Networks from graphs to node-level scalars and vectors, all built and called in the same way."""

from plugins.equivariant.models.egnn import EGNN
from plugins.equivariant.models.ponita import PONITA
from plugins.equivariant.models.steerable import SteerableNet

__all__ = ["EGNN", "PONITA", "SteerableNet"]
