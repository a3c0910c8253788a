"""Text as a condition: encoders of sentences, and the sentences that stand for labels."""

from plugins.motion.text.encoders import Clip, Hashing, LabelEmbedding, MiniLM, Standardized, TextEncoder
from plugins.motion.text.prompts import CONTENTS, STYLES, Prompts, prompts_for

__all__ = [
    "CONTENTS",
    "STYLES",
    "Clip",
    "Hashing",
    "LabelEmbedding",
    "MiniLM",
    "Prompts",
    "Standardized",
    "TextEncoder",
    "prompts_for",
]
