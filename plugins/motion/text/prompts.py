"""Sentences for labels: several ways to say each, the last of which is held out of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

# each phrase is (who, what); the last of every list is for testing alone
STYLES: dict[str, tuple[str, ...]] = {
    "active": ("an energetic person", "a person full of energy", "a lively person", "a vigorous person",
               "an active person"),
    "elderly": ("an elderly person", "an old person", "a frail senior", "an aged person", "a very old person"),
    "exhausted": ("an exhausted person", "a very tired person", "a weary person", "a fatigued person",
                  "a worn-out person"),
    "feminine": ("a person with a feminine manner", "a woman", "a female person", "a feminine person",
                 "a person moving like a woman"),
    "masculine": ("a person with a masculine manner", "a man", "a male person", "a masculine person",
                  "a person moving like a man"),
    "normal": ("a person", "someone", "a human", "an ordinary person", "somebody"),
    "youthful": ("a youthful person", "a young person", "a teenager", "an adolescent", "a person in their youth"),
}  # fmt: skip
CONTENTS: dict[str, tuple[str, ...]] = {
    "raise-up-both-hands": (
        "raises both hands",
        "lifts both arms up",
        "puts both hands up in the air",
        "is holding up both arms",
    ),
    "raise-up-left-hand": (
        "raises the left hand",
        "lifts the left arm up",
        "puts the left hand up in the air",
        "is holding up the left arm",
    ),
    "raise-up-right-hand": (
        "raises the right hand",
        "lifts the right arm up",
        "puts the right hand up in the air",
        "is holding up the right arm",
    ),
    "run": ("runs", "runs forward", "jogs straight ahead", "is running"),
    "walk": ("walks", "walks forward", "strolls straight ahead", "is walking"),
    "walk-turn-left": (
        "walks and turns left",
        "turns to the left while walking",
        "walks forward and then makes a left turn",
        "takes a few steps, turning left",
    ),
    "walk-turn-right": (
        "walks and turns right",
        "turns to the right while walking",
        "walks forward and then makes a right turn",
        "takes a few steps, turning right",
    ),
    "wave-both-hands": (
        "waves both hands",
        "waves with both arms",
        "greets by waving both hands",
        "is waving both arms",
    ),
    "wave-left-hand": (
        "waves the left hand",
        "waves with the left arm",
        "greets by waving the left hand",
        "is waving the left arm",
    ),
    "wave-right-hand": (
        "waves the right hand",
        "waves with the right arm",
        "greets by waving the right hand",
        "is waving the right arm",
    ),
}


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The sentences of every pair of labels: each style phrase with each content phrase.

    Args:
        contents: content label → what is done, at least 2 phrases each; the last is held out.
        styles: style label → who does it, likewise.

    Raises:
        ValueError: a label has fewer than two phrases, or a held-out phrase is a training phrase of its label.
    """

    contents: Mapping[str, Sequence[str]]
    styles: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        for kind in (self.contents, self.styles):
            for label, phrases in kind.items():
                if len(phrases) < 2:
                    raise ValueError(f"label {label!r} needs at least two phrases: the last is held out of training")
                if phrases[-1] in phrases[:-1]:
                    raise ValueError(f"the held-out phrase {phrases[-1]!r} of label {label!r} is a training phrase too")

    def train(self, content: str, style: str) -> list[str]:
        """All sentences for training."""
        return [f"{who} {what}" for who in self.styles[style][:-1] for what in self.contents[content][:-1]]

    def held_out(self, content: str, style: str) -> str:
        """The sentence for testing, whose phrases training never sees for this content and style."""
        return f"{self.styles[style][-1]} {self.contents[content][-1]}"

    def canonical(self, content: str, style: str) -> str:
        """The plainest sentence, for titles and tables."""
        return f"{self.styles[style][0]} {self.contents[content][0]}"


def prompts_for(contents: Iterable[str], styles: Iterable[str]) -> Prompts:
    """Prompts of label names: the phrases above where a label is known, else phrases made of its words."""
    return Prompts(
        {
            label: CONTENTS.get(label) or _spelled(label, ("does {}", "performs {}", "acts out {}"))
            for label in contents
        },
        {
            label: STYLES.get(label) or _spelled(label, ("a {} person", "a person in {} style", "someone {}"))
            for label in styles
        },
    )


def _spelled(label: str, templates: tuple[str, ...]) -> tuple[str, ...]:
    words = label.replace("-", " ").replace("_", " ").strip()
    return tuple(template.format(words) for template in templates)
