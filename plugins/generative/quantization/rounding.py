"""Gradient-based rounding learning: each weight goes up or down so that the layer's output changes least."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from plugins.generative.quantization.quantizer import Quantizer

__all__ = ["Moments", "RoundedWeight", "flip_descent", "learn_rounding", "output_error"]

# Rectified sigmoid h(V) = clip(1.2·sigmoid(V) - 0.1, 0, 1): it reaches 0 and 1 at finite V (Louizos et al. 2018).
_STRETCH, _OFFSET = 1.2, -0.1


class Moments(NamedTuple):
    """Second moments of a layer's inputs x (as the full-precision network sees them) and x̂ (as quantized): (K, K).

    ``xx`` = E[x xᵀ], ``xq`` = E[x x̂ᵀ], ``qq`` = E[x̂ x̂ᵀ]. They are all that the output error of a linear map needs, so
    the objective and its gradient are exact over the whole calibration set at the cost of one small product.
    """

    xx: Tensor
    xq: Tensor
    qq: Tensor

    @classmethod
    def of(cls, x: Tensor, quantized: Tensor | None = None) -> Moments:
        """Moments of rows x (n, K) and their quantized values (x itself where absent), in float64."""
        x = x.double()
        q = x if quantized is None else quantized.double()
        return cls(x.T @ x / len(x), x.T @ q / len(x), q.T @ q / len(x))


class RoundedWeight(NamedTuple):
    """The rounded weight (O, K) with the output error of rounding to nearest and of the learned rounding."""

    weight: Tensor
    nearest_error: float
    learned_error: float


def output_error(weight: Tensor, quantized: Tensor, moments: Moments) -> Tensor:
    """E|w·x - ŵ·x̂|² of each output: weights (O, K) -> (O,), float64."""
    w, d = weight.double(), quantized.double() - weight.double()
    xx, xq, qq = (m.double() for m in moments)
    drift = ((w @ (xx - xq - xq.T + qq)) * w).sum(1)
    return ((d @ qq) * d).sum(1) + 2 * ((w @ (qq - xq)) * d).sum(1) + drift


def flip_descent(lower: Tensor, upper: Tensor, start: Tensor, weight: Tensor, moments: Moments) -> Tensor:
    """Flip, in every row, the one element whose flip lowers the output error most, until no single flip lowers it.

    Args:
        lower, upper: the two values each element may take, (O, K).
        start: the choice to begin from, elementwise one of the two.
        weight: the full-precision weight.

    At most 2K flips a row, each costing O(K).
    """
    w, qq = weight.double(), moments.qq.double()
    linear = w @ (qq - moments.xq.double())
    lower, upper, current = lower.double(), upper.double(), start.double().clone()
    tolerance = 1e-12 * output_error(weight, start, moments).abs()
    rows = torch.arange(len(w), device=w.device)
    gradient = (current - w) @ qq + linear
    for _ in range(2 * w.shape[1]):
        change = torch.where(current == lower, upper, lower) - current
        gain, column = (2 * change * gradient + change.square() * qq.diagonal()).min(dim=1)
        change = torch.where(gain < -tolerance, change[rows, column], 0.0)
        if not bool(change.any()):
            break
        current[rows, column] += change
        # The sum may leave the grid by a rounding; the choice itself is one of the two values.
        nearer_upper = (current - upper).abs() < (current - lower).abs()
        current = torch.where(nearer_upper, upper, lower)
        gradient = gradient + change[:, None] * qq[column]
    return current.to(start.dtype)


def learn_rounding(
    weight: Tensor,
    quantizer: Quantizer,
    moments: Moments,
    steps: int = 1000,
    learning_rate: float = 0.03,
    kappa: float = 30.0,
    beta: tuple[float, float] = (20.0, 2.0),
    warmup: float = 0.2,
    polish: bool = True,
) -> RoundedWeight:
    """Round a weight matrix up or down, element by element, for the least output error E‖W x - Ŵ x̂‖².

    Ŵ = s·clip(floor(W/s) + h(V)) with s the spacing of the grid at each element (for a floating-point format it differs
    from binade to binade) and h the rectified sigmoid. V starts where h is the fraction of W/s and follows Adam on

        error(V) / error(nearest) + kappa · mean(1 - |2h - 1|^beta),

    the second term pushing h to 0 or 1: absent during the ``warmup`` fraction of the steps, then with ``beta`` annealed
    linearly from its first value to its second. h is thresholded at 1/2 in the end (Nagel et al., arXiv:2004.10568; for
    floating-point diffusion models Chen et al., arXiv:2408.06995). Every output row keeps whichever of the learned and
    the nearest rounding has the smaller error, so no row gets worse. The relaxation ends in a local optimum; ``polish``
    then flips single weights while that lowers the error (:func:`flip_descent`).

    Args:
        weight: (O, K).
        quantizer: per tensor, or per output row (``channel_axis=0``).
        moments: of the inputs, (K, K).
        steps: of Adam, full batch; at least 1.
        kappa: weight of the rounding term; large enough that h ends at 0 or 1 (10 to 100 differ little).
    """
    if weight.ndim != 2 or any(m.shape != (weight.shape[1],) * 2 for m in moments):
        shapes = [tuple(m.shape) for m in moments]
        raise ValueError(f"weight {tuple(weight.shape)} and moments {shapes} do not fit: need (O, K) and three (K, K)")
    if steps < 1 or not 0 <= warmup < 1:
        raise ValueError(f"steps={steps}, warmup={warmup}: need steps >= 1 and 0 <= warmup < 1")
    with torch.inference_mode(False), torch.enable_grad():
        # Clones: tensors made in inference mode cannot take part in a gradient.
        own = Moments(*(m.detach().clone() for m in moments))
        return _learn(weight.detach().clone(), quantizer, own, steps, learning_rate, kappa, beta, warmup, polish)


def _learn(
    weight: Tensor,
    quantizer: Quantizer,
    moments: Moments,
    steps: int,
    learning_rate: float,
    kappa: float,
    beta: tuple[float, float],
    warmup: float,
    polish: bool,
) -> RoundedWeight:
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    w = weight.to(dtype)
    nearest = quantizer(w)
    nearest_error = output_error(w, nearest, moments)
    total = nearest_error.sum()
    if not bool(torch.isfinite(total)):
        raise ValueError("the weight or the moments hold NaN or infinity")
    if total <= 0:
        return RoundedWeight(nearest.to(weight.dtype), 0.0, 0.0)

    step = quantizer.step(w)
    lower = torch.floor(w / step)
    fraction = (w / step - lower).clamp(0.01, 0.99)
    low, high = quantizer.limits(w)
    v = torch.logit((fraction - _OFFSET) / _STRETCH).requires_grad_()
    relative = float(total)
    qq = (moments.qq.double() / relative).to(dtype)
    linear = (2 * (w.double() @ (moments.qq.double() - moments.xq.double())) / relative).to(dtype)

    optimizer = torch.optim.Adam([v], lr=learning_rate)
    start = int(warmup * steps)
    for i in range(steps):
        h = (_STRETCH * torch.sigmoid(v) + _OFFSET).clamp(0, 1)
        d = torch.minimum(torch.maximum(step * (lower + h), low), high) - w
        loss = ((d @ qq) * d).sum() + (linear * d).sum()
        if i >= start:
            power = beta[0] + (beta[1] - beta[0]) * (i - start) / max(steps - 1 - start, 1)
            loss = loss + kappa * (1 - (2 * h - 1).abs().pow(power)).mean()
        (v.grad,) = torch.autograd.grad(loss, v)
        optimizer.step()
    # Through the quantizer once more: it puts s·integer exactly on the grid.
    down, up = (quantizer((step * (lower + i)).clamp(low, high)) for i in (0, 1))
    learned = torch.where(v.detach() > 0, up, down)
    worse = output_error(w, learned, moments) >= nearest_error
    learned = torch.where(worse[:, None], nearest, learned)
    if polish:
        learned = flip_descent(down, up, learned, w, moments)
    error = output_error(w, learned, moments).sum()
    return RoundedWeight(learned.to(weight.dtype), float(total), float(error))
