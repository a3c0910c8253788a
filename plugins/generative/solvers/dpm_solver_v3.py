"""DPM-Solver-v3: the exponential integrator around empirical model statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .base import Denoiser, Evaluator, NoiseSource, Past, Solver, StepInfo
from .ems import EMS, problem_statistics
from .registry import Problem, register, register_order
from .taylor import derivative_weights

# Three-point Gauss-Legendre rule on [0, 1], and the matrix that integrates its interpolant up to each node.
_NODES = np.array([0.5 - math.sqrt(15) / 10, 0.5, 0.5 + math.sqrt(15) / 10])
_WEIGHTS = np.array([5 / 18, 8 / 18, 5 / 18])
_PARTIAL = (_NODES[:, None] ** np.arange(1, 4) / np.arange(1, 4)) @ np.linalg.inv(_NODES[:, None] ** np.arange(3))


class LinearUpdate(NamedTuple):
    """y_end = decay * y_start + sum_j weights[j] * f_j + constant, each (*shape,)."""

    decay: Tensor
    weights: tuple[Tensor, ...]
    constant: Tensor

    def to(self, like: Tensor) -> LinearUpdate:
        """The same update in the dtype and on the device of `like`."""
        return LinearUpdate(self.decay.to(like), tuple(w.to(like) for w in self.weights), self.constant.to(like))

    def __call__(self, y_start: Tensor, values: Sequence[Tensor]) -> Tensor:
        """The state at the end from y_start (B, *shape) and the f of each node, in the order of `weights`."""
        result = torch.addcmul(self.constant, self.decay, y_start)
        for weight, value in zip(self.weights, values, strict=False):
            result.addcmul_(weight, value)
        return result


class _Integrals(NamedTuple):
    """Over [start, end], relative to start: L and S at the end, int e^{-S} b, int e^{L+S} (tau-start)^k / k! for k
    below 5, and int e^{L+S} int e^{-S} b."""

    growth_l: Tensor
    growth_s: Tensor
    drift: Tensor
    moments: list[Tensor]
    drift_moment: Tensor


@lru_cache(maxsize=64)  # neighbouring steps, predictors and correctors share intervals
@torch.inference_mode(False)  # plans outlive the caller's mode
@torch.no_grad()
def _integrals(ems: EMS, start: float, end: float) -> _Integrals:
    """Gauss-Legendre between the nodes: exact to rounding for the piecewise linear statistics."""
    tau, l_nodes, s_nodes, b_nodes = ems.between(start, end)
    dims = [1] * (l_nodes.ndim - 1)
    nodes, weights = (tau.new_tensor(value).reshape(1, 3, *dims) for value in (_NODES, _WEIGHTS))
    partial = tau.new_tensor(_PARTIAL)
    width = tau.diff().reshape(-1, 1, *dims)

    def accumulate(pieces: Tensor) -> Tensor:
        """Integral from start to each node, the first 0; pieces (m - 1, *shape)."""
        return torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])

    def grown(values: Tensor) -> tuple[Tensor, Tensor]:
        """Integral of a piecewise linear function at the quadrature points, and over everything."""
        low, rise = values[:-1, None], (values[1:] - values[:-1])[:, None]
        total = accumulate((width * (low + 0.5 * rise))[:, 0])
        return total[:-1, None] + width * nodes * (low + 0.5 * nodes * rise), total[-1]

    l_inside, growth_l = grown(l_nodes)
    s_inside, growth_s = grown(s_nodes)
    b_inside = b_nodes[:-1, None] + nodes * (b_nodes[1:] - b_nodes[:-1])[:, None]
    slope = torch.exp(-s_inside) * b_inside
    drift_total = accumulate((width * weights * slope).sum(1))
    drift = drift_total[:-1, None] + width * torch.einsum("qr,mr...->mq...", partial, slope)
    kernel = torch.exp(l_inside + s_inside) * width * weights
    offset = (tau[:-1] - start).reshape(-1, 1, *dims) + width * nodes
    moments = [(kernel * offset**k).sum((0, 1)) / math.factorial(k) for k in range(5)]
    return _Integrals(growth_l, growth_s, drift_total[-1], moments, (kernel * drift).sum((0, 1)))


def v3_update(ems: EMS, start: float, others: Sequence[float], end: float, derivatives: NDArray) -> LinearUpdate:
    """The step from lambda `start` to `end` that integrates dy/dlambda = -l y - f around the statistics.

    With L, S the integrals of l, s from `start`, and g(tau) = e^{-S(tau)} f(tau) - int_start^tau e^{-S} b (flat where
    f' = s f + b), the step is exact for g polynomial:

        y_end = e^{-L} [y_start - sum_k g^(k) int e^{L+S} (tau - start)^k / k! - int e^{L+S} int e^{-S} b].

    All integrals are taken relative to `start`, so that nothing under- or overflows over long ranges. Source: Zheng et
    al. 2023, eqs. 10-13 (its code integrates by trapezoids on the statistics' grid).

    Args:
        start, end: Lambdas of the step.
        others: Lambdas of the further nodes that estimate derivatives; may lie before `start` or beyond it.
        derivatives: (order, 1 + len(others)), order at most 5: rows of `derivative_weights`, columns `start` first.

    Returns:
        Weights for f at `start` and at each of `others`, in that order.
    """
    if len(derivatives) > 5:
        raise ValueError(f"a step can use at most 4 derivatives; got {len(derivatives) - 1}")
    step = _integrals(ems, start, end)
    decay = torch.exp(-step.growth_l)
    constant = -decay * step.drift_moment
    weights = []
    for j, node in enumerate((start, *others)):
        weight = -decay * sum(float(row[j]) * moment for row, moment in zip(derivatives, step.moments, strict=False))
        if node > start:
            between = step if node == end else _integrals(ems, start, node)
            constant = constant - weight * between.drift
            weight = weight * torch.exp(-between.growth_s)
        elif node < start:
            between = _integrals(ems, node, start)
            weight = weight * torch.exp(between.growth_s)
            constant = constant + weight * between.drift
        weights.append(weight)
    return LinearUpdate(decay, tuple(weights), constant)


@dataclass(eq=False)
class V3Step:
    """Coefficients of one step: the corrector of its starting state, then the predictor; None where there is none."""

    l: Tensor  # noqa: E741
    corrector: LinearUpdate | None
    predictor: LinearUpdate | None
    _converted: dict = field(default_factory=dict, repr=False)

    def to(self, like: Tensor) -> tuple[Tensor, LinearUpdate | None, LinearUpdate | None]:
        """(1 - l, corrector, predictor) in the dtype and on the device of `like`, converted once."""
        key = (like.dtype, like.device)
        if key not in self._converted:
            updates = [update and update.to(like) for update in (self.corrector, self.predictor)]
            self._converted[key] = ((1.0 - self.l).to(like), *updates)
        return self._converted[key]


@dataclass(frozen=True)
class DPMSolverV3(Solver):
    """Multistep predictor-corrector around model statistics. Zheng et al. 2023, arXiv:2310.13268.

    Time variable lambda = -log sigma_tilde. Order 1 to 3 in the step, one evaluation a step: the corrector reuses the
    evaluation that the next step needs, and is not applied to the final state. With l = 1, s = b = 0 it is the exact
    integrator of DPM-Solver++, with l = 0, s = -1, b = 0 that of DPM-Solver. One step is exact on Gaussian data. The
    statistics are piecewise linear between their nodes: order 3 shows on steps longer than their spacing.

    Args:
        ems: Statistics of the denoiser over the whole range of the grid (`compute_ems`).
        order: Order of the predictor, 1 to 3. Authors: 3 for unconditional models, 2 for guided ones.
        corrector: Re-do each step with the evaluation at its end, at the predictor's order.
        predictor_pseudo: Estimate the predictor's derivatives by divided differences (authors: at 5 evaluations);
            order at most 2.
        corrector_pseudo: Likewise for the corrector, with one node more; order at most 2.
        lower_order_final: Order at most the number of steps left.
        corrector_below: The corrector acts only on states with sigma at most this. The authors' "half" for strongly
            guided models is `schedule.sigma_tilde(0.5)`.
        snap: Move the grid to the nodes of the statistics, as the authors do; else statistics are interpolated.
        start: "ramp" raises the order over the first steps; "exact" takes the caller's history.

    A last step to sigma = 0 gives D.
    """

    ems: EMS
    order: int = 3  # type: ignore[assignment]
    corrector: bool = True
    predictor_pseudo: bool = False
    corrector_pseudo: bool = False
    lower_order_final: bool = False
    corrector_below: float = math.inf
    snap: bool = False
    start: str = "ramp"  # type: ignore[misc]

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"order = {self.order!r} must be 1, 2 or 3")
        if not self.corrector and (self.corrector_pseudo or not math.isinf(self.corrector_below)):
            raise ValueError("corrector_pseudo and corrector_below need corrector = True")
        if self.start not in ("ramp", "exact"):
            raise ValueError(f"start = {self.start!r} is neither 'ramp' nor 'exact'")

    @property
    def min_steps(self) -> int:
        return self.order if self.start == "ramp" else 1

    @property
    def history_length(self) -> int:
        return self.order - 1

    def sample(
        self,
        denoiser: Denoiser,
        y: Tensor,
        sigmas: Tensor | Sequence[float],
        *,
        noise: NoiseSource | None = None,
        generator: torch.Generator | None = None,
        callback: Callable[[StepInfo], None] | None = None,
        history: Sequence[Past] | None = None,
    ) -> Tensor:
        if self.snap:
            levels = torch.as_tensor(sigmas, dtype=torch.float64)
            snapped = self.ems.snap(levels[levels > 0]).cpu()
            sigmas = torch.cat([snapped, levels[levels <= 0].cpu()])
        return super().sample(
            denoiser, y, sigmas, noise=noise, generator=generator, callback=callback, history=history
        )

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[V3Step]:
        lambdas = [-math.log(level) for level in (*past, *levels) if level > 0]
        first, steps = len(past), len(levels) - 1
        plan: list[V3Step] = []
        previous = 0
        for i in range(steps):
            here = first + i
            corrector = None
            order = previous + self.corrector_pseudo
            if self.corrector and i > 0 and order > 1 and levels[i] <= self.corrector_below:
                others = [lambdas[here], *(lambdas[here - 1 - k] for k in range(1, order - 1))]
                corrector = self._update(lambdas[here - 1], others, lambdas[here], self.corrector_pseudo)
            predictor = None
            if levels[i + 1] > 0:
                previous = min(self.order, here + 1, steps - i if self.lower_order_final else self.order)
                others = [lambdas[here - k] for k in range(1, previous)]
                predictor = self._update(lambdas[here], others, lambdas[here + 1], self.predictor_pseudo)
            plan.append(V3Step(self.ems.l_at(lambdas[here]), corrector, predictor))
        return plan

    def _update(self, start: float, others: list[float], end: float, pseudo: bool) -> LinearUpdate:
        weights = derivative_weights([node - start for node in others], pseudo=pseudo)
        return v3_update(self.ems, start, others, end, weights)

    def begin(self, y: Tensor, past: Sequence[Past]) -> list:
        """[f of earlier points, newest first; the state the last step started from]."""
        given = y.shape[1:]
        aligned = zip(reversed(self.ems.shape), reversed(given), strict=False)
        if len(self.ems.shape) > len(given) or any(own not in (1, size) for own, size in aligned):
            raise ValueError(
                f"the statistics are of samples of shape {self.ems.shape}, the state's are {tuple(given)}"
            )
        values = [
            (1.0 - self.ems.l_at(-math.log(point.sigma))).to(y) * point.y - point.denoised for point in past
        ]
        return [values[::-1], None]

    def step(self, evaluate: Evaluator, y: Tensor, plan: V3Step, memory: list, noise: NoiseSource | None) -> Tensor:
        denoised = evaluate(y)
        if plan.predictor is None:
            return denoised
        complement, corrector, predictor = plan.to(y)
        values, last = memory
        values.insert(0, torch.addcmul(-denoised, complement, y))
        if corrector is not None:
            # f keeps the value of the predicted state: no evaluation at the corrected one
            y = corrector(last, [values[1], values[0], *values[2:]])
        memory[1] = y
        del values[self.order + 1 :]
        return predictor(y, values)


@register("dpm_solver_v3")
def _order3(problem: Problem) -> Solver:
    return DPMSolverV3(problem_statistics(problem))


@register("dpm_solver_v3_2")
def _order2(problem: Problem) -> Solver:
    return DPMSolverV3(problem_statistics(problem), order=2)


@register("dpm_solver_v3_pseudo")
def _pseudo(problem: Problem) -> Solver:
    return DPMSolverV3(problem_statistics(problem), predictor_pseudo=True)


@register("dpm_solver_v3_final")
def _final(problem: Problem) -> Solver:
    return DPMSolverV3(problem_statistics(problem), lower_order_final=True)


def _proven(order: int, **options: bool) -> Callable[[Problem], Solver]:
    def build(problem: Problem) -> Solver:
        # an exact history lies above the range
        wide = replace(problem, sigma_max=1.5 * problem.sigma_max)
        # coarser statistics would show their own second order on the finer grids
        return DPMSolverV3(problem_statistics(wide, 1921, 1024), order, start="exact", **options)

    return build


for _order in (1, 2, 3):
    register_order(f"dpm_solver_v3_{_order}", _order, "log_snr", _order - 1)(_proven(_order))
    register_order(f"dpm_solver_v3_{_order}_predictor", _order, "log_snr", _order - 1)(
        _proven(_order, corrector=False)
    )
register_order("dpm_solver_v3_3_pseudo", 2, "log_snr", 2)(_proven(3, predictor_pseudo=True, corrector=False))
