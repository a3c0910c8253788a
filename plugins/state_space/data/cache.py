"""Generated and decoded data, made once and kept under a name that tells all their settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from framework.data import keep, load_kept
from plugins.state_space.ptd.cache import cache_folder


def cached(kind: str, settings: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` returns (tensors and plain containers), from the cache folder if it is there.

    Args:
        kind: start of the file's name.
        settings: everything that determines the result, JSON-able.
        make: does the work.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / f"{kind}-{digest}.pt"
    if (kept := load_kept(path)) is not None:
        return kept
    result = make()
    keep(path, result)
    return result
