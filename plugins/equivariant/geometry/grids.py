"""Grids of orientations on S^(n-1), with quadrature weights.

A grid is antipodal when it holds -o beside every o. Kernels on such a grid need evaluating only once for the two
directions of an edge, and integrate every odd polynomial exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import eval_legendre
from torch import Tensor, nn


class Grid(NamedTuple):
    """Unit vectors `points` (O, n) and non-negative `weights` (O,) that sum to one, both float64."""

    points: Tensor
    weights: Tensor


def circle(count: int) -> Grid:
    """Angles 2 pi k / count: exact for trigonometric polynomials of degree below `count`."""
    _positive(count)
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    return _equal(torch.stack([angle.cos(), angle.sin()], -1))


def icosahedral(count: int = 12) -> Grid:
    """The 12 vertices of the icosahedron, 63.43 degrees apart: a spherical 5-design."""
    _exactly(count, 12, "icosahedral")
    golden = (1 + math.sqrt(5)) / 2
    return _equal(_cyclic([(0.0, a, b * golden) for a in (1, -1) for b in (1, -1)]))


def dodecahedral(count: int = 20) -> Grid:
    """The 20 vertices of the dodecahedron, 41.81 degrees apart: a spherical 5-design."""
    _exactly(count, 20, "dodecahedral")
    golden = (1 + math.sqrt(5)) / 2
    cube = [(a, b, c) for a in (1.0, -1.0) for b in (1.0, -1.0) for c in (1.0, -1.0)]
    rest = _cyclic([(0.0, a / golden, b * golden) for a in (1, -1) for b in (1, -1)])
    return _equal(torch.cat([torch.tensor(cube, dtype=torch.float64), rest]))


def fibonacci(count: int) -> Grid:
    """Golden-angle spiral with heights at the middles of equal bands (offset 1/2); not antipodal."""
    _positive(count)
    k = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * k + 1) / count
    angle = math.pi * (3 - math.sqrt(5)) * k
    rho = (1 - z**2).sqrt()
    return _equal(torch.stack([rho * angle.cos(), rho * angle.sin(), z], -1))


@lru_cache(maxsize=64)
def repulsion(count: int) -> Grid:
    """Points that minimise sum 1/d^2, from the Fibonacci grid by L-BFGS: the same points every time."""
    if count < 2:
        return fibonacci(count)
    return _equal(_optimise(fibonacci(count).points.numpy(), lambda x: x, _riesz))


@lru_cache(maxsize=64)
def antipodal(count: int) -> Grid:
    """Pairs of opposite points that minimise sum 1/d^2 among pairs; `count` must be even."""
    _even(count, "antipodal")
    if count == 2:
        return _equal(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64))
    return _equal(_optimise(_half_sphere(count), lambda x: np.concatenate([x, -x]), _riesz))


@lru_cache(maxsize=64)
def design(count: int) -> Grid:
    """Antipodal points and weights chosen to integrate polynomials of as high a degree as possible.

    Minimises the quadrature error over even degrees up to the first that the number of points cannot meet, by L-BFGS
    from several deterministic starts, alternating points and weights.
    """
    _even(count, "design")
    if count <= 6:
        return antipodal(count)
    # l(2l+3)/2 conditions up to even degree l against two angles and a weight for each pair, less three rotations
    free, degree = 3 * (count // 2) - 4, 2
    while (degree + 2) * (degree + 5) // 2 <= free:
        degree += 2
    # one degree beyond, at small weight, decides between solutions
    scales = {even: 1.0 for even in range(2, degree + 1, 2)} | {degree + 2: 1e-3}

    def error(x: np.ndarray) -> tuple[float, np.ndarray]:
        return _quadrature_error(x, scales)

    best, points = math.inf, None
    for start in [antipodal(count).points.numpy()[: count // 2], *_starts(count, 6)]:
        candidate = _optimise(start, lambda x: np.concatenate([x, -x]), error).numpy()
        weights = quadrature_weights(torch.from_numpy(candidate), degree + 2).numpy()
        residual = sum(s * _degree_error(candidate, weights, even) for even, s in scales.items())
        if residual < best - 1e-12:
            best, points = residual, candidate
    assert points is not None
    return Grid(torch.from_numpy(points), quadrature_weights(torch.from_numpy(points), degree + 2))


GRIDS: dict[str, Callable[[int], Grid]] = {
    "icosahedral": icosahedral,
    "dodecahedral": dodecahedral,
    "fibonacci": fibonacci,
    "repulsion": repulsion,
    "antipodal": antipodal,
    "design": design,
    "circle": circle,
}


def make_grid(name: str, count: int, n: int = 3, quadrature: bool = False) -> Grid:
    """A grid by name.

    Args:
        name: one of GRIDS, or "auto": the circle for n = 2; for n = 3 the icosahedron at 12, the dodecahedron at 20,
            antipodal points at other even counts and repulsion at odd ones.
        count: number of orientations, positive.
        n: 2 or 3.
        quadrature: replace equal weights by `quadrature_weights`.
    """
    if n not in (2, 3):
        raise ValueError(f"n must be 2 or 3, not {n}")
    if name == "auto":
        name = {12: "icosahedral", 20: "dodecahedral"}.get(count, "repulsion" if count % 2 else "antipodal")
        name = "circle" if n == 2 else name
    if name not in GRIDS:
        raise ValueError(f"unknown grid {name!r}: choose one of auto, {', '.join(GRIDS)}")
    if (name == "circle") != (n == 2):
        raise ValueError(f"the grid {name!r} does not lie on S^{n - 1}: choose {'circle' if n == 2 else 'another'}")
    grid = GRIDS[name](count)
    if quadrature and n == 3:
        grid = Grid(grid.points, quadrature_weights(grid.points))
    return grid


def quadrature_weights(points: Tensor, degree: int | None = None) -> Tensor:
    """(O,) non-negative weights for points on S^2, nearest to equal ones, that integrate spherical harmonics exactly
    up to the highest degree for which there are such weights.

    Args:
        points: (O, 3) unit vectors.
        degree: highest degree tried; the degree whose harmonics outnumber the points, when omitted.
    """
    x = points.double().cpu().numpy()
    count = len(x)
    cosine = np.clip(x @ x.T, -1, 1)
    rows = [np.ones((1, count))]
    for order in range(1, (degree or math.ceil(math.sqrt(count))) + 1):
        # the Gram matrix of the 2l+1 harmonics; its root holds their values up to a rotation among them
        values, vectors = np.linalg.eigh((2 * order + 1) * eval_legendre(order, cosine))
        rows.append((vectors[:, -2 * order - 1 :] * np.sqrt(values[-2 * order - 1 :].clip(min=0))).T)
    equal = np.full(count, 1 / count)
    while len(rows) > 1:
        system = np.concatenate(rows)
        wanted = np.zeros(len(system))
        wanted[0] = 1
        weights = equal + np.linalg.lstsq(system, wanted - system @ equal, rcond=1e-10)[0]
        if np.abs(system @ weights - wanted).max() < 1e-10 and (weights >= 0).all():
            return torch.from_numpy(weights / weights.sum())
        rows.pop()
    return torch.from_numpy(equal)


def moments(grid: Grid, degree: int) -> Tensor:
    """(degree,) root mean square over m of the quadrature error of Y_lm, l = 1 .. `degree`; zeros for a design."""
    points, weights = grid.points.numpy(), grid.weights.numpy()
    return torch.tensor([math.sqrt(max(0.0, _degree_error(points, weights, order))) for order in range(1, degree + 1)])


def pair_antipodes(grid: Grid) -> Grid | None:
    """The same grid ordered so that ``points[o + O/2] = -points[o]``, exactly; None where some -o is missing."""
    points, weights = grid
    count = len(points)
    distance = (points[:, None] + points[None]).norm(dim=-1)
    partner = distance.argmin(1)
    unlike = (weights - weights[partner]).abs().max()
    if count % 2 or float(distance.min(1).values.max()) > 1e-9 or float(unlike) > 1e-9:
        return None
    first = torch.arange(count)[torch.arange(count) < partner]
    half, mass = points[first], (weights[first] + weights[partner[first]]) / 2
    return Grid(torch.cat([half, -half]), torch.cat([mass, mass]))


class Float64Buffers(nn.Module):
    """A module whose buffers stay in float64 whatever it is cast to: an icosahedron rounded to float32 has lost its
    symmetries to twelve digits."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float64Buffers:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            self._buffers[name] = buffer.to(self._buffers[name].device)
        return self


