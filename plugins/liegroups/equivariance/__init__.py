"""Measuring equivariance: analytic patterns that move exactly, and the error of any module."""

from plugins.liegroups.equivariance.error import equivariance_error, random_moves
from plugins.liegroups.equivariance.fields import Pattern, random_pattern

__all__ = ["Pattern", "equivariance_error", "random_moves", "random_pattern"]
