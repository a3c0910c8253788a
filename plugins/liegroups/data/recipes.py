"""Named test sets made from padded MNIST, each by a documented recipe."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plugins.liegroups.data.warp import affnist_like, gl2_maps, homography_maps, rotation_maps, warp

Recipe = Callable[[Tensor, torch.Generator], Tensor]

RECIPES: dict[str, Recipe] = {
    # the digit in the middle of the canvas
    "padded": lambda images, generator: images,
    # rotation +-20 deg, shear +-0.2, either scale 0.8-1.2, then a shift that keeps the ink on the canvas
    "affnist_like": lambda images, generator: affnist_like(images, generator),
    "rot45": lambda images, generator: warp(images, rotation_maps(len(images), 45.0, generator)),
    "rot180": lambda images, generator: warp(images, rotation_maps(len(images), 180.0, generator)),
    # rotation +-180 deg, either scale 0.8-1.2, shear +-10 deg
    "gl2": lambda images, generator: warp(images, gl2_maps(len(images), generator)),
    # the maps of gl2 followed by a projective map whose denominator stays within 1 +- 0.3 on the canvas
    "homography": lambda images, generator: warp(images, homography_maps(len(images), generator=generator)),
}


def make_set(name: str, images: Tensor, seed: int) -> Tensor:
    """The set called ``name`` from padded ``images`` [n, 1, s, s]; the same seed gives the same set.

    Raises ValueError listing the recipes for an unknown name.
    """
    if name not in RECIPES:
        raise ValueError(f"test set {name!r} has no recipe; choose from {', '.join(RECIPES)}")
    generator = torch.Generator().manual_seed(seed)
    return RECIPES[name](images, generator)
