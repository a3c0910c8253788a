"""Integrals of Lagrange interpolants, the weights of every variable-step multistep method."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .phi import phi


def lagrange_coefficients(nodes: Sequence[float]) -> list[list[float]]:
    """Monomial coefficients (lowest degree first) of the Lagrange basis polynomial of each node.

    Raises:
        ValueError: two equal nodes.
    """
    basis = []
    for j, center in enumerate(nodes):
        coefficients = [1.0]
        for k, other in enumerate(nodes):
            if k == j:
                continue
            if other == center:
                raise ValueError(f"interpolation nodes {j} and {k} coincide at {center:g}")
            scale = 1.0 / (center - other)
            shifted = [0.0, *coefficients]
            coefficients = [
                scale * (up - other * here) for up, here in zip(shifted, [*coefficients, 0.0], strict=True)
            ]
        basis.append(coefficients)
    return basis


def moment_weights(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Weights w with ``sum_j w_j p(node_j) = int k(u) p(u) du`` for polynomials p below the number of nodes.

    Args:
        nodes: distinct interpolation nodes.
        moments: ``int k(u) u^i du`` for i = 0 ... len(nodes) - 1.
    """
    return [math.fsum(c * m for c, m in zip(row, moments, strict=True)) for row in lagrange_coefficients(nodes)]


def uniform_kernel_weights(nodes: Sequence[float], target: float, start: float | None = None) -> list[float]:
    """Variable-step Adams weights ``int_{start}^{target} l_j(s) ds``, newest node first.

    ``start`` is ``nodes[0]`` unless given: Adams-Bashforth.  With the target among the nodes: Adams-Moulton.
    """
    origin = nodes[0] if start is None else start
    delta = target - origin
    scaled = [(node - origin) / delta for node in nodes]
    return [delta * w for w in moment_weights(scaled, [1.0 / (i + 1) for i in range(len(nodes))])]


def exponential_kernel_weights(lambdas: Sequence[float], target: float, sign: float) -> list[float]:
    """``int_{lambdas[0]}^{target} e^{sign (target - u)} l_j(u) du``, newest node first.

    ``sign = -1`` is the data prediction's kernel and +1 the noise prediction's (relative to the target's level).
    The moments are ``int_0^1 e^{sign h (1-u)} u^i du h = i! h phi_{i+1}(sign h)``.
    """
    h = target - lambdas[0]
    scaled = [(lam - lambdas[0]) / h for lam in lambdas]
    moments = [math.factorial(i) * h * phi(i + 1, sign * h) for i in range(len(lambdas))]
    return moment_weights(scaled, moments)
