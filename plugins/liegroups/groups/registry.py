"""Built-in groups by name, for config files and studies."""

from __future__ import annotations

from collections.abc import Callable

from plugins.liegroups.groups.base import LieGroup
from plugins.liegroups.groups.discrete import Cyclic, Dihedral
from plugins.liegroups.groups.homography import CentredHomographies, Homographies
from plugins.liegroups.groups.linear import GeneralLinear, SpecialLinear
from plugins.liegroups.groups.orthogonal import SpecialOrthogonal
from plugins.liegroups.groups.semidirect import affine, similarity, special_euclidean
from plugins.liegroups.groups.similarity import ScaledRotations

BUILT_IN: dict[str, Callable[[], LieGroup]] = {
    "so2": lambda: SpecialOrthogonal(2),
    "so3": lambda: SpecialOrthogonal(3),
    "se2": lambda: special_euclidean(2),
    "se3": lambda: special_euclidean(3),
    "sim2": lambda: similarity(2),
    "scaled_so2": lambda: ScaledRotations(2),
    "sl2": lambda: SpecialLinear(2),
    "sl3": lambda: SpecialLinear(3),
    "gl2": lambda: GeneralLinear(2),
    "gl3": lambda: GeneralLinear(3),
    "aff2": lambda: affine(2),
    "homography": Homographies,
    "centred_homography": CentredHomographies,
    "c4": lambda: Cyclic(4),
    "c8": lambda: Cyclic(8),
    "d4": lambda: Dihedral(4),
    "d8": lambda: Dihedral(8),
}


def make_group(name: str) -> LieGroup:
    """The built-in group called ``name``. Raises ValueError listing the names for an unknown one."""
    if name not in BUILT_IN:
        raise ValueError(f"group={name!r} is not built in; choose one of {', '.join(sorted(BUILT_IN))}")
    return BUILT_IN[name]()
