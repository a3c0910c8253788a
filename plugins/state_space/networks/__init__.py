"""Deep networks of state-space layers."""

from plugins.state_space.networks.block import ACTIVATIONS, NORMS, SequenceBlock
from plugins.state_space.networks.normalization import MaskedBatchNorm
from plugins.state_space.networks.sequence import PairClassifier, SequenceModel

__all__ = ["ACTIVATIONS", "NORMS", "MaskedBatchNorm", "PairClassifier", "SequenceBlock", "SequenceModel"]
