"""MNIST, affNIST, and test sets transformed by affine and projective maps."""

from plugins.liegroups.data.affnist import affnist_files, load_affnist, read_affnist
from plugins.liegroups.data.idx import load_mnist, parse_idx, read_idx
from plugins.liegroups.data.module import CanvasMNIST
from plugins.liegroups.data.recipes import RECIPES, make_set
from plugins.liegroups.data.warp import (
    affnist_like,
    affnist_like_maps,
    fit_translations,
    gl2_maps,
    homography_maps,
    pad_to_canvas,
    rotation_maps,
    warp,
)

__all__ = [
    "RECIPES", "CanvasMNIST", "affnist_files", "affnist_like", "affnist_like_maps", "fit_translations", "gl2_maps",
    "homography_maps", "load_affnist", "load_mnist", "make_set", "pad_to_canvas", "parse_idx", "read_affnist",
    "read_idx", "rotation_maps", "warp",
]  # fmt: skip
