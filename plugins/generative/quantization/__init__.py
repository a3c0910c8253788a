"""Low-bit floating-point post-training quantization: formats, format search, rounding learning, whole networks."""

from plugins.generative.quantization.calibration import collect_inputs, collect_moments, noisy_batches
from plugins.generative.quantization.concatenation import find_concatenations
from plugins.generative.quantization.formats import (
    E2M1,
    E2M3,
    E3M2,
    E4M3FN,
    E5M2,
    Format,
    FPFormat,
    INTFormat,
    fp_splits,
    parse_format,
    parse_formats,
)
from plugins.generative.quantization.layers import QuantizedLayer
from plugins.generative.quantization.model import (
    LayerReport,
    QuantizationConfig,
    quantize_model,
    quantized,
    restore_model,
)
from plugins.generative.quantization.quantizer import Quantizer, absmax_quantizer, straight_through
from plugins.generative.quantization.rounding import Moments, RoundedWeight, learn_rounding, output_error
from plugins.generative.quantization.search import SearchResult, search_clip, search_format

__all__ = [
    "E2M1",
    "E2M3",
    "E3M2",
    "E4M3FN",
    "E5M2",
    "FPFormat",
    "Format",
    "INTFormat",
    "LayerReport",
    "Moments",
    "QuantizationConfig",
    "QuantizedLayer",
    "Quantizer",
    "RoundedWeight",
    "SearchResult",
    "absmax_quantizer",
    "collect_inputs",
    "collect_moments",
    "find_concatenations",
    "fp_splits",
    "learn_rounding",
    "noisy_batches",
    "output_error",
    "parse_format",
    "parse_formats",
    "quantize_model",
    "quantized",
    "restore_model",
    "search_clip",
    "search_format",
    "straight_through",
]
