"""Fitting the law to runs: four exponents by nonlinear least squares, the four coefficients in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from plugins.generative.scaling_law.law import ScalingLaw

__all__ = ["FitResult", "TrainingRun", "fit"]


class TrainingRun(NamedTuple):
    """One trained model: N, D, the format (E, M, B) and the loss it reached. Full precision is ``block_size=1``."""

    parameters: float
    tokens: float
    exponent_bits: float
    mantissa_bits: float
    block_size: float
    loss: float


@dataclass(frozen=True)
class FitResult:
    """A fitted law with what it leaves unexplained.

    Attributes:
        law: the fitted constants.
        predicted: loss of each run under the law.
        residuals: measured minus predicted.
        r_squared: share of the variance of the losses explained.
        relative_rms: root mean square of residual / loss.
        relative_rms_without_precision: the same for the best fit that lacks the precision term (Chinchilla's law).
        standard_errors: of each constant by name, from the Jacobian at the optimum (infinite where the runs do not
            determine it).
    """

    law: ScalingLaw
    predicted: NDArray[np.float64]
    residuals: NDArray[np.float64]
    r_squared: float
    relative_rms: float
    relative_rms_without_precision: float
    standard_errors: dict[str, float]


# Bounds of the searched exponents alpha, beta, delta, nu, as logarithms.
_LOWER, _UPPER = np.log([0.01, 0.01, 0.01, 0.01]), np.log([3.0, 3.0, 12.0, 12.0])


def _columns(exponents: NDArray[np.float64], data: NDArray[np.float64]) -> NDArray[np.float64]:
    """Regressors of (n, d, ε, 1/γ) for each run, N and D in units of their geometric means."""
    alpha, beta, delta, nu = exponents
    log_n, log_d, e, m, b = data
    x, y = np.exp(-alpha * log_n), np.exp(-beta * log_d)
    penalty = x / y * np.log2(b) * (e + 0.5) ** -delta * (m + 0.5) ** -nu
    return np.stack([x, y, np.ones_like(x), penalty], axis=1)


def _search(
    data: NDArray[np.float64], losses: NDArray[np.float64], starts: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Exponents, coefficients and half the sum of squared relative residuals of the best of several searches."""

    def coefficients(log_exponents: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        columns = _columns(np.exp(log_exponents), data) / losses[:, None]
        norms = np.linalg.norm(columns, axis=0)
        norms[norms == 0] = 1.0  # no run in low precision: the last column is empty
        solution, _ = nnls(columns / norms, np.ones_like(losses))
        return solution / norms, columns

    def residual(log_exponents: NDArray[np.float64]) -> NDArray[np.float64]:
        solution, columns = coefficients(log_exponents)
        return columns @ solution - 1

    inner = (_LOWER + 0.35 * (_UPPER - _LOWER), _LOWER + 0.95 * (_UPPER - _LOWER))
    first = np.log([0.3, 0.5, 3.0, 3.0])
    best = None
    for start in [first, *generator.uniform(*inner, size=(starts - 1, 4))]:
        found = least_squares(
            residual, start, bounds=(_LOWER, _UPPER), xtol=1e-13, ftol=1e-13, gtol=1e-13, max_nfev=100
        )
        if best is None or found.cost < best.cost:
            best = found
    return np.exp(best.x), coefficients(best.x)[0], float(best.cost)


def _checked(runs: Iterable[TrainingRun]) -> NDArray[np.float64]:
    """The runs as a table (runs, 6), when they can determine the constants."""
    table = np.asarray([tuple(run) for run in runs], dtype=np.float64).reshape(-1, 6)
    if len(table) < 8:
        raise ValueError(f"{len(table)} runs cannot determine 8 constants; give at least 8")
    if not np.all(np.isfinite(table)):
        raise ValueError(f"run {int(np.argmin(np.isfinite(table).all(1)))} holds NaN or infinity; leave it out")
    for column, name, least in ((0, "parameters", 0), (1, "tokens", 0), (5, "loss", 0)):
        if not np.all(table[:, column] > least):
            raise ValueError(f"run {int(np.argmin(table[:, column]))}: {name} must be positive")
    if np.any(table[:, 2:4] < 0) or np.any(table[:, 4] < 1):
        raise ValueError("bits must not be negative, and block_size at least 1")
    quantized = table[table[:, 4] > 1]
    for column, name, rows in (
        (0, "parameters", table),
        (1, "tokens", table),
        (2, "exponent_bits", quantized),
        (3, "mantissa_bits", quantized),
    ):
        if len(np.unique(rows[:, column])) < 2:
            raise ValueError(f"all runs share one value of {name}: its exponent cannot be determined; vary it")
    return table


def fit(runs: Iterable[TrainingRun], starts: int = 8, seed: int = 0) -> FitResult:
    """Least squares of relative residuals, Σ ((L_i - law_i) / L_i)², over all eight constants.

    For given exponents (α, β, δ, ν) the law is linear in (n, d, ε, 1/γ), so those come from non-negative least squares
    and only the exponents are searched (variable projection), from ``starts`` starting points.

    Args:
        runs: at least 8, with at least two different N, D, E and M each, some of them in low precision.
        starts: starting points, the first fixed and the others drawn within wide bounds under ``seed``.

    Returns:
        The law with its residuals; where low precision costs nothing measurable, γ is infinite.

    Raises:
        ValueError: if the runs cannot determine the constants, or hold values outside the law's domain.
    """
    if starts < 1:
        raise ValueError(f"starts={starts}: it must be at least 1")
    table = _checked(runs)
    centre_n, centre_d = np.log(table[:, 0]).mean(), np.log(table[:, 1]).mean()
    data = np.stack([np.log(table[:, 0]) - centre_n, np.log(table[:, 1]) - centre_d, *table[:, 2:5].T])
    losses = table[:, 5]

    generator = np.random.default_rng(seed)
    exponents, (n, d, epsilon, inverse_gamma), _ = _search(data, losses, starts, generator)
    plain_data = np.concatenate([data[:4], np.ones((1, len(losses)))])
    _, _, plain_cost = _search(plain_data, losses, min(starts, 3), generator)
    alpha, beta, delta, nu = exponents
    law = ScalingLaw(
        n=float(n * np.exp(alpha * centre_n)),
        alpha=float(alpha),
        d=float(d * np.exp(beta * centre_d)),
        beta=float(beta),
        epsilon=float(epsilon),
        gamma=float(np.exp(beta * centre_d - alpha * centre_n) / inverse_gamma) if inverse_gamma > 0 else np.inf,
        delta=float(delta),
        nu=float(nu),
    )
    predicted = law.loss(*table[:, :5].T)
    residuals = losses - predicted
    return FitResult(
        law=law,
        predicted=predicted,
        residuals=residuals,
        r_squared=float(1 - residuals @ residuals / np.sum((losses - losses.mean()) ** 2)),
        relative_rms=float(np.sqrt(np.mean((residuals / losses) ** 2))),
        relative_rms_without_precision=float(np.sqrt(2 * plain_cost / len(losses))),
        standard_errors=_standard_errors(law, table),
    )


def _standard_errors(law: ScalingLaw, table: NDArray[np.float64]) -> dict[str, float]:
    """Of each constant, from the Gauss-Newton covariance of the relative residuals."""
    big_n, big_d, e, m, b, losses = table.T
    size = law.n / big_n**law.alpha
    data = law.d / big_d**law.beta
    penalty = law.precision_penalty(big_n, big_d, e, m, b)
    log_n, log_d = np.log(big_n), np.log(big_d)
    columns = {
        "n": size / law.n if law.n else big_n**-law.alpha,
        "alpha": -(size + penalty) * log_n,
        "d": data / law.d if law.d else big_d**-law.beta,
        "beta": (penalty - data) * log_d,
        "epsilon": np.ones_like(losses),
        "gamma": -penalty / law.gamma,
        "delta": -penalty * np.log(e + 0.5),
        "nu": -penalty * np.log(m + 0.5),
    }
    jacobian = np.stack(list(columns.values()), axis=1) / losses[:, None]
    scale = np.linalg.norm(jacobian, axis=0)
    freedom = max(len(table) - len(columns), 1)
    variance = np.sum(((losses - law.loss(*table[:, :5].T)) / losses) ** 2) / freedom
    _, singular, vectors = np.linalg.svd(jacobian / np.where(scale > 0, scale, 1), full_matrices=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(singular > 1e-10 * singular[0], singular, 0.0) ** -2.0
        spread = np.where(vectors.T == 0, 0.0, vectors.T**2 * weights).sum(1)
        errors = np.sqrt(variance * spread) / scale
    return dict(zip(columns, errors.tolist(), strict=True))
