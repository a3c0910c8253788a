"""Training objectives, each a function of a network and a batch."""

from plugins.generative.objectives.flow_matching import flow_matching_loss, stratified_times

__all__ = ["flow_matching_loss", "stratified_times"]
