"""Inference acceleration: encoder propagation on networks with separate halves."""

from plugins.generative.acceleration.encoder_propagation import (
    PUBLISHED_50,
    EncoderPropagation,
    KeyStepPolicy,
    network_times,
    sample_with_prior_noise,
)

__all__ = ["PUBLISHED_50", "EncoderPropagation", "KeyStepPolicy", "network_times", "sample_with_prior_noise"]
