"""Grids of noise levels for N steps.

Every function answers a one-dimensional float64 tensor of N + 1 strictly decreasing values of
``sigma_tilde = sigma / alpha``.  Two end conventions exist, and the caller chooses:

* ``end="sigma_min"``: the last value is ``sigma_min`` and the sample keeps that much noise.  A multistep solver
  spends N evaluations, an s-stage Runge-Kutta method s N.
* ``end="zero"``: N values down to ``sigma_min``, then 0.  The last step lands on the denoiser's answer, ``y = D``;
  it costs one evaluation whatever the solver, so N for a multistep one and s (N - 1) + 1 for a Runge-Kutta method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..schedules import NoiseSchedule

ENDS = ("sigma_min", "zero")


def check_grid(sigmas: Tensor | Sequence[float]) -> tuple[float, ...]:
    """The grid as Python floats, after checking it.

    Raises:
        ValueError: fewer than two levels, a level that is not finite or negative, or two neighbours that do not
            strictly decrease (a repeated level would waste an evaluation, or divide by zero); the message names
            the index and the values.
    """
    tensor = torch.as_tensor(sigmas, dtype=torch.float64)
    if tensor.ndim != 1 or len(tensor) < 2:
        raise ValueError(
            f"a grid is a one-dimensional list of at least two noise levels, got shape {tuple(tensor.shape)}"
        )
    levels = tuple(tensor.tolist())
    for i, level in enumerate(levels):
        if not math.isfinite(level) or level < 0:
            raise ValueError(f"sigmas[{i}] = {level:g} is not a finite noise level >= 0")
        if i and not level < levels[i - 1]:
            problem = "repeats" if level == levels[i - 1] else "exceeds"
            raise ValueError(
                f"sigmas[{i}] = {level:g} {problem} sigmas[{i - 1}] = {levels[i - 1]:g}: "
                "noise levels must strictly decrease; drop the point or use fewer steps"
            )
    return levels


def append_zero(sigmas: Tensor) -> Tensor:
    """The grid with a final 0: the last step then lands on the denoiser's answer."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def explicit(sigmas: Tensor | Sequence[float]) -> Tensor:
    """A grid given value by value, checked."""
    return torch.tensor(check_grid(sigmas), dtype=torch.float64)


def _fractions(steps: int, end: str, ahead: int) -> tuple[Tensor, bool]:
    """Positions in [0, 1] of the positive levels (negative ones for ``ahead`` levels before the first)."""
    if end not in ENDS:
        raise ValueError(f"end = {end!r} is not one of {', '.join(map(repr, ENDS))}")
    zero = end == "zero"
    if steps < (2 if zero else 1):
        raise ValueError(f"steps = {steps} is too few: need at least {2 if zero else 1} with end = {end!r}")
    intervals = steps - 1 if zero else steps
    return torch.arange(-ahead, intervals + 1, dtype=torch.float64) / intervals, zero


def _finish(levels: Tensor, first: float, last: float, ahead: int, zero: bool) -> Tensor:
    # Pin the ends, which round-trips through powers or logarithms leave an ulp off.
    levels[ahead], levels[-1] = first, last
    return explicit(append_zero(levels) if zero else levels)


def _check_range(sigma_max: float, sigma_min: float) -> None:
    if not (math.isfinite(sigma_max) and sigma_max > sigma_min > 0):
        raise ValueError(f"need sigma_max > sigma_min > 0 (finite), got {sigma_max:g} and {sigma_min:g}")


def karras(
    steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002, rho: float = 7.0, end: str = "sigma_min",
    ahead: int = 0,
) -> Tensor:
    """Equally spaced in ``sigma^(1/rho)`` (Karras et al. 2022, eq. 5; for any rho DEIS's power grid).

    ``rho = 1`` is uniform in sigma and ``rho -> infinity`` uniform in log-SNR.  ``ahead`` continues the same rule
    for that many levels above ``sigma_max``, where the exact history of a multistep method is taken.
    """
    _check_range(sigma_max, sigma_min)
    if not rho > 0:
        raise ValueError(f"rho = {rho:g} must be positive")
    u, zero = _fractions(steps, end, ahead)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _finish((high + u * (low - high)) ** rho, sigma_max, sigma_min, ahead, zero)


def log_snr(
    steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002, end: str = "sigma_min", ahead: int = 0
) -> Tensor:
    """Equally spaced in ``lambda = -log sigma_tilde`` (DPM-Solver; DEIS's "log"; diffusers' "exponential")."""
    _check_range(sigma_max, sigma_min)
    u, zero = _fractions(steps, end, ahead)
    levels = sigma_max * torch.exp(u * math.log(sigma_min / sigma_max))
    return _finish(levels, sigma_max, sigma_min, ahead, zero)


def angular(
    steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002, data_std: float = 1.0, rho: float = 1.5,
    end: str = "sigma_min",
) -> Tensor:
    """Equally spaced in ``theta^(1/rho)``, ``theta = atan(sigma / data_std)`` the trigonometric interpolant's time.

    ``rho = 1`` is uniform in the angle (nearly the cosine schedule's time), more is finer towards the data.  It
    spends its points where the posterior decides, at sigma near the scale of the data, and few at either end.
    """
    _check_range(sigma_max, sigma_min)
    if not (rho > 0 and data_std > 0):
        raise ValueError(f"rho = {rho:g} and data_std = {data_std:g} must be positive")
    u, zero = _fractions(steps, end, 0)
    high, low = (math.atan2(sigma, data_std) ** (1 / rho) for sigma in (sigma_max, sigma_min))
    levels = data_std * torch.tan((high + u * (low - high)) ** rho)
    return _finish(levels, sigma_max, sigma_min, 0, zero)


def _time_power(
    schedule: NoiseSchedule, steps: int, power: float, t_max: float | None, t_min: float | None, end: str
) -> Tensor:
    first = schedule.t_max if t_max is None else t_max
    last = schedule.t_min if t_min is None else t_min
    if not first > last:
        raise ValueError(f"need t_max > t_min, got {first:g} and {last:g}")
    u, zero = _fractions(steps, end, 0)
    times = (first ** (1 / power) + u * (last ** (1 / power) - first ** (1 / power))) ** power
    times[0], times[-1] = first, last
    levels = schedule.sigma_tilde(times)
    return explicit(append_zero(levels) if zero else levels)


def time_uniform(
    schedule: NoiseSchedule, steps: int, t_max: float | None = None, t_min: float | None = None, end: str = "sigma_min"
) -> Tensor:
    """Equally spaced in the schedule's time, from ``t_max`` to ``t_min`` (the schedule's own by default)."""
    return _time_power(schedule, steps, 1.0, t_max, t_min, end)


def time_quadratic(
    schedule: NoiseSchedule, steps: int, t_max: float | None = None, t_min: float | None = None, end: str = "sigma_min"
) -> Tensor:
    """Equally spaced in the square root of time (DEIS's "t" with order 2): finer towards the data."""
    return _time_power(schedule, steps, 2.0, t_max, t_min, end)
