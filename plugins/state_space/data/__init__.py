"""Sequence classification data: digits, MNIST, spoken digits; the long range arena is in ``lra``."""

from plugins.state_space.data.digits import DigitsData
from plugins.state_space.data.loading import SequenceData, Sequences, collate
from plugins.state_space.data.mnist import SequentialMNISTData
from plugins.state_space.data.speech import SpeechDigitsData

__all__ = ["DigitsData", "SequenceData", "Sequences", "SequentialMNISTData", "SpeechDigitsData", "collate"]
