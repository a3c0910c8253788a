"""Empirical model statistics: the per-dimension linear coefficients DPM-Solver-v3 integrates around.

Written in the common frame y = x / alpha with lambda = -log sigma_tilde. With N = sigma_tilde * eps = y - D(y), the
probability-flow ODE reads dy/dlambda = -N = -l y - f, where f = N - l y for any coefficient l(lambda). The statistics
are expectations, element by element, over y at noise level lambda:

- l = E[diag dN/dy], which minimises E |dN/dy - diag(l)|_F^2;
- s, b = the least-squares fit f' ~ s f + b of the total derivative f' along the ODE.

They do not depend on the noise schedule. Source: Zheng et al. 2023, "DPM-Solver-v3", section 3.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from .base import Denoiser
from .registry import Problem

DataSampler = Callable[[int, torch.Generator | None], Tensor]


@dataclass(frozen=True, eq=False)
class EMS:
    """Statistics l, s, b on a grid of lambdas.

    Attributes:
        lambdas: (n,) float64, strictly increasing: noise first.
        l, s, b: (n, *shape) float64 with `shape` that of one sample, or one that broadcasts against it.
    """

    lambdas: Tensor
    l: Tensor  # noqa: E741  (the paper's name)
    s: Tensor
    b: Tensor

    def __post_init__(self) -> None:
        if self.lambdas.ndim != 1 or len(self.lambdas) < 2 or not bool((self.lambdas.diff() > 0).all()):
            raise ValueError("lambdas must be a strictly increasing 1-D tensor of at least two values")
        for name in ("l", "s", "b"):
            value = getattr(self, name)
            if value.shape != self.l.shape or value.shape[:1] != self.lambdas.shape:
                raise ValueError(
                    f"{name} must be ({len(self.lambdas)}, *shape) like l; got {tuple(value.shape)} and l "
                    f"{tuple(self.l.shape)}"
                )
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} holds values that are not finite; the denoiser gave NaN or infinity")
        for name in ("lambdas", "l", "s", "b"):
            object.__setattr__(self, name, getattr(self, name).to(torch.float64))

    @classmethod
    def constant(
        cls, lambdas: Tensor, l: float, s: float, b: float = 0.0, shape: tuple[int, ...] = ()  # noqa: E741
    ) -> EMS:
        """The same coefficients everywhere: (1, 0, 0) is data prediction, (0, -1, 0) is noise prediction."""
        full = [torch.full((len(lambdas), *shape), value, dtype=torch.float64) for value in (l, s, b)]
        return cls(lambdas.double(), *full)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.l.shape[1:])

    def to(self, device: torch.device | str) -> EMS:
        """The same statistics on another device."""
        return EMS(*(value.to(device) for value in (self.lambdas, self.l, self.s, self.b)))

    def fingerprint(self) -> str:
        """A short hash of the numbers, the same wherever they are."""
        digest = hashlib.sha256()
        for value in (self.lambdas, self.l, self.s, self.b):
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: str | Path) -> Path:
        """Write a .pt file that `torch.load(weights_only=True)` reads."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        torch.save({name: getattr(self, name).cpu() for name in ("lambdas", "l", "s", "b")}, partial)
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> EMS:
        """Read what `save` wrote.

        Raises:
            ValueError: the file does not hold model statistics.
        """
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or set(content) != {"lambdas", "l", "s", "b"}:
            raise ValueError(f"{path} does not hold model statistics (lambdas, l, s, b)")
        return cls(**content)

    def snap(self, sigmas: Tensor) -> Tensor:
        """The levels of the statistics' own grid nearest in lambda to `sigmas`; the reference implementation's rule.

        Raises:
            ValueError: two levels fall on the same node, so that a step would have no length.
        """
        lambdas = -sigmas.double().log()
        self._inside(lambdas.min(), lambdas.max())
        own = self.lambdas.to(lambdas.device)
        index = (lambdas[:, None] - own).abs().argmin(dim=1)
        repeated = (index.diff() <= 0).nonzero().flatten().tolist()
        if repeated:
            step = repeated[0]
            raise ValueError(
                f"levels {step} and {step + 1} ({sigmas[step]:.6g}, {sigmas[step + 1]:.6g}) snap to the same node: "
                f"compute the statistics on a grid finer than {len(self.lambdas)} points, or use fewer steps"
            )
        return torch.exp(-own[index])

    def between(self, start: float, end: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Nodes that split [start, end] in lambda at every grid point and nowhere wider than 0.1, with the statistics.

        Returns:
            tau (m,) from start to end, and l, s, b (m, *shape) there, linear between grid points.
        """
        self._inside(start, end)
        inside = self.lambdas[(self.lambdas > start) & (self.lambdas < end)].tolist()
        ends = [start, *inside, end]
        tau: list[float] = [start]
        for low, high in zip(ends, ends[1:], strict=False):
            pieces = max(1, math.ceil((high - low) / 0.1))
            tau.extend(low + (high - low) * piece / pieces for piece in range(1, pieces))
            tau.append(high)
        at = self.lambdas.new_tensor(tau)
        return at, *(self._interpolate(value, at) for value in (self.l, self.s, self.b))

    def l_at(self, lambda_: float) -> Tensor:
        """l at one lambda, (*shape,), linearly interpolated."""
        self._inside(lambda_, lambda_)
        return self._interpolate(self.l, self.lambdas.new_tensor([lambda_]))[0]

    def _interpolate(self, value: Tensor, at: Tensor) -> Tensor:
        right = torch.searchsorted(self.lambdas, at).clamp(1, len(self.lambdas) - 1)
        low, high = self.lambdas[right - 1], self.lambdas[right]
        weight = ((at - low) / (high - low)).reshape(-1, *[1] * (value.ndim - 1)).clamp(0.0, 1.0)
        return value[right - 1] + weight * (value[right] - value[right - 1])

    def _inside(self, low: float | Tensor, high: float | Tensor) -> None:
        slack = 1e-9 * float(self.lambdas[-1] - self.lambdas[0])
        if float(low) < float(self.lambdas[0]) - slack or float(high) > float(self.lambdas[-1]) + slack:
            raise ValueError(
                f"lambda in [{float(low):.6g}, {float(high):.6g}] leaves the statistics' range "
                f"[{float(self.lambdas[0]):.6g}, {float(self.lambdas[-1]):.6g}] (sigma "
                f"{float(torch.exp(-self.lambdas[0])):.6g} to {float(torch.exp(-self.lambdas[-1])):.6g}): "
                "compute the statistics over the whole sampling range"
            )


def compute_ems(
    denoiser: Denoiser,
    data: DataSampler,
    lambdas: Tensor,
    n_samples: int = 1024,
    generator: torch.Generator | None = None,
    *,
    probes: int = 1,
    ridge: float = 0.02,
    batch_size: int = 512,
    jvp: Literal["forward", "double_backward"] = "forward",
    progress: bool = False,
) -> EMS:
    """Estimate the model statistics of a denoiser.

    diag dN/dy is estimated by Hutchinson's method, E[v * (J v)] with v = +-1, exact where the Jacobian is diagonal. The
    total derivative of f along the ODE costs one more Jacobian-vector product with tangent (dy/dlambda,
    dsigma/dlambda). Data, noise and probes are drawn once and shared by all lambdas: l is then smooth in lambda, and
    its derivative can be taken by differences (second order in the grid).

    Cost: `(probes + 1) * n_samples * len(lambdas)` Jacobian-vector products.

    Args:
        denoiser: D(y, sigma) = E[x0 | y], y of shape (B, *shape), sigma a 0-d tensor; must be differentiable in both.
        data: `data(n, generator)` draws clean samples (n, *shape); their dtype and device are used throughout.
        lambdas: (n,) strictly increasing, lambda = -log sigma_tilde. The paper uses 120 to 1200 points.
        n_samples: Samples for each lambda; the paper uses 1024 to 4096.
        generator: Source of noise and probes, passed to `data` too.
        probes: Hutchinson probes for each sample.
        ridge: Dimensions whose f varies less than this fraction of the root mean square over all dimensions are taken
            for constant (s -> 0): the fit s = cov / (var + ridge^2 mean var) is shrunk, since a dimension that hardly
            ever varies gives a slope without meaning, and e^{S} would carry it. 0 is the plain least-squares fit.
        batch_size: Samples for each call of the denoiser.
        jvp: "forward" (torch.func.jvp) or, for a network with an operation without forward derivative,
            "double_backward".
        progress: Show a bar over the lambdas.

    Raises:
        ValueError: bad arguments, or a denoiser that returns values that are not finite.
    """
    if n_samples < 2 or probes < 1 or batch_size < 1 or ridge < 0:
        raise ValueError(
            "n_samples >= 2, probes >= 1, batch_size >= 1 and ridge >= 0 are needed; got "
            f"{n_samples}, {probes}, {batch_size}, {ridge}"
        )
    if lambdas.ndim != 1 or len(lambdas) < 3 or not bool((lambdas.diff() > 0).all()):
        raise ValueError("lambdas must be a strictly increasing 1-D tensor of at least three values")
    if jvp not in ("forward", "double_backward"):
        raise ValueError(f"jvp must be 'forward' or 'double_backward'; got {jvp!r}")
    derivative = _forward_jvp if jvp == "forward" else _double_backward_jvp
    # a sampler may be called from inference mode, whose tensors autograd refuses
    with torch.inference_mode(False), torch.no_grad():
        lambdas = lambdas.detach().clone().double()
        x0 = data(n_samples, generator).clone()
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        signs = torch.randint(0, 2, (probes, *x0.shape), generator=generator, device=x0.device).to(x0.dtype) * 2 - 1
        chunks = range(0, n_samples, batch_size)
        levels = [torch.exp(-value).to(x0.device) for value in lambdas]

        def states(level: Tensor, first: int) -> Tensor:
            rows = slice(first, first + batch_size)
            return x0[rows] + level.to(x0.dtype) * noise[rows]

        diagonal = torch.zeros(len(lambdas), *x0.shape[1:], dtype=torch.float64, device=x0.device)
        for index, level in enumerate(tqdm(levels, "model statistics: l", disable=not progress)):
            for first in chunks:
                y = states(level, first)
                for probe in signs[:, first : first + batch_size]:
                    _, product = derivative(lambda y, level=level: denoiser(y, level), (y,), (probe,))
                    diagonal[index] += (probe * product).double().sum(0)
        l_values = 1.0 - diagonal / (n_samples * probes)
        _require_finite(l_values, levels)
        (slopes,) = torch.gradient(l_values, spacing=(lambdas.to(x0.device),), dim=0, edge_order=2)

        s_values, b_values = torch.empty_like(l_values), torch.empty_like(l_values)
        for index, level in enumerate(tqdm(levels, "model statistics: s, b", disable=not progress)):
            values, derivatives, size = [], [], torch.zeros_like(l_values[0])
            for first in chunks:
                y = states(level, first)
                clean = denoiser(y, level)
                velocity = clean - y
                _, clean_rate = derivative(denoiser, (y, level), (velocity, -level))
                y, clean, velocity = y.double(), clean.double(), velocity.double()
                values.append((1.0 - l_values[index]) * y - clean)
                derivatives.append(
                    (1.0 - l_values[index]) * velocity - clean_rate.double() - slopes[index] * y
                )
                size += (y.square() + clean.square()).sum(0) / n_samples
            f, rate = torch.cat(values), torch.cat(derivatives)
            f_mean, rate_mean = f.mean(0), rate.mean(0)
            variance = (f - f_mean).square().mean(0)
            # below this the variance is rounding of the denoiser's own dtype, and s would be noise over noise
            floor = (100 * torch.finfo(x0.dtype).eps) ** 2 * size
            shrunk = (variance + ridge**2 * variance.mean()).clamp_min(torch.finfo(torch.float64).tiny)
            s = ((f - f_mean) * (rate - rate_mean)).mean(0) / shrunk
            s_values[index] = torch.where(variance > floor, s, torch.zeros_like(s))
            b_values[index] = rate_mean - s_values[index] * f_mean
        _require_finite(b_values, levels)
    return EMS(lambdas.to(x0.device), l_values, s_values, b_values)


def cached_ems(folder: str | Path, settings: Mapping[str, Any], compute: Callable[[], EMS]) -> EMS:
    """The statistics computed earlier under the same settings, or `compute()`, saved for the next time.

    Args:
        folder: Where the files lie, one for each combination of settings.
        settings: Whatever the statistics depend on (model, range, points, samples, seed): JSON values only.
        compute: Called where no file of these settings exists.
    """
    key = json.dumps(dict(settings), sort_keys=True)
    path = Path(folder) / f"ems-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    if path.is_file():
        return EMS.load(path)
    ems = compute()
    ems.save(path)
    return ems


def problem_statistics(problem: Problem, points: int = 241, n_samples: int = 512) -> EMS:
    """Statistics of a registry problem's denoiser over its range, cached where the problem has a cache.

    The denoiser cannot be hashed; its answers to a few fixed states stand for it in the cache's key.

    Raises:
        ValueError: the problem brings no data.
    """
    data = problem.data
    if data is None:
        raise ValueError("model statistics need examples of the data: give the problem its data")
    if problem.fast:
        points, n_samples = min(points, 31), min(n_samples, 32)

    def draw(count: int, generator: torch.Generator | None) -> Tensor:
        return data[torch.randint(len(data), (count,), generator=generator, device=data.device)]

    def compute() -> EMS:
        generator = torch.Generator(data.device).manual_seed(problem.seed)
        ends = -math.log(problem.sigma_max), -math.log(problem.sigma_min)
        lambdas = torch.linspace(*ends, points, dtype=torch.float64)
        return compute_ems(problem.denoiser, draw, lambdas, n_samples, generator)

    if problem.cache is None:
        return compute()
    levels = torch.tensor([problem.sigma_max, 1.0, problem.sigma_min], dtype=torch.float64, device=data.device)
    probe = data[: min(len(data), 4)]
    with torch.no_grad():
        answers = [problem.denoiser(probe + level.to(probe.dtype), level).double().cpu() for level in levels]
    settings = {
        "range": [problem.sigma_max, problem.sigma_min],
        "points": points,
        "n_samples": n_samples,
        "seed": problem.seed,
        "data": hashlib.sha256(data.cpu().numpy().tobytes()).hexdigest(),
        "denoiser": [[round(value, 6) for value in answer.flatten()[:64].tolist()] for answer in answers],
    }
    return cached_ems(problem.cache, settings, compute).to(data.device)


def _forward_jvp(function: Callable[..., Tensor], primals: tuple, tangents: tuple) -> tuple[Tensor, Tensor]:
    return torch.func.jvp(function, primals, tangents)


def _double_backward_jvp(function: Callable[..., Tensor], primals: tuple, tangents: tuple) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        value, product = torch.autograd.functional.jvp(function, primals, tangents)
    return value.detach(), product.detach()


def _require_finite(values: Tensor, levels: list[Tensor]) -> None:
    bad = (~torch.isfinite(values.flatten(1)).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"the denoiser or its derivative is not finite at sigma = {float(levels[bad[0]]):.6g}")
