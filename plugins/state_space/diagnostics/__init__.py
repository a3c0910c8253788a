"""What a system does, frequency by frequency: resolvents, transfer functions, deviation from HiPPO, energy."""

from plugins.state_space.diagnostics.energy import h2_norm
from plugins.state_space.diagnostics.frequency import (
    apriori_bound,
    deviation_sup,
    diagonal_resolvent,
    frequency_grid,
    hippo_resolvent,
    resolvent,
    transfer_function,
)

__all__ = [
    "apriori_bound",
    "deviation_sup",
    "diagonal_resolvent",
    "frequency_grid",
    "h2_norm",
    "hippo_resolvent",
    "resolvent",
    "transfer_function",
]
