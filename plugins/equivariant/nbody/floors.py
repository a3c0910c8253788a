"""Forecasts without a network, which a trained one has to beat."""

from __future__ import annotations

from torch import Tensor


def mean_squared_error(prediction: Tensor, target: Tensor) -> float:
    """Mean over all coordinates of the squared error, summed in float64."""
    return float((prediction.double() - target.double()).square().mean())


def fitted_time(pos: Tensor, vel: Tensor, target: Tensor) -> float:
    """The time t for which the straight line pos + t vel is closest to the target in the mean square.

    Args:
        pos, vel, target: tensors of one shape.

    Raises:
        ValueError: all velocities vanish, so that every time fits alike.
    """
    vel, displacement = vel.double(), (target - pos).double()
    denominator = float(vel.square().sum())
    if denominator == 0:
        raise ValueError("vel is zero everywhere: no time can be fitted")
    return float((vel * displacement).sum()) / denominator
