"""Sequence classification data: digits, MNIST, spoken digits and the long range arena."""

from plugins.state_space.data.digits import DigitsData
from plugins.state_space.data.loading import SequenceData, collate

__all__ = ["DigitsData", "SequenceData", "collate"]
