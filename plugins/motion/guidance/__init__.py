"""Classifier-free guidance: conditions dropped in training, two answers combined in sampling."""

from .classifier_free import combine, drop_condition, guided

__all__ = ["combine", "drop_condition", "guided"]
