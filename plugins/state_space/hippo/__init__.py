"""HiPPO systems: the matrices, their normal-plus-low-rank form, and what is known of LegS in closed form."""

from plugins.state_space.hippo.legendre import legs_impulse_response, legs_resolvent
from plugins.state_space.hippo.measures import MEASURES, hippo, rank_correction
from plugins.state_space.hippo.nplr import NPLR, nplr

__all__ = ["MEASURES", "NPLR", "hippo", "legs_impulse_response", "legs_resolvent", "nplr", "rank_correction"]
