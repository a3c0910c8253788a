"""Groups as interchangeable objects; ``make_group`` builds the built-in ones by name."""

from plugins.liegroups.groups.base import LieGroup, random_elements
from plugins.liegroups.groups.discrete import Cyclic, Dihedral
from plugins.liegroups.groups.homography import CentredHomographies, Homographies
from plugins.liegroups.groups.linear import GeneralLinear, SpecialLinear, polar_log_density, symmetric_basis
from plugins.liegroups.groups.orthogonal import SpecialOrthogonal
from plugins.liegroups.groups.registry import BUILT_IN, make_group
from plugins.liegroups.groups.semidirect import SemidirectProduct, affine, similarity, special_euclidean
from plugins.liegroups.groups.similarity import ScaledRotations

__all__ = [
    "BUILT_IN", "CentredHomographies", "Cyclic", "Dihedral", "GeneralLinear", "Homographies", "LieGroup",
    "ScaledRotations", "SemidirectProduct", "SpecialLinear", "SpecialOrthogonal", "affine", "make_group",
    "polar_log_density", "random_elements", "similarity", "special_euclidean", "symmetric_basis",
]  # fmt: skip
