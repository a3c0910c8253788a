"""The adversarial losses of a denoising step, for any networks (Xiao et al. 2022, arXiv:2112.07804, eq. 4 and 5)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """``E softplus(-D(real)) + E softplus(D(fake))`` from logits of any shape."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def adversarial_loss(fake: Tensor) -> Tensor:
    """The generator's ``E softplus(-D(fake))``."""
    return F.softplus(-fake).mean()


def r1_penalty(logits: Tensor, inputs: Tensor, gamma: float) -> Tensor:
    """``gamma / 2 E ||grad_inputs D||^2`` at real inputs (Mescheder et al. 2018), differentiable in D's weights.

    Args:
        logits: D at ``inputs``, which must require gradients.
        inputs: (B, ...); the squared norm is over all but the first dimension.
        gamma: weight.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return 0.5 * gamma * gradient.flatten(1).square().sum(1).mean()
