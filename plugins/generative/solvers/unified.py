"""The unified sampling framework: every step of a sampler chosen on its own, as a list of genes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..grids import check_grid
from .base import Denoiser, Evaluator, NoiseSource, Past, Solver, combine
from .dpm_solver_v3 import LinearUpdate, v3_update
from .ems import EMS
from .phi import phi
from .taylor import derivative_weights

PREDICTIONS = ("noise", "data", "v3")
RELAXATIONS = ("none", "linear", "bh1", "bh2", "half_exp", "minus_half_exp")
CORRECTORS = ("none", "pseudo", "implicit")
FIRST_EVALUATIONS = ("model", "zero", "average")
MAX_ORDER = 4


@dataclass(frozen=True)
class StepGenes:
    """How one step is taken. "Nodes" are the levels evaluated so far.

    Args:
        order: Terms of the Taylor expansion in lambda, 1 to 4; 1 is DDIM.
        prediction: What is expanded: "noise" (DPM-Solver, DEIS), "data" (DPM-Solver++), "v3" (DPM-Solver-v3).
        difference: Nodes besides the start that estimate the first derivative; None for order - 1. The higher
            derivatives always use order - 1.
        relaxation: Factor 1 + O(h) on the first derivative, with h -> -h for data except in "linear": "none"; "linear"
            1 + c h; "bh1" h^2/2 / (e^h - 1 - h); "bh2" h (e^h - 1)/2 / (e^h - 1 - h), which makes order 2
            DPM-Solver++ 2M; "half_exp" and "minus_half_exp" 1 +- (e^h - 1)/2. At order 1, where the predictor has no
            derivative, it acts on the corrector's.
        relaxation_coefficient: c of "linear"; 0 otherwise.
        corrector: "none"; "pseudo" re-does the step with the evaluation at its end, one order higher (no extra
            evaluation except after the last step); "implicit" evaluates again at the corrected state.
        start: How many nodes back the step starts: 1 is multistep, p makes the p-th step of a singlestep method.
    """

    order: int = 1
    prediction: str = "data"
    difference: int | None = None
    relaxation: str = "none"
    relaxation_coefficient: float = 0.0
    corrector: str = "none"
    start: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or not 1 <= self.order <= MAX_ORDER:
            raise ValueError(f"order = {self.order!r} must be an integer from 1 to {MAX_ORDER}")
        for name, known in (("prediction", PREDICTIONS), ("relaxation", RELAXATIONS), ("corrector", CORRECTORS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not one of {', '.join(map(repr, known))}")
        if self.difference is not None and (self.order == 1 or self.difference < 1):
            raise ValueError(f"difference = {self.difference} needs order >= 2 and at least one node")
        if self.relaxation_coefficient != 0 and self.relaxation != "linear":
            raise ValueError('relaxation_coefficient needs relaxation = "linear"')
        if self.relaxation != "none" and self.order == 1 and self.corrector == "none":
            raise ValueError("relaxation needs a derivative: order >= 2 or a corrector")
        if self.start < 1:
            raise ValueError(f"start = {self.start} must be at least 1")

    @property
    def nodes(self) -> int:
        """Nodes it needs besides the start."""
        return max(self.order - 1, self.difference or 0)


@dataclass(frozen=True)
class SolverSchedule:
    """A complete sampler: noise levels, genes for each step, and where the first value comes from.

    Args:
        sigmas: (N + 1,) strictly decreasing levels; after a last level 0 the last step must be DDIM.
        steps: N genes; step i may use the i + 1 nodes known then.
        first_evaluation: Analytic first step: "model" evaluates the denoiser; "zero" takes D = 0 and "average" the mean
            of the data, which saves one evaluation.

    Raises:
        ValueError: a step that needs nodes which do not exist yet; the message names it.
    """

    sigmas: tuple[float, ...]
    steps: tuple[StepGenes, ...]
    first_evaluation: str = "model"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", check_grid(self.sigmas))
        object.__setattr__(self, "steps", tuple(self.steps))
        if len(self.steps) != len(self.sigmas) - 1:
            raise ValueError(f"{len(self.sigmas)} levels need {len(self.sigmas) - 1} steps; got {len(self.steps)}")
        if self.first_evaluation not in FIRST_EVALUATIONS:
            raise ValueError(
                f"first_evaluation = {self.first_evaluation!r} is not one of {', '.join(map(repr, FIRST_EVALUATIONS))}"
            )
        for i, genes in enumerate(self.steps):
            if max(genes.nodes + 1, genes.start) > i + 1:
                raise ValueError(
                    f"step {i} needs {max(genes.nodes + 1, genes.start)} nodes and only {i + 1} exist: lower its "
                    "order, difference or start"
                )
        if self.sigmas[-1] == 0 and self.steps[-1] != StepGenes():
            raise ValueError("the last step to sigma = 0 must be StepGenes(), which gives D")

    @property
    def nfe(self) -> int:
        """Denoiser evaluations."""
        return sum(map(len, _stages(self.sigmas, self.steps, self.first_evaluation)))

    @property
    def needs_ems(self) -> bool:
        """Whether a step expands DPM-Solver-v3's quantity."""
        return any(genes.prediction == "v3" for genes in self.steps)

    def solver(self, ems: EMS | None = None, average: Tensor | None = None) -> Unified:
        """The solver that runs these genes; sample it on `sigmas`."""
        return Unified(self.steps, self.first_evaluation, ems, average)

    def sample(
        self, denoiser: Denoiser, y: Tensor, ems: EMS | None = None, average: Tensor | None = None
    ) -> Tensor:
        """Carry y (B, ...) from the first level to the last."""
        return self.solver(ems, average).sample(denoiser, y, self.sigmas)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, fit for YAML and JSON; genes at their default are left out."""
        defaults = StepGenes()
        steps = [
            {key: value for key, value in asdict(genes).items() if value != getattr(defaults, key)}
            for genes in self.steps
        ]
        return {"sigmas": list(self.sigmas), "first_evaluation": self.first_evaluation, "steps": steps}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SolverSchedule:
        """What `to_dict` gave.

        Raises:
            ValueError: keys that are unknown or missing.
        """
        known = {field.name for field in fields(StepGenes)}
        unknown = set(content) - {"sigmas", "steps", "first_evaluation"}
        unknown |= {key for genes in content.get("steps", ()) for key in genes if key not in known}
        if unknown or not {"sigmas", "steps"} <= set(content):
            raise ValueError(
                f"a solver schedule has sigmas, steps and first_evaluation, and steps have {sorted(known)}; "
                f"unknown: {sorted(unknown)}"
            )
        steps = tuple(StepGenes(**genes) for genes in content["steps"])
        return cls(tuple(content["sigmas"]), steps, content.get("first_evaluation", "model"))

    def save(self, path: str | Path) -> Path:
        """Write YAML."""
        import yaml

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False))
        return path

    @classmethod
    def load(cls, path: str | Path) -> SolverSchedule:
        """Read YAML or JSON."""
        import yaml

        return cls.from_dict(yaml.safe_load(Path(path).read_text()))


def uniform_schedule(
    sigmas: Tensor | Sequence[float],
    genes: StepGenes,
    *,
    lower_order_final: bool = False,
    singlestep: bool = False,
) -> SolverSchedule:
    """The classical fixed samplers: the same genes throughout, as far as the nodes known at each step allow.

    Args:
        genes: Of a full step.
        lower_order_final: Order at most the number of steps left.
        singlestep: Restart every `order` steps: orders 1, 2, ..., p within a group, each from the group's first node.
    """
    levels = check_grid(sigmas)
    steps = []
    count = len(levels) - 1
    for i in range(count):
        order = i % genes.order + 1 if singlestep else min(genes.order, i + 1)
        if lower_order_final:
            order = min(order, count - i)
        changes: dict[str, Any] = {"order": order}
        if order == 1 or singlestep:
            changes["difference"] = None
        elif genes.difference is not None:
            changes["difference"] = min(genes.difference, i)
        if order == 1 and genes.corrector == "none":
            changes |= {"relaxation": "none", "relaxation_coefficient": 0.0}
        if singlestep:
            changes["start"] = order
        steps.append(replace(genes, **changes) if levels[i + 1] > 0 else StepGenes())
    return SolverSchedule(levels, tuple(steps))


def _stages(
    levels: tuple[float, ...], steps: Sequence[StepGenes], first_evaluation: str
) -> list[tuple[float, ...]]:
    """Evaluations of each step: at its start (twice after an implicit corrector), and after the last, if corrected."""
    stages = []
    for i in range(len(steps)):
        count = 2 if i > 0 and steps[i - 1].corrector == "implicit" else 1
        if i == 0 and first_evaluation != "model":
            count = 0
        stage = (levels[i],) * count
        if i == len(steps) - 1 and steps[i].corrector != "none":
            stage += (levels[i + 1],)
        stages.append(stage)
    return stages


class _Node:
    """An evaluated level: the state steps start from, and the values taken where the denoiser was called."""

    def __init__(self, y: Tensor, sigma: float, complement: Tensor | None) -> None:
        self.y = self.evaluated = y
        self.sigma = sigma
        self.complement = complement
        self.values: dict[str, Tensor] = {}

    def put(self, denoised: Tensor) -> None:
        self.evaluated = self.y
        self.values = {"data": denoised}

    def get(self, prediction: str) -> Tensor:
        if prediction not in self.values:
            denoised = self.values["data"]
            if prediction == "noise":
                self.values["noise"] = (self.evaluated - denoised) / self.sigma
            else:
                self.values["v3"] = torch.addcmul(-denoised, self.complement.to(denoised), self.evaluated)
        return self.values[prediction]


@dataclass(frozen=True, eq=False)
class _Combination:
    """decay * state at node `start` + sum_j weights[j] * prediction at nodes[j] (+ constant for v3)."""

    start: int
    nodes: tuple[int, ...]
    prediction: str
    decay: float = 1.0
    weights: tuple[float, ...] = ()
    update: LinearUpdate | None = None

    def __call__(self, nodes: Sequence[_Node]) -> Tensor:
        y = nodes[self.start].y
        values = [nodes[j].get(self.prediction) for j in self.nodes]
        if self.update is not None:
            return self.update.to(y)(y, values)
        return combine(y, self.decay, values, self.weights)


@dataclass(frozen=True, eq=False)
class _UnifiedStep:
    sigma: float
    complement: Tensor | None  # 1 - l
    predictor: _Combination
    corrector: _Combination | None  # of the step before, applied first
    again: bool  # evaluate at the corrected state
    final: _Combination | None  # corrector after the last step
    final_complement: Tensor | None


@dataclass(frozen=True)
class Unified(Solver):
    """Runs the genes of a `SolverSchedule`. Liu et al. 2023, "A unified sampling framework", arXiv:2312.07243.

    Time variable lambda = -log sigma. In y = x / alpha and with h the step in lambda from its start node,

        noise:  y' = y - sigma' sum_k h^{k+1} phi_{k+1}(h) eps^(k)
        data:   y' = e^{-h} y + sum_k h^{k+1} phi_{k+1}(-h) D^(k)
        v3:     the step of `plugins.generative.solvers.dpm_solver_v3.v3_update`

    with derivatives in lambda at the start node, estimated from the other nodes: those between start and target first,
    then older ones, nearest first. With order p in every step the sampler converges with order p, but for the first
    steps, which lack nodes; a corrector gives p + 1 with full differences. One evaluation a step, more with implicit
    correctors or a corrected last step.

    Args:
        steps: Genes, one for each step of the grid that `sample` gets.
        first_evaluation: See `SolverSchedule`.
        ems: Model statistics; needed by "v3".
        average: (*shape,) mean of the data; needed by "average".
    """

    steps: tuple[StepGenes, ...]
    first_evaluation: str = "model"
    ems: EMS | None = None
    average: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if self.ems is None and any(genes.prediction == "v3" for genes in self.steps):
            raise ValueError('prediction "v3" needs the model statistics: pass ems=compute_ems(...)')
        if self.average is None and self.first_evaluation == "average":
            raise ValueError('first_evaluation = "average" needs the mean of the data: pass average')

    @property
    def order(self) -> int:
        """Highest order among the steps."""
        return max(genes.order for genes in self.steps)

    def check(self, levels: tuple[float, ...], past: Sequence[Past]) -> None:
        SolverSchedule(levels, self.steps, self.first_evaluation)
        super().check(levels, past)

    def steps_for(self, nfe: int) -> int:
        return len(self.steps)

    def stages(self, levels: tuple[float, ...]) -> list[tuple[float, ...]]:
        return _stages(levels, self.steps, self.first_evaluation)

    def plan(self, levels: tuple[float, ...], past: tuple[float, ...]) -> list[_UnifiedStep]:
        lambdas = [-math.log(level) if level > 0 else math.inf for level in levels]
        complements: list[Tensor | None] = [None] * len(levels)
        if self.ems is not None and any(genes.prediction == "v3" for genes in self.steps):
            complements = [None if math.isinf(value) else 1.0 - self.ems.l_at(value) for value in lambdas]
        correctors = [self._corrector(genes, i, lambdas) for i, genes in enumerate(self.steps)]
        plan = []
        for i, genes in enumerate(self.steps):
            last = i == len(self.steps) - 1
            plan.append(
                _UnifiedStep(
                    levels[i],
                    complements[i],
                    self._predictor(genes, i, lambdas),
                    correctors[i - 1] if i > 0 else None,
                    i > 0 and self.steps[i - 1].corrector == "implicit",
                    correctors[i] if last else None,
                    complements[i + 1],
                )
            )
        return plan

    def _predictor(self, genes: StepGenes, i: int, lambdas: Sequence[float]) -> _Combination:
        if math.isinf(lambdas[i + 1]):
            return _Combination(i, (i,), "data", 0.0, (1.0,))
        start, others = _active_nodes(genes, i)
        rows = _derivative_rows(lambdas, start, others, genes.order, genes.difference or genes.order - 1)
        if genes.order > 1:
            rows[1] *= relaxation_factor(genes, lambdas[i + 1] - lambdas[start])
        return self._combination(genes.prediction, lambdas, start, others, i + 1, rows)

    def _corrector(self, genes: StepGenes, i: int, lambdas: Sequence[float]) -> _Combination | None:
        if genes.corrector == "none":
            return None
        start, others = _active_nodes(genes, i)
        others = (i + 1, *others)
        rows = _derivative_rows(lambdas, start, others, genes.order + 1, 1 + (genes.difference or genes.order - 1))
        if genes.order == 1:
            rows[1] *= relaxation_factor(genes, lambdas[i + 1] - lambdas[start])
        return self._combination(genes.prediction, lambdas, start, others, i + 1, rows)

    def _combination(
        self,
        prediction: str,
        lambdas: Sequence[float],
        start: int,
        others: tuple[int, ...],
        target: int,
        rows: NDArray,
    ) -> _Combination:
        nodes = (start, *others)
        if prediction == "v3":
            update = v3_update(self.ems, lambdas[start], [lambdas[j] for j in others], lambdas[target], rows)
            return _Combination(start, nodes, prediction, update=update)
        h = lambdas[target] - lambdas[start]
        z = h if prediction == "noise" else -h
        terms = np.array([h ** (k + 1) * phi(k + 1, z) for k in range(len(rows))])
        scale = -math.exp(-lambdas[target]) if prediction == "noise" else 1.0
        decay = 1.0 if prediction == "noise" else math.exp(-h)
        return _Combination(start, nodes, prediction, decay, tuple((scale * (terms @ rows)).tolist()))

    def begin(self, y: Tensor, past: Sequence[Past]) -> list[_Node]:
        return []

    def step(
        self, evaluate: Evaluator, y: Tensor, plan: _UnifiedStep, memory: list[_Node], noise: NoiseSource | None
    ) -> Tensor:
        node = _Node(y, plan.sigma, plan.complement)
        memory.append(node)
        stage = 0
        if len(memory) == 1 and self.first_evaluation != "model":
            guess = torch.zeros_like(y) if self.average is None else self.average.to(y).expand_as(y)
            evaluate.denoised = guess if self.first_evaluation == "average" else torch.zeros_like(y)
            node.put(evaluate.denoised)
        else:
            node.put(evaluate(y, stage))
            stage = 1
        if plan.corrector is not None:
            node.y = plan.corrector(memory)
            if plan.again:
                node.put(evaluate(node.y, stage))
                stage += 1
        y = plan.predictor(memory)
        if plan.final is not None:
            last = _Node(y, math.nan, plan.final_complement)
            last.put(evaluate(y, stage))
            last.sigma = evaluate.levels[stage].item()
            y = plan.final([*memory, last])
        return y


def relaxation_factor(genes: StepGenes, h: float) -> float:
    """The factor on the first derivative for a step of length h > 0 in lambda."""
    if genes.relaxation == "none":
        return 1.0
    if genes.relaxation == "linear":
        return 1.0 + genes.relaxation_coefficient * h
    z = -h if genes.prediction == "data" else h
    if genes.relaxation == "bh1":
        return 0.5 / phi(2, z)
    if genes.relaxation == "bh2":
        return 0.5 * phi(1, z) / phi(2, z)
    return 1.0 + (0.5 if genes.relaxation == "half_exp" else -0.5) * math.expm1(z)


def _active_nodes(genes: StepGenes, i: int) -> tuple[int, tuple[int, ...]]:
    """Index of the start node and of the others, in the order they are used."""
    start = i + 1 - genes.start
    order = [*range(start + 1, i + 1), *range(start - 1, -1, -1)]
    return start, tuple(order[: genes.nodes])


def _derivative_rows(
    lambdas: Sequence[float], start: int, others: tuple[int, ...], order: int, difference: int
) -> NDArray[np.float64]:
    """(order, 1 + len(others)): the first derivative from `difference` others, the higher ones from order - 1."""
    rows = np.zeros((order, 1 + len(others)))
    rows[0, 0] = 1.0
    offsets = [lambdas[j] - lambdas[start] for j in others]
    if order > 1:
        rows[1, : difference + 1] = derivative_weights(offsets[:difference])[1]
    if order > 2:
        rows[2:, :order] = derivative_weights(offsets[: order - 1])[2:]
    return rows