class OrientationGrid(Float64Buffers):
    """A grid as buffers, so that a saved network keeps the very points it was trained with.

    Args:
        grid: points and weights; where every orientation has its opposite, points are ordered so that
            ``points[o + O/2] = -points[o]`` and ``antipodal`` is True.
    """

    points: Tensor
    weights: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        paired = pair_antipodes(grid)
        self.antipodal = paired is not None
        points, weights = paired or grid
        self.register_buffer("points", points.clone())
        self.register_buffer("weights", weights.clone())

    def __len__(self) -> int:
        return len(self.points)

    @property
    def dim(self) -> int:
        """Dimension n of the space the orientations live in."""
        return self.points.shape[1]

    def extra_repr(self) -> str:
        return f"{len(self)} orientations in R^{self.dim}, antipodal={self.antipodal}"


def _equal(points: Tensor) -> Grid:
    points = points / points.norm(dim=-1, keepdim=True)
    return Grid(points, torch.full((len(points),), 1 / len(points), dtype=torch.float64))


def _cyclic(rows: list[tuple[float, float, float]]) -> Tensor:
    base = torch.tensor(rows, dtype=torch.float64)
    return torch.cat([base.roll(k, 1) for k in range(3)])


def _positive(count: int) -> None:
    if count < 1:
        raise ValueError(f"a grid needs at least one orientation, not {count}")


