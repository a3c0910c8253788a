"""EMDM: few large denoising steps, each a conditional generative adversarial network."""

from .diffusion import DenoisingSteps, geometric_betas, vp_betas
from .discriminator import EncoderDiscriminator, MLPDiscriminator
from .generator import EMDMGenerator
from .losses import adversarial_loss, discriminator_loss, r1_penalty
from .method import EMDM

__all__ = [
    "EMDM",
    "DenoisingSteps",
    "EMDMGenerator",
    "EncoderDiscriminator",
    "MLPDiscriminator",
    "adversarial_loss",
    "discriminator_loss",
    "geometric_betas",
    "r1_penalty",
    "vp_betas",
]
