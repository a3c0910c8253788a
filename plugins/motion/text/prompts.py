"""Sentences for labels: several ways to say each, the last of which is held out of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

# a sentence is who (a style) and what (a content); the last phrase of every list is for testing alone
STYLES: dict[str, tuple[str, ...]] = {
    "active": ("an energetic person", "a person full of energy", "a lively person", "an active person",
               "a very energetic person"),
    "elderly": ("an elderly person", "an old person", "a frail senior", "an aged person", "a very old person"),
    "exhausted": ("an exhausted person", "a very tired person", "a weary person", "a worn-out person",
                  "a fatigued person"),
    "feminine": ("a person with a feminine manner", "a woman", "a female person", "a feminine person",
                 "a person moving like a woman"),
    "masculine": ("a person with a masculine manner", "a man", "a male person", "a masculine person",
                  "a person moving like a man"),
    "normal": ("a person", "someone", "a human", "an ordinary person", "somebody"),
    "youthful": ("a youthful person", "a young person", "a teenager", "an adolescent", "a person in their youth"),
}  # fmt: skip


def _raising(hand: str, arm: str) -> tuple[str, ...]:
    return (f"raises {hand}", f"lifts {arm} up", f"puts {hand} up in the air", f"holds {hand} up high",
            f"is raising {arm}")  # fmt: skip


def _waving(hand: str, arm: str) -> tuple[str, ...]:
    return (f"waves {hand}", f"waves with {arm}", f"greets by waving {hand}", f"is waving with {hand}",
            f"is waving {arm}")  # fmt: skip


def _turning(side: str) -> tuple[str, ...]:
    return (f"walks and turns {side}", f"turns to the {side} while walking",
            f"walks forward and then makes a {side} turn", f"is walking round to the {side}",
            f"is walking and turning {side}")  # fmt: skip


CONTENTS: dict[str, tuple[str, ...]] = {
    "raise-up-both-hands": _raising("both hands", "both arms"),
    "raise-up-left-hand": _raising("the left hand", "the left arm"),
    "raise-up-right-hand": _raising("the right hand", "the right arm"),
    "run": ("runs", "runs forward", "jogs straight ahead", "is jogging", "is running"),
    "walk": ("walks", "walks forward", "strolls straight ahead", "takes a walk", "is walking"),
    "walk-turn-left": _turning("left"),
    "walk-turn-right": _turning("right"),
    "wave-both-hands": _waving("both hands", "both arms"),
    "wave-left-hand": _waving("the left hand", "the left arm"),
    "wave-right-hand": _waving("the right hand", "the right arm"),
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
