"""AdjointDPM: gradients through sampling, at a memory that does not grow with the number of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..grids import check_grid
from .base import Denoiser, Evaluator, combine, noise_prediction
from .tableaux import TABLEAUX, Tableau

GRADIENTS = ("adjoint", "checkpoint", "backprop")
METHODS: dict[str, tuple[int, Tableau]] = TABLEAUX | {"midpoint": (2, ((), (1 / 2,), (0.0, 1.0)))}


def adjoint_sample(
    denoiser: Denoiser,
    y: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    method: str = "rk4",
    gradient: str = "adjoint",
    parameters: Iterable[Tensor] | None = None,
) -> Tensor:
    """Sample by a Runge-Kutta method of dy/dsigma = eps, differentiable in y and in what the denoiser depends on.

    Pan et al. 2023, "AdjointDPM", arXiv:2307.10711; in y = x / alpha its reparameterised ODE is this one. Order and
    evaluations are those of the tableau; stages are evaluated at their true sigma. A last step to sigma = 0 gives D.

    Args:
        denoiser: E[x0 | y] for y (B, ...) and a 0-d float64 sigma; may depend on weights, embeddings, a guidance scale.
        y: (B, ...) state at the first level.
        sigmas: (N + 1,) strictly decreasing levels.
        method: "euler" (DDIM), "midpoint", "heun2", "kutta3", "rk4" or another of `METHODS`.
        gradient: How the backward pass works.
            "adjoint" solves the adjoint ODE da/dsigma = -a^T deps/dy from the last level back to the first, together
            with y itself. One evaluation is held at a time: memory does not depend on N. The gradient is that of the
            ODE, not of the discrete steps, and differs from "backprop" by the error of the method: use rk4 and a fine
            enough grid (with "euler" and 40 steps it can be off by a tenth).
            "checkpoint" keeps the state of every step and repeats the step in the backward pass: exact gradients of
            the discrete sampler, N states of memory and one step's graph.
            "backprop" keeps everything.
        parameters: With "adjoint", the tensors besides y that receive gradients. None finds every leaf that the
            denoiser's first answer depends on; name a tensor that is itself computed (an embedding) to have the
            gradient stop there. The other two modes reach everything and take no list.

    Returns:
        (B, ...) state at the last level.

    Raises:
        ValueError: unknown method or mode, a bad grid, parameters that require no gradient or come with another mode,
            or a denoiser answer that is not finite or misshapen (the message names step and sigma).
    """
    if method not in METHODS:
        raise ValueError(f"method = {method!r} is not one of {', '.join(METHODS)}")
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient = {gradient!r} is not one of {', '.join(GRADIENTS)}")
    if parameters is not None and gradient != "adjoint":
        raise ValueError(f'parameters restricts "adjoint" only; gradient = {gradient!r} reaches every tensor')
    levels = check_grid(sigmas)
    ends_in_zero = levels[-1] == 0
    path = levels[:-1] if ends_in_zero else levels
    _, tableau = METHODS[method]
    steps = [
        _Step(i, tableau, start, end, y.device) for i, (start, end) in enumerate(zip(path, path[1:], strict=False))
    ]
    evaluate = Evaluator(denoiser)

    if gradient == "adjoint" and steps and torch.is_grad_enabled():
        if parameters is None:
            found = _leaves(denoiser, y, steps[0])
        else:
            found = list(parameters)
            idle = [index for index, tensor in enumerate(found) if not tensor.requires_grad]
            if idle:
                raise ValueError(f"parameters {idle} do not require gradients: call requires_grad_() on them first")
        y = _Adjoint.apply(evaluate, steps, y, *found)
    else:
        for step in steps:
            if gradient == "checkpoint" and torch.is_grad_enabled():
                y = checkpoint(step, evaluate, y, use_reentrant=False)
            else:
                y = step(evaluate, y)
    if ends_in_zero:
        evaluate.step = len(steps)
        evaluate.levels = (torch.tensor(levels[-2], dtype=torch.float64, device=y.device),)
        y = evaluate(y)
    evaluate.finish()
    return y


class _Step:
    """One explicit Runge-Kutta step between two levels, in either direction."""

    def __init__(self, index: int, tableau: Tableau, start: float, end: float, device: torch.device) -> None:
        self.index, self.tableau = index, tableau
        self.start, self.end, self.delta = start, end, end - start
        self.sigmas = [start + sum(row) * self.delta for row in tableau[:-1]]
        self.levels = torch.tensor(self.sigmas, dtype=torch.float64).to(device).unbind()

    def reversed(self) -> _Step:
        return _Step(self.index, self.tableau, self.end, self.start, self.levels[0].device)

    def stages(self) -> Iterable[tuple[int, list[float]]]:
        """Index of each stage and the increments of the earlier slopes that lead to it."""
        return ((i, [self.delta * a for a in row]) for i, row in enumerate(self.tableau[:-1]))

    @property
    def weights(self) -> list[float]:
        return [self.delta * b for b in self.tableau[-1]]

    def __call__(self, evaluate: Evaluator, y: Tensor) -> Tensor:
        evaluate.step, evaluate.levels = self.index, self.levels
        slopes: list[Tensor] = []
        for i, row in self.stages():
            state = combine(y, 1.0, slopes, row)
            slopes.append(noise_prediction(state, evaluate(state, i), self.sigmas[i]))
        return combine(y, 1.0, slopes, self.weights)

    def adjoint(
        self, evaluate: Evaluator, y: Tensor, a: Tensor, parameters: Sequence[Tensor], totals: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Carry y and a = dL/dy backwards over the step; adds the parameters' share of the gradient to `totals`.

        da/dsigma = -(a - a^T dD/dy) / sigma, and dL/dtheta grows by +a^T dD/dtheta / sigma.
        """
        evaluate.step, evaluate.levels = self.index, self.levels
        slopes: list[Tensor] = []
        adjoint_slopes: list[Tensor] = []
        for (i, row), weight in zip(self.stages(), self.weights, strict=True):
            state, costate = combine(y, 1.0, slopes, row), combine(a, 1.0, adjoint_slopes, row)
            with torch.enable_grad():
                state = state.detach().requires_grad_()
                denoised = evaluate(state, i)
                # what the denoiser was built from outside (an embedding's own graph) serves every stage
                pulled, *shares = torch.autograd.grad(
                    denoised, (state, *parameters), costate, retain_graph=True, allow_unused=True
                )
            sigma = self.sigmas[i]
            slopes.append(noise_prediction(state.detach(), denoised.detach(), sigma))
            adjoint_slopes.append((costate if pulled is None else costate - pulled) * (-1.0 / sigma))
            for index, share in enumerate(shares):
                if share is not None and weight != 0:
                    share = share * (weight / sigma)
                    totals[index] = share if totals[index] is None else totals[index] + share
        return combine(y, 1.0, slopes, self.weights), combine(a, 1.0, adjoint_slopes, self.weights)


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, evaluate: Evaluator, steps: list[_Step], y: Tensor, *parameters: Tensor) -> Tensor:
        for step in steps:
            y = step(evaluate, y)
        ctx.denoiser, ctx.steps, ctx.parameters = evaluate.denoiser, steps, parameters
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, a: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * len(ctx.parameters)
        evaluate = Evaluator(ctx.denoiser)
        for step in reversed(ctx.steps):
            y, a = step.reversed().adjoint(evaluate, y, a, ctx.parameters, totals)
        evaluate.finish()
        return None, None, a, *totals


def _leaves(denoiser: Denoiser, y: Tensor, step: _Step) -> list[Tensor]:
    """Leaf tensors with gradients that the denoiser's answer depends on, found by walking its graph once."""
    with torch.enable_grad():
        answer = denoiser(y.detach(), step.levels[0])
    pending, seen, leaves = [answer.grad_fn], set(), []
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        pending.extend(parent for parent, _ in node.next_functions)
    return leaves
