"""Exact conversions between what networks predict, at ``x = alpha x0 + sigma eps``.

=========  ==================================  =======================================================
name       the network's answer                x0 and eps from it
=========  ==================================  =======================================================
epsilon    eps                                 x0 = (x - sigma eps) / alpha
x0         x0                                  eps = (x - alpha x0) / sigma
v          alpha eps - sigma x0                x0 = (alpha x - sigma v) / n, eps = (sigma x + alpha v) / n
flow       u = eps - x0                        x0 = (x - sigma u) / m, eps = (x + alpha u) / m
score      -eps / sigma                        x0 = (x + sigma^2 score) / alpha, eps = -sigma score
=========  ==================================  =======================================================

with ``n = alpha^2 + sigma^2`` (1 for variance-preserving schedules) and ``m = alpha + sigma`` (1 for flow); u is the
velocity of the straight line, noise at t = 1.

v and flow determine both x0 and eps at either end.  The others lose one of them where its factor vanishes: eps at
sigma = 0 and x0 at alpha = 0 are then their prior means, which is what the posterior mean of a quantity that x says
nothing about is: 0 for eps, ``prior_mean`` (0 unless given) for x0.
"""

from __future__ import annotations

import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "x0", "v", "flow", "score")


def _check(name: str) -> None:
    if name not in PREDICTIONS:
        raise ValueError(f"prediction {name!r} is not one of {', '.join(PREDICTIONS)}")


def _divide(numerator: Tensor, denominator: Tensor, otherwise: float | Tensor) -> Tensor:
    vanished = denominator == 0
    quotient = numerator / torch.where(vanished, torch.ones_like(denominator), denominator)
    return torch.where(vanished, torch.as_tensor(otherwise, dtype=quotient.dtype, device=quotient.device), quotient)


def to_x0_eps(
    value: Tensor, prediction: str, x: Tensor, alpha: Tensor, sigma: Tensor, prior_mean: float | Tensor = 0.0
) -> tuple[Tensor, Tensor]:
    """``(x0, eps)`` from a network's answer, all broadcast against x; finite for alpha, sigma in [0, inf).

    Args:
        value: the answer, of x's shape.
        prediction: one of :data:`PREDICTIONS`.
        alpha, sigma: not both 0; scalars, or of a shape that broadcasts against x.
        prior_mean: E[x0], used where alpha = 0 and the answer says nothing about x0.
    """
    _check(prediction)
    alpha, sigma = (torch.as_tensor(a, dtype=x.dtype, device=x.device) for a in (alpha, sigma))
    if prediction == "v":
        norm = alpha.square() + sigma.square()
        return (alpha * x - sigma * value) / norm, (sigma * x + alpha * value) / norm
    if prediction == "flow":
        total = alpha + sigma
        return (x - sigma * value) / total, (x + alpha * value) / total
    if prediction == "x0":
        return value, _divide(x - alpha * value, sigma, 0.0)
    eps = value if prediction == "epsilon" else -sigma * value
    return _divide(x - sigma * eps, alpha, prior_mean), eps


def from_x0_eps(x0: Tensor, eps: Tensor, prediction: str, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The value a network of this kind would answer; the score at sigma = 0 is infinite and refused.

    Raises:
        ValueError: ``prediction="score"`` with a sigma of 0.
    """
    _check(prediction)
    alpha, sigma = (torch.as_tensor(a, dtype=x0.dtype, device=x0.device) for a in (alpha, sigma))
    if prediction == "x0":
        return x0
    if prediction == "epsilon":
        return eps
    if prediction == "v":
        return alpha * eps - sigma * x0
    if prediction == "flow":
        return eps - x0
    if bool((sigma == 0).any()):
        raise ValueError("the score -eps / sigma is infinite at sigma = 0; stop the grid at sigma_min > 0")
    return -eps / sigma


def convert(
    value: Tensor,
    source: str,
    target: str,
    x: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    prior_mean: float | Tensor = 0.0,
) -> Tensor:
    """A prediction of kind ``source`` as one of kind ``target``, at the same noisy x."""
    _check(target)
    x0, eps = to_x0_eps(value, source, x, alpha, sigma, prior_mean)
    return from_x0_eps(x0, eps, target, alpha, sigma)
