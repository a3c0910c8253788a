"""The scaling law of floating-point quantized training: its consequences, its fit to runs, and the runs."""

from plugins.generative.scaling_law.fit import FitResult, TrainingRun, fit
from plugins.generative.scaling_law.law import CHANNEL_BLOCK_SIZE, PUBLISHED, ScalingLaw
from plugins.generative.scaling_law.penalty import PenaltyFit, fit_penalty, paired_penalties
from plugins.generative.scaling_law.quantized_training import PAPER_TARGETS, TARGETS, BlockQuantizer, QuantizedLinear
from plugins.generative.scaling_law.runs import DenoiserEnsemble, DenoisingTask, train_runs

__all__ = [
    "CHANNEL_BLOCK_SIZE",
    "PAPER_TARGETS",
    "PUBLISHED",
    "TARGETS",
    "BlockQuantizer",
    "DenoiserEnsemble",
    "DenoisingTask",
    "FitResult",
    "PenaltyFit",
    "QuantizedLinear",
    "ScalingLaw",
    "TrainingRun",
    "fit",
    "fit_penalty",
    "paired_penalties",
    "train_runs",
]
