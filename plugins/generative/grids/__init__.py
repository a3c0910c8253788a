"""Time grids: where a sampler evaluates the denoiser, as strictly decreasing noise levels ``sigma_tilde``."""

from .grids import append_zero, check_grid, explicit, karras, log_snr, rho_power, time_quadratic, time_uniform

__all__ = [
    "append_zero",
    "check_grid",
    "explicit",
    "karras",
    "log_snr",
    "rho_power",
    "time_quadratic",
    "time_uniform",
]
