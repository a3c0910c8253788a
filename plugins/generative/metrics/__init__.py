"""Metrics of generated samples: distances between samples, and what a classifier says about them."""

from plugins.generative.metrics.classification import class_coverage, class_shares, classifier_confidence
from plugins.generative.metrics.distances import frechet_distance, sliced_wasserstein
from plugins.generative.metrics.floor import matched_subsets
from plugins.generative.metrics.reference import Reference

__all__ = [
    "Reference",
    "class_coverage",
    "class_shares",
    "classifier_confidence",
    "frechet_distance",
    "matched_subsets",
    "sliced_wasserstein",
]
