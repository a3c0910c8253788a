"""How far a network is from commuting with a transformation of its input."""

from .error import equivariance_error, random_cloud, transformed

__all__ = ["equivariance_error", "random_cloud", "transformed"]
