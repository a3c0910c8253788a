"""``liegroups/haar``: volumes and invariant integrals against their closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from framework.study import Study
from plugins.liegroups.figures import integral_figure
from plugins.liegroups.groups import LieGroup, make_group, random_elements
from plugins.liegroups.haar import (
    CoordinateNormal,
    Estimate,
    HaarBallSL2,
    HaarUniformSO,
    LogNormalSPD,
    PolarBall,
    integrate,
    polar_ball_volume,
    rotation_group_volume,
    sl2_ball_volume,
    sl2_fraction_without_log,
    spd_constant,
)
from plugins.liegroups.linalg import no_real_log_2x2


class Comparison(NamedTuple):
    """A Monte Carlo estimate beside its exact value; ``error`` is the standard error."""

    value: float
    error: float
    exact: float

    @property
    def deviation(self) -> float:
        """(estimate - exact) in standard errors."""
        return (self.value - self.exact) / self.error


def closed_form_integrals(n: int, seed: int) -> dict[str, Comparison]:
    """Integrals with known values, ``n`` samples each."""
    results: dict[str, Comparison] = {}
    generator = torch.Generator().manual_seed(seed)

    def add(name: str, estimate: Estimate, exact: float) -> None:
        results[name] = Comparison(*estimate, exact)

    def ones(g: Tensor) -> Tensor:
        return torch.ones(len(g), dtype=g.dtype)

    for name, size, traceless in (("sl2", 2, True), ("gl2", 2, False), ("sl3", 3, True)):
        ball = PolarBall(make_group(name), 1.0)
        add(f"{name}_volume_radius1", integrate(ones, ball, n, generator), polar_ball_volume(size, 1.0, traceless))
    log_norm = 1.0
    ball = HaarBallSL2(log_norm)
    volume = sl2_ball_volume(log_norm)
    add(
        "sl2_norm2_ball",
        integrate(lambda g: g.square().sum((-2, -1)), ball, n, generator),
        volume * (1 + math.cosh(2 * log_norm)),
    )
    add(
        "sl2_without_logarithm",
        integrate(lambda g: no_real_log_2x2(g).double(), ball, n, generator),
        volume * sl2_fraction_without_log(log_norm),
    )
    # the polar ball and the norm ball are one set: ||X||_F <= sqrt 2 A is ||g||_op <= e^A in SL(2)
    add(
        "sl2_norm_ball_polar",
        integrate(ones, PolarBall(make_group("sl2"), math.sqrt(2) * log_norm), n, generator),
        volume,
    )
    rotations = make_group("so3")
    add(
        "so3_mean_angle",
        integrate(lambda g: rotations.log(g).norm(dim=-1), HaarUniformSO(3), n, generator),
        math.pi / 2 + 2 / math.pi,
    )
    # int det(S)^a e^{-tr S} over GL+(2) with S = g g^T is the multivariate gamma function, up to the constant between
    # the measures det(S)^{-3/2} dS dR and prod sinhc dX dR
    a = 2.0
    gamma2 = math.sqrt(math.pi) * math.gamma(a) * math.gamma(a - 0.5)
    add(
        "gl2_gamma_function",
        integrate(
            lambda g: torch.linalg.det(g) ** (2 * a) * torch.exp(-g.square().sum((-2, -1))),
            LogNormalSPD(make_group("gl2"), 1.6),
            n,
            generator,
        ),
        gamma2 * spd_constant(2) / rotation_group_volume(2),
    )
    return results


def localised_function(group: LieGroup, width: float = 0.35) -> Callable[[Tensor], Tensor]:
    """A smooth function concentrated near an element off the identity, without symmetry."""
    centre = group.inverse(group.from_coordinates(torch.linspace(-0.25, 0.3, group.dim, dtype=torch.float64)))
    slope = torch.linspace(1.0, -0.5, group.dim, dtype=torch.float64)

    def f(g: Tensor) -> Tensor:
        v = group.coordinates(centre @ g)
        return torch.exp(-v.square().sum(-1) / (2 * width**2)) * (1 + v @ slope / 2)

    return f


def invariance(group: LieGroup, n: int, seed: int) -> dict[str, Comparison]:
    """Integrals of one function shifted from the left, from the right, and inverted, against the unshifted one.

    Right shifts and inversion are compared after the factor of the modular function: ``int f(g h) dmu = Delta(h)^-1
    int f dmu`` and ``int f(g^-1) Delta(g)^-1 dmu = int f dmu`` for the left measure.
    """
    f = localised_function(group)
    generator = torch.Generator().manual_seed(seed)
    sampler = CoordinateNormal(group, 0.5)
    h = random_elements(group, 1, 0.2, generator)[0]
    plain = integrate(f, sampler, n, generator)
    cases = {
        "left": integrate(lambda g: f(h @ g), sampler, n, generator),
        "right": integrate(lambda g: f(g @ h) * group.modular_function(h), sampler, n, generator),
        "inverse": integrate(lambda g: f(group.inverse(g)) / group.modular_function(g), sampler, n, generator),
    }
    return {name: Comparison(e.value, math.hypot(e.error, plain.error), plain.value) for name, e in cases.items()}


def error_slope(sizes: list[int], repeats: int, seed: int) -> float:
    """Fitted exponent of the root mean square error of an SL(2) integral against the number of samples."""
    ball = HaarBallSL2(1.0)
    exact = sl2_ball_volume(1.0) * (1 + math.cosh(2.0))
    errors = []
    generator = torch.Generator().manual_seed(seed)
    for n in sizes:
        samples = ball(n * repeats, generator)
        values = (samples.g.square().sum((-2, -1)) * samples.log_weight.exp()).reshape(repeats, n).mean(-1)
        errors.append(float((values - exact).square().mean().sqrt()))
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


class HaarStudy(Study):
    """Volumes by quadrature, integrals by Monte Carlo, and their deviation from the exact value.

    Metrics: ``volume/<group>/radius1``; ``integral/<name>`` with ``deviation/<name>`` in standard errors;
    ``deviation/<group>_<left|right|inverse>``; ``integral/error_slope``; ``deviation/max``.
    """

    def __init__(
        self, samples: int = 200_000, groups: tuple[str, ...] = ("sl2", "gl2", "sl3", "se2", "sim2", "aff2"),
        seed: int = 0, fast: bool = False,
    ):  # fmt: skip
        super().__init__()
        if samples < 2:
            raise ValueError(f"samples={samples}: at least two")
        self.samples = min(samples, 2000) if fast else samples
        self.groups, self.seed, self.fast = tuple(groups), seed, fast

    def study(self) -> dict[str, float]:
        metrics = {
            "volume/sl2/radius1": polar_ball_volume(2, 1.0, traceless=True),
            "volume/gl2/radius1": polar_ball_volume(2, 1.0),
            "volume/sl3/radius1": polar_ball_volume(3, 1.0, traceless=True),
        }
        results = closed_form_integrals(self.samples, self.seed)
        for name in tqdm(self.groups, desc="invariance", unit="group"):
            for case, comparison in invariance(make_group(name), self.samples, self.seed).items():
                results[f"{name}_{case}"] = comparison
        for name, comparison in results.items():
            metrics[f"integral/{name}"] = comparison.value
            metrics[f"exact/{name}"] = comparison.exact
            metrics[f"deviation/{name}"] = comparison.deviation
        sizes, repeats = ([16, 64, 256], 50) if self.fast else ([16, 64, 256, 1024, 4096], 400)
        metrics["integral/error_slope"] = error_slope(sizes, repeats, self.seed)
        metrics["deviation/max"] = max(abs(c.deviation) for c in results.values())
        self.save_figure("integrals", integral_figure(list(results), [c.deviation for c in results.values()]))
        return metrics
