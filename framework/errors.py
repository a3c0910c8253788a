"""The errors a user sees without a traceback, and how a name close to a misspelt one is found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: printed as its message alone, exit status 1."""


class ConfigError(UserError):
    """The composed config cannot become a run. Lists every problem found, not just the first."""

    def __init__(self, problems: Iterable[str], title: str = "This config cannot run") -> None:
        self.problems = list(problems)
        super().__init__(f"{title}:\n" + "\n".join(f"  - {problem}" for problem in self.problems))


class DataMissing(UserError):
    """A data file is neither here nor to be had; the message says what to fetch, from where, and where to put it."""


class Interrupted(BaseException):
    """A signal asked the run to stop. Not an Exception, so that no handler mistakes it for a failed job."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"stopped by signal {signum}")

    def __reduce__(self):
        return Interrupted, (self.signum,)

    @property
    def exit_status(self) -> int:
        return 128 + self.signum


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint that names what the user probably meant, or lists the choices when there are few."""
    names = sorted({str(n) for n in names})
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    if 0 < len(names) <= 12:
        return f" Choose from: {', '.join(names)}."
    return ""