def _even(count: int, name: str) -> None:
    if count < 2 or count % 2:
        raise ValueError(f"the {name} grid needs an even number of orientations, not {count}: choose repulsion")


def _exactly(count: int, needed: int, name: str) -> None:
    if count != needed:
        raise ValueError(f"the {name} grid has {needed} orientations, not {count}: choose antipodal or repulsion")


def _half_sphere(count: int) -> np.ndarray:
    points = fibonacci(count).points.numpy()
    return points[: count // 2]


def _starts(count: int, tries: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    normal = rng.standard_normal((tries, count // 2, 3))
    return list(normal / np.linalg.norm(normal, axis=-1, keepdims=True))


def _optimise(
    start: np.ndarray,
    expand: Callable[[np.ndarray], np.ndarray],
    energy: Callable[[np.ndarray], tuple[float, np.ndarray]],
) -> Tensor:
    """Minimise `energy` of `expand`ed unit vectors over the free ones; `expand` stacks copies with signs."""

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        raw = flat.reshape(start.shape)
        norm = np.linalg.norm(raw, axis=1, keepdims=True)
        unit = raw / norm
        full = expand(unit)
        value, grad = energy(full)
        if len(full) > len(unit):
            grad = grad[: len(unit)] - grad[len(unit) :]
        return value, ((grad - (grad * unit).sum(1, keepdims=True) * unit) / norm).ravel()

    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-15})
    points = found.x.reshape(start.shape)
    return torch.from_numpy(expand(points / np.linalg.norm(points, axis=1, keepdims=True)))


def _riesz(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of 1/d^2 over pairs, and its gradient; opposite points of an antipodal grid add a constant."""
    difference = x[:, None] - x[None]
    square = (difference**2).sum(-1)
    np.fill_diagonal(square, np.inf)
    return float((1 / square).sum()) / len(x), (-4 * difference / square[..., None] ** 2).sum(1) / len(x)


def _degree_error(points: np.ndarray, weights: np.ndarray, degree: int) -> float:
    """Mean over m of the squared error of sum_o w_o Y_lm(o), with Y_lm of unit mean square."""
    return float(weights @ eval_legendre(degree, np.clip(points @ points.T, -1, 1)) @ weights)


def _quadrature_error(x: np.ndarray, scales: dict[int, float]) -> tuple[float, np.ndarray]:
    """sum_l scale_l mean_ab P_l(a.b), with equal weights, and its gradient with respect to the points."""
    cosine = np.clip(x @ x.T, -1, 1)
    value, slope = 0.0, np.zeros_like(cosine)
    inside = np.abs(cosine) < 1 - 1e-12
    for degree, scale in scales.items():
        legendre = eval_legendre(degree, cosine)
        value += scale * float(legendre.mean())
        # (x^2 - 1) P_l' = l (x P_l - P_(l-1)); at the ends the tangential gradient vanishes
        raw = degree * (cosine * legendre - eval_legendre(degree - 1, cosine))
        slope += scale * np.where(inside, raw / np.where(inside, cosine**2 - 1, 1), 0.0)
    return value, 2 * slope @ x / len(x) ** 2
