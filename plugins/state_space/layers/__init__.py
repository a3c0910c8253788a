"""State-space layers. Each maps (batch, length, d_model) to the same shape, as convolution, scan or recurrence."""

from plugins.state_space.layers.base import StateSpaceLayer, length_mask
from plugins.state_space.layers.lstm import LSTMLayer
from plugins.state_space.layers.parameters import POLICIES, ROLES, parameter_groups
from plugins.state_space.layers.s4 import S4
from plugins.state_space.layers.s4d import S4D, S4PTD
from plugins.state_space.layers.s5 import S5, S5PTD

__all__ = [
    "POLICIES",
    "ROLES",
    "S4",
    "S4D",
    "S4PTD",
    "S5",
    "S5PTD",
    "LSTMLayer",
    "StateSpaceLayer",
    "length_mask",
    "parameter_groups",
]
