"""Training objectives, each a function of a network and a batch, and a plain loop that minimises one."""

from plugins.generative.objectives.flow_matching import flow_matching_loss, stratified_times
from plugins.generative.objectives.training import fit_flow_matching

__all__ = ["fit_flow_matching", "flow_matching_loss", "stratified_times"]
