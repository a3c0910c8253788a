"""MDM: a transformer that predicts the clean clip, trained and sampled as a diffusion of 1,000 steps."""

from .method import MDM
from .network import MDMNetwork
from .schedule import cosine_betas, respaced

__all__ = ["MDM", "MDMNetwork", "cosine_betas", "respaced"]
