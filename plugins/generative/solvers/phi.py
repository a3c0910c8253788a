"""The phi functions of exponential integrators, without cancellation."""

from __future__ import annotations

import math


def phi(k: int, z: float) -> float:
    """``phi_0 = e^z``, ``phi_k(z) = (phi_{k-1}(z) - 1/(k-1)!) / z``; ``phi_k(0) = 1/k!``.

    Equally ``phi_k(z) = int_0^1 e^{(1-u) z} u^{k-1} / (k-1)! du``.  The recursion cancels for small ``|z|``, where
    the power series ``sum_j z^j / (j + k)!`` is summed instead; relative accuracy is about 1e-15 for ``|z| < 50``
    and k <= 6.

    Raises:
        ValueError: negative k.
    """
    if k < 0:
        raise ValueError(f"k = {k} must not be negative")
    if k == 0:
        return math.exp(z)
    if k == 1 and z != 0:
        return math.expm1(z) / z
    if abs(z) < k + 1:
        term = 1.0 / math.factorial(k)
        total, j = term, 0
        while abs(term) > 1e-18 * abs(total) and j < 200:
            j += 1
            term *= z / (j + k)
            total += term
        return total
    return (phi(k - 1, z) - 1.0 / math.factorial(k - 1)) / z
