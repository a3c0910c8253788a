"""Data with a closed-form denoiser, and the exact trajectories that samplers are judged by."""

from .gaussian_mixture import GaussianMixture, digits_mixture, toy_mixture
from .reference import cached_reference, reference_trajectory

__all__ = ["GaussianMixture", "cached_reference", "digits_mixture", "reference_trajectory", "toy_mixture"]
