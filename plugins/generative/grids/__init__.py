"""Time grids: where a sampler evaluates the denoiser, as strictly decreasing noise levels ``sigma_tilde``."""

from .grids import angular, append_zero, check_grid, explicit, karras, log_snr, time_quadratic, time_uniform

__all__ = [
    "angular",
    "append_zero",
    "check_grid",
    "explicit",
    "karras",
    "log_snr",
    "time_quadratic",
    "time_uniform",
]
