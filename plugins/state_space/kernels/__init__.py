"""The inner loops: associative scans, Vandermonde and Cauchy kernels, FFT convolution."""

from plugins.state_space.kernels.cauchy import cauchy
from plugins.state_space.kernels.convolution import fast_length, fft_convolve
from plugins.state_space.kernels.scan import BACKENDS, associative_scan, hop_available
from plugins.state_space.kernels.vandermonde import chunked_powers_state, powers, vandermonde_kernel

__all__ = [
    "BACKENDS",
    "associative_scan",
    "cauchy",
    "chunked_powers_state",
    "fast_length",
    "fft_convolve",
    "hop_available",
    "powers",
    "vandermonde_kernel",
]
