"""A mean and how well it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t as student


class Interval(NamedTuple):
    """mean ± half_width at 95 %, from `values`, one for each seed."""

    mean: float
    half_width: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.half_width:.2g}" if self.half_width else f"{self.mean:.3g}"


def confidence_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and Student's t interval: with few repeats 1.96 σ/√n would claim too much. One value has no width (0).

    Raises:
        ValueError: no values.
    """
    values = tuple(float(v) for v in values)
    n = len(values)
    if not n:
        raise ValueError("a confidence interval needs at least one value")
    mean = sum(values) / n
    if n == 1:
        return Interval(mean, 0.0, values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return Interval(mean, float(student.ppf(0.5 + level / 2, n - 1)) * deviation / math.sqrt(n), values)
