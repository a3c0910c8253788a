"""Losses on motion: masked means and the geometric terms of MDM."""

from .geometric import GeometricLoss, masked_mean

__all__ = ["GeometricLoss", "masked_mean"]
