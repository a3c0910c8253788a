"""Shell completion where Hydra has none: experiments, which lie in folders, and the framework's own commands."""

from __future__ import annotations

import re

from framework import plugins


def complete(line: str) -> list[str] | None:
    """The completions of a command line's last word, or None where Hydra knows better."""
    words = re.split(r"\s+", line.lstrip())
    if words[0].startswith("python"):
        words = words[words.index("framework") :] if "framework" in words else words
    last = words[-1]
    if match := re.match(r"(\+?experiment=)", last):
        return [
            name for name in (f"{match.group(1)}{e}" for e in sorted(plugins.experiments())) if name.startswith(last)
        ]
    if len(words) == 2 and "=" not in last:
        from framework.__main__ import VERBS

        return [word for word in (*VERBS, "+experiment=", "-m") if word.startswith(last)] or None
    if len(words) == 3 and words[1] == "show":
        return [name for name in sorted(plugins.experiments()) if name.startswith(last)]
    if len(words) == 3 and words[1] == "check":
        return [plugin.name for plugin in plugins.healthy() if plugin.name.startswith(last)]
    return None
