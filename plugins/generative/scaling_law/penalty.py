"""The precision term of the law alone, from pairs of runs that differ in nothing but precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from plugins.generative.scaling_law.fit import TrainingRun

__all__ = ["PenaltyFit", "fit_penalty", "paired_penalties"]


def paired_penalties(runs: Iterable[TrainingRun]) -> tuple[list[TrainingRun], NDArray[np.float64]]:
    """The runs in low precision, and how much more each lost than the full-precision run of its size and data.

    Raises:
        ValueError: a run has no full-precision partner.
    """
    runs = list(runs)
    full = {run[:2]: run.loss for run in runs if run.block_size == 1}
    quantized = [run for run in runs if run.block_size > 1]
    for run in quantized:
        if run[:2] not in full:
            raise ValueError(
                f"no full-precision run (block_size=1) of {run.parameters:g} parameters and {run.tokens:g} tokens"
            )
    return quantized, np.array([run.loss - full[run[:2]] for run in quantized])


@dataclass(frozen=True)
class PenaltyFit:
    """The precision term alone, D^b N^a log2(B) / (γ (E+½)^δ (M+½)^ν), fitted to paired differences.

    The law says b = β and a = -α, with the α and β of the other terms; here both are free, of either sign.

    Attributes:
        parameters_exponent, tokens_exponent: a and b.
        delta, nu: of exponent and mantissa bits.
        predicted: penalty of each run in low precision.
        r_squared: share of the variance of the penalties explained; not positive where the term explains nothing.
    """

    parameters_exponent: float
    tokens_exponent: float
    delta: float
    nu: float
    predicted: NDArray[np.float64]
    r_squared: float


def fit_penalty(runs: Iterable[TrainingRun]) -> PenaltyFit:
    """Fit the last term of the law to loss differences from full precision, by least squares.

    In the differences n/N^α + d/D^β + ε cancels exactly, and with it every misfit of that part, which in a fit of the
    whole loss can be far larger than what low precision costs.
    """
    quantized, penalty = paired_penalties(runs)
    if len(quantized) < 5:
        raise ValueError(f"{len(quantized)} runs in low precision cannot determine 5 constants; give at least 5")
    big_n, big_d, e, m, block, _ = np.array(quantized).T
    regressors = np.stack([np.log(big_n), np.log(big_d), -np.log(e + 0.5), -np.log(m + 0.5)], axis=1)
    regressors -= regressors.mean(0)
    unit = float(np.sqrt(np.mean(penalty**2))) or 1.0

    def shape(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log2(block) * np.exp(regressors @ exponents)

    def predict(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
        x = shape(exponents)
        return x * max(float(x @ penalty / (x @ x)), 0.0)

    starts = ([0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 1.0, 1.0], [-0.3, 0.5, 3.0, 3.0])
    bounds = ([-5.0, -5.0, -12.0, -12.0], [5.0, 5.0, 12.0, 12.0])
    found = min(
        (least_squares(lambda p: (predict(p) - penalty) / unit, start, bounds=bounds) for start in starts),
        key=lambda result: result.cost,
    )
    predicted = predict(found.x)
    spread = np.sum((penalty - penalty.mean()) ** 2)
    r_squared = float(1 - np.sum((penalty - predicted) ** 2) / spread) if spread > 0 else 0.0
    a, b, delta, nu = (float(p) for p in found.x)
    return PenaltyFit(a, b, delta, nu, predicted, r_squared)
