"""Matrix functions that stay accurate, and keep finite gradients, where the textbook formulas do not."""

from plugins.liegroups.linalg.general import exp_2x2, log_2x2, matrix_log, no_real_log_2x2, phi1
from plugins.liegroups.linalg.polar import polar_log, polar_log_2x2, rotation_2x2
from plugins.liegroups.linalg.rotation import cross_matrix, nearest_rotation, so3_exp, so3_log
from plugins.liegroups.linalg.scalar import log_sinhc, stumpff
from plugins.liegroups.linalg.symmetric import sym_exp, sym_log, sym_sqrt

__all__ = [
    "cross_matrix", "exp_2x2", "log_2x2", "log_sinhc", "matrix_log", "nearest_rotation", "no_real_log_2x2", "phi1",
    "polar_log", "polar_log_2x2", "rotation_2x2", "so3_exp", "so3_log", "stumpff", "sym_exp", "sym_log", "sym_sqrt",
]  # fmt: skip
