"""Pathfinder (Linsley et al. 2018; Kim et al. 2020): are two marked ends on the same dashed curve?

Two target curves and short distractors grow dash by dash without touching; the recipe and its numbers are those of
the Long Range Arena's data sets, drawn by a rasteriser of our own.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from plugins.state_space.data.cache import cached
from plugins.state_space.data.loading import SequenceData, Sequences

VERSION = 1
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Recipe:
    """Lengths in pixels.

    Attributes:
        window: side of the image.
        padding: border kept free.
        antialias: subpixels per pixel and direction.
        paddle_length, paddle_thickness: of one dash.
        paddle_margins: free space around dashes; one of these for each image.
        contour_length: dashes of a target curve.
        distractor_length, distractors: dashes of one distractor, and their number.
        seed_distance: between the first ends of the two targets.
        continuity: 1 lets a curve bend by up to 90° per dash, more makes it straighter.
        contrast: brightness of dashes before the image is scaled to [0, 255].
        marker_radius: of the discs.
        retries: attempts at one dash or one distractor.
    """

    window: int
    padding: int
    antialias: int
    paddle_length: int
    paddle_thickness: float
    paddle_margins: tuple[int, ...]
    contour_length: int
    distractor_length: int
    distractors: int
    seed_distance: int
    continuity: float
    contrast: float
    marker_radius: float
    retries: int = 4


PATHFINDER_32 = Recipe(32, 1, 2, 2, 0.5, (1,), 14, 4, 5, 7, 1.0, 1.5, 1.5)
PATHX = Recipe(128, 1, 2, 5, 1.5, (2, 3), 14, 4, 8, 20, 1.8, 0.9, 3.0)
RECIPES = {"pathfinder": PATHFINDER_32, "pathx": PATHX}


class _DeadEnd(Exception):
    pass


@dataclass(frozen=True)
class _Dash:
    """A dash: its window of the image, its picture there, and the space it takes with its margin."""

    window: tuple[slice, slice]
    picture: Array
    space: Mask

    def collides(self, occupied: Mask) -> bool:
        return bool((self.space & occupied[self.window]).any())

    def occupy(self, occupied: Mask) -> None:
        occupied[self.window] |= self.space


@dataclass
class _Curve:
    """A growing curve: its dashes, the pivot the last one turned about, its direction, and both ends."""

    dashes: list[_Dash]
    pivot: tuple[float, float]
    angle: float
    origin: tuple[int, int]
    tip: tuple[int, int]


def draw_pathfinder(recipe: Recipe, generator: np.random.Generator) -> tuple[NDArray[np.uint8], int]:
    """One image (window, window) in 0 … 255 and its label, 1 if both discs are on one curve."""
    if 4 * recipe.seed_distance >= recipe.window:
        raise ValueError(f"seed_distance={recipe.seed_distance} leaves no room in a window of {recipe.window}")
    label = int(generator.integers(2))
    margin = int(generator.choice(recipe.paddle_margins))
    while True:
        try:
            targets, occupied = _two_targets(recipe, margin, generator)
            break
        except _DeadEnd:
            continue
    curves = list(targets)
    for _ in range(recipe.distractors):
        for _ in range(recipe.retries + 1):
            try:
                distractor, occupied = _distractor(recipe, margin, occupied, generator)
            except _DeadEnd:
                continue
            curves.append(distractor)
            break
    image = np.zeros((recipe.window, recipe.window))
    for dash in (dash for curve in curves for dash in curve.dashes):
        np.maximum(image[dash.window], dash.picture, out=image[dash.window])
    first = int(generator.integers(2))
    second = first if label else 1 - first
    for place in (targets[first].origin, targets[second].tip):
        image = np.maximum(image, _disc(recipe, place))
    return np.round(255 * image / image.max()).astype(np.uint8), label


def _two_targets(recipe: Recipe, margin: int, generator: np.random.Generator) -> tuple[list[_Curve], Mask]:
    inset = 2 * recipe.seed_distance
    occupied = np.ones((recipe.window, recipe.window), dtype=bool)
    inner = slice(recipe.padding, recipe.window - recipe.padding)
    occupied[inner, inner] = False
    y, x = (int(v) for v in generator.integers(inset, recipe.window - inset, 2))
    curves = [_seed(recipe, margin, (y, x), generator)]
    for _ in range(recipe.retries):
        direction = math.radians(int(generator.integers(360)))
        place = (
            round(y + recipe.seed_distance * math.sin(direction)),
            round(x + recipe.seed_distance * math.cos(direction)),
        )
        try:
            curves.append(_seed(recipe, margin, place, generator))
            break
        except _DeadEnd:
            continue
    if len(curves) < 2:
        raise _DeadEnd
    for _ in range(recipe.contour_length - 1):
        for curve in curves:
            _extend(recipe, margin, curve, occupied, generator)
    for curve in curves:
        curve.dashes[-1].occupy(occupied)
    return curves, occupied


def _distractor(recipe: Recipe, margin: int, occupied: Mask, generator: np.random.Generator) -> tuple[_Curve, Mask]:
    occupied = occupied.copy()
    for _ in range(50):
        y, x = (int(v) for v in generator.integers(0, recipe.window, 2))
        try:
            curve = _seed(recipe, margin, (y, x), generator)
        except _DeadEnd:
            continue
        if not curve.dashes[0].collides(occupied):
            break
    else:
        raise _DeadEnd
    for _ in range(recipe.distractor_length - 1):
        _extend(recipe, margin, curve, occupied, generator)
    curve.dashes[-1].occupy(occupied)
    return curve, occupied


def _seed(recipe: Recipe, margin: int, tail: tuple[int, int], generator: np.random.Generator) -> _Curve:
    angle = math.radians(int(generator.integers(-180, 180)))
    length = recipe.paddle_length
    head = (tail[0] + length * math.sin(angle), tail[1] + length * math.cos(angle))
    pivot = (head[0] - (length + margin) * math.sin(angle), head[1] - (length + margin) * math.cos(angle))
    for point in (tail, head, pivot):
        if not all(0 <= value < recipe.window for value in point):
            raise _DeadEnd
    return _Curve([_dash(recipe, margin, tail, angle)], pivot, angle, tail, tail)


def _extend(recipe: Recipe, margin: int, curve: _Curve, occupied: Mask, generator: np.random.Generator) -> None:
    """Add one dash to a curve, and the space of the dash before it to what is occupied.

    Raises:
        _DeadEnd: there is no room.
    """
    step, radius = recipe.paddle_length + 2 * margin, recipe.paddle_length + margin
    pivot = (curve.pivot[0] + step * math.sin(curve.angle), curve.pivot[1] + step * math.cos(curve.angle))
    around = np.arange(0, 2 * math.pi, 1 / radius)
    ends = np.stack([pivot[0] + radius * np.sin(around), pivot[1] + radius * np.cos(around)], axis=1)
    ends = np.unique(ends[((ends >= 0) & (ends < recipe.window)).all(1)].astype(int), axis=0)
    if len(ends) == 0:
        raise _DeadEnd
    angles = np.arctan2(ends[:, 0] - pivot[0], ends[:, 1] - pivot[1])
    turn = np.abs(angles - curve.angle)
    turn = np.minimum(np.minimum(turn, 2 * math.pi - turn) * recipe.continuity, math.pi / 2)
    weights = np.cos(turn) ** 2 * ~_near_occupied(occupied, ends, margin)
    total = weights.sum()
    if total < 1e-4:
        raise _DeadEnd
    for _ in range(recipe.retries):
        chosen = int(np.searchsorted(np.cumsum(weights), generator.random() * total, side="right"))
        chosen = min(chosen, len(ends) - 1)
        head, angle = (int(ends[chosen, 0]), int(ends[chosen, 1])), float(angles[chosen])
        dash = _dash(recipe, margin, head, angle + math.pi)
        if not dash.collides(occupied):
            break
    else:
        raise _DeadEnd
    curve.dashes[-1].occupy(occupied)
    curve.dashes.append(dash)
    curve.pivot, curve.angle, curve.tip = pivot, angle, head


def _near_occupied(occupied: Mask, points: NDArray[np.int64], radius: int) -> Mask:
    """Whether anything within ``radius`` of each point is occupied."""
    y, x = np.nonzero(_ball(radius))
    size = len(occupied)
    rows = np.clip(points[:, 0, None] + y - radius, 0, size - 1)
    columns = np.clip(points[:, 1, None] + x - radius, 0, size - 1)
    return occupied[rows, columns].any(1)


def _dash(recipe: Recipe, margin: int, start: tuple[int, int], angle: float) -> _Dash:
    """A dash from a pixel in a direction."""
    size, length, scale = recipe.window, recipe.paddle_length, recipe.antialias
    reach = length + math.ceil(recipe.paddle_thickness) + margin
    low = (max(0, start[0] - reach), max(0, start[1] - reach))
    high = (min(size, start[0] + reach + 1), min(size, start[1] + reach + 1))
    offset = (np.arange(scale) + 0.5) / scale - 0.5
    y = (np.arange(low[0], high[0])[:, None] + offset).ravel() - start[0]
    x = (np.arange(low[1], high[1])[:, None] + offset).ravel() - start[1]
    sine, cosine = math.sin(angle), math.cos(angle)
    along = np.clip(y[:, None] * sine + x[None] * cosine, 0, length)
    distance = np.hypot(y[:, None] - along * sine, x[None] - along * cosine)
    half = recipe.paddle_thickness / 2
    fine = np.clip((half - distance) * scale + 0.5, 0, 1)
    shape = (high[0] - low[0], scale, high[1] - low[1], scale)
    return _Dash(
        (slice(low[0], high[0]), slice(low[1], high[1])),
        recipe.contrast * fine.reshape(shape).mean((1, 3)),
        (distance <= half + margin).reshape(shape).mean((1, 3)) > 0.5,
    )


def _disc(recipe: Recipe, place: tuple[int, int]) -> Array:
    scale = recipe.antialias
    grid = (np.arange(recipe.window * scale) + 0.5) / scale - 0.5
    inside = (grid[:, None] - place[0]) ** 2 + (grid[None] - place[1]) ** 2 <= recipe.marker_radius**2
    return inside.reshape(recipe.window, scale, recipe.window, scale).mean((1, 3))


@functools.cache
def _ball(radius: int) -> Mask:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return x**2 + y**2 <= radius**2


def _draw_indexed(work: tuple[Recipe, int, int]) -> tuple[NDArray[np.uint8], int]:
    recipe, seed, index = work
    return draw_pathfinder(recipe, np.random.default_rng([seed, index]))


class PathfinderData(SequenceData):
    """Pathfinder images as sequences of pixels in [−1, 1], generated once and cached.

    Args:
        batch_size, workers, fast: as ``SequenceData``.
        variant: ``pathfinder`` (32×32, 1,024 steps) or ``pathx`` (128×128, 16,384 steps).
        train_size, val_size, test_size: numbers of images (160,000, 20,000 and 20,000 in the arena).
        contour_length, distractors: other numbers of dashes and distractors than the recipe's (an easier task).
        pool: side of the blocks of pixels averaged into one; 2 makes the sequence four times shorter.
        generation_seed: of the images; image i depends on the seed and i alone.
        processes: that draw at the same time.
    """

    def __init__(
        self,
        batch_size: int = 64,
        variant: str = "pathfinder",
        train_size: int = 160_000,
        val_size: int = 20_000,
        test_size: int = 20_000,
        contour_length: int | None = None,
        distractors: int | None = None,
        pool: int = 1,
        generation_seed: int = 0,
        processes: int = 1,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, workers, fast)
        if variant not in RECIPES:
            raise ValueError(f"variant must be one of {', '.join(RECIPES)}, not {variant!r}")
        for name, size in (("train_size", train_size), ("val_size", val_size), ("test_size", test_size)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        changes = {"contour_length": contour_length, "distractors": distractors}
        self.recipe = dataclasses.replace(RECIPES[variant], **{k: v for k, v in changes.items() if v is not None})
        if self.recipe.contour_length < 2 or self.recipe.distractors < 0:
            raise ValueError(
                f"contour_length >= 2 and distractors >= 0 are needed, not {contour_length} and {distractors}"
            )
        if pool < 1 or self.recipe.window % pool:
            raise ValueError(f"pool must divide the image's side, {self.recipe.window}; got {pool}")
        self.pool = pool
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        if fast:
            self.sizes = {"train": 4, "val": 2, "test": 2}
            self.recipe = dataclasses.replace(self.recipe, contour_length=3, distractors=0)
        self.generation_seed, self.processes = generation_seed, processes

    def prepare_data(self) -> None:
        self._load()

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        stored, start = self._load(), 0
        images = stored["images"]
        if self.pool > 1:
            images = F.avg_pool2d(images.float(), self.pool).round().to(torch.uint8)
        pixels = images.flatten(1)[..., None]
        for name, size in self.sizes.items():
            part = slice(start, start + size)
            self.sets[name] = Sequences(pixels[part], stored["labels"][part], scale=1 / 127.5, shift=127.5)
            start += size

    def _load(self) -> dict[str, Tensor]:
        settings = {
            **dataclasses.asdict(self.recipe),
            "sizes": self.sizes,
            "seed": self.generation_seed,
            "version": VERSION,
        }
        return cached("pathfinder", settings, self._generate)

    def _generate(self) -> dict[str, Tensor]:
        total = sum(self.sizes.values())
        images = np.empty((total, self.recipe.window, self.recipe.window), dtype=np.uint8)
        labels = np.empty(total, dtype=np.int64)
        work = ((self.recipe, self.generation_seed, i) for i in range(total))
        with tqdm(total=total, desc="drawing Pathfinder", unit="image") as bar:

            def keep(results: object) -> None:
                for i, (image, label) in enumerate(results):  # type: ignore[arg-type, var-annotated]
                    images[i], labels[i] = image, label
                    bar.update()

            if self.processes > 1:
                with ProcessPoolExecutor(self.processes) as pool:
                    keep(pool.map(_draw_indexed, work, chunksize=64))
            else:
                keep(map(_draw_indexed, work))
        return {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)}
