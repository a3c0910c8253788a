"""Judges: an evaluator trained on the training split and frozen, and the protocol that all generators go through."""

from plugins.motion.evaluation.clips import LabelledClips, cell_numbers
from plugins.motion.evaluation.network import Judgement, MotionEvaluator
from plugins.motion.evaluation.protocol import Judge, Sampler, evaluate, stratified_order
from plugins.motion.evaluation.table import EvaluationTable, Sample
from plugins.motion.evaluation.training import (
    EvaluatorSettings,
    cached_evaluator,
    fingerprint,
    held_out_scores,
    train_evaluator,
)

__all__ = [
    "EvaluationTable",
    "EvaluatorSettings",
    "Judge",
    "Judgement",
    "LabelledClips",
    "MotionEvaluator",
    "Sample",
    "Sampler",
    "cached_evaluator",
    "cell_numbers",
    "evaluate",
    "fingerprint",
    "held_out_scores",
    "stratified_order",
    "train_evaluator",
]
