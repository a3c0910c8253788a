"""Generated and decoded data, made once and kept under a name that tells all their settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import torch

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
    if path.is_file():
        try:
            return torch.load(path, weights_only=True)
        except Exception:
            # a damaged file is worth no more than a missing one
            path.unlink(missing_ok=True)
    result = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(result, temporary)
    temporary.replace(path)
    return result
