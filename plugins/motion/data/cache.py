"""What is slow to make, made once and kept under a name that tells all its settings."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framework.data import keep, load_kept

VERSION = 1  # raise when what is cached is computed differently, so that old files are not taken for new results


def cache_folder() -> Path:
    """``$MOTION_CACHE``, else ``motion`` in the framework's part of the platform's cache folder."""
    if chosen := os.environ.get("MOTION_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("framework") / "motion"


def cached(kind: str, settings: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` returns (tensors and plain containers), from the cache folder if it is there.

    Args:
        kind: start of the file's name.
        settings: everything that determines the result, JSON-able.
        make: does the work. A folder that cannot be written to is no error: the work is done again next time.
    """
    key = json.dumps({"version": VERSION, **settings}, sort_keys=True)
    path = cache_folder() / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    if (kept := load_kept(path)) is not None:
        return kept
    result = make()
    with contextlib.suppress(OSError):
        keep(path, result)
    return result


def fingerprint(path: Path) -> str:
    """Tells whether a file or folder is still the same: by sizes and, of a file, its first and last MiB."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                status = file.stat()
                digest.update(f"{file.relative_to(path)} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read())
    return digest.hexdigest()[:16]
