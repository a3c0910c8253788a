"""Derivatives estimated from values at scattered nodes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def derivative_weights(offsets: ArrayLike, *, pseudo: bool = False) -> NDArray[np.float64]:
    """Weights W of the derivatives at a point from values at that point and at n others.

    Args:
        offsets: (n,) distances of the other nodes from the point; distinct and non-zero.
        pseudo: False solves the Taylor system sum_i offset_j^i a_i = g_j - g_0 (i, j = 1..n) and returns i! a_i, the
            derivatives of the interpolating polynomial. True uses i! times the i-th divided difference over the
            first i others, the pseudo-order rule of DPM-Solver-v3 (Zheng et al. 2023, appendix B): less accurate,
            less sensitive to noise.

    Returns:
        (n + 1, n + 1): row i estimates the i-th derivative as sum_j W[i, j] g_j, where g_0 is the value at the point
        (row 0 is g_0 itself).

    Raises:
        ValueError: two nodes coincide.
    """
    nodes = np.concatenate([[0.0], np.asarray(offsets, dtype=np.float64).reshape(-1)])
    n = len(nodes) - 1
    gaps = np.abs(nodes[:, None] - nodes[None, :]) + np.eye(n + 1)
    if (gaps == 0).any():
        raise ValueError(f"two nodes of a derivative estimate coincide: offsets {nodes[1:].tolist()}")
    weights = np.zeros((n + 1, n + 1))
    weights[0, 0] = 1.0
    if n == 0:
        return weights
    factorials = np.array([math.factorial(i) for i in range(1, n + 1)], dtype=np.float64)
    if pseudo:
        table = np.eye(n + 1)
        for i in range(1, n + 1):
            table = (table[1:] - table[:-1]) / (nodes[i:] - nodes[:-i])[:, None]
            weights[i] = factorials[i - 1] * table[0]
        return weights
    scale = np.abs(nodes).max()
    powers = np.arange(1, n + 1)
    inverse = np.linalg.inv((nodes[1:, None] / scale) ** powers)
    weights[1:, 1:] = (factorials / scale**powers)[:, None] * inverse
    weights[1:, 0] = -weights[1:, 1:].sum(axis=1)
    return weights
