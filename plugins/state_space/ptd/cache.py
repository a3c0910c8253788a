"""Solutions kept on disk, named by everything that determines them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from plugins.state_space.ptd.solver import PTDResult, PTDSolver

VERSION = 1  # raise when the algorithm changes, so that old files are not taken for new results


def cache_folder() -> Path:
    """``$STATE_SPACE_CACHE``, else ``state_space`` below the user's cache folder."""
    if chosen := os.environ.get("STATE_SPACE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "framework" / "state_space"


def cached_solve(measure: str, n: int, solver: PTDSolver | None = None, folder: str | Path | None = None) -> PTDResult:
    """``solver.solve(measure, n)``, or the file that holds its result.

    Args:
        measure: a HiPPO measure.
        n: state size.
        solver: settings; the default solver when omitted.
        folder: where results are kept; ``cache_folder()`` when omitted. A folder that cannot be written is no error.
    """
    solver = solver or PTDSolver()
    settings = {f.name: getattr(solver, f.name) for f in dataclasses.fields(solver) if f.name != "progress"}
    key = json.dumps({"measure": measure, "n": n, "version": VERSION, **settings}, sort_keys=True)
    name = f"ptd-{measure}-{n}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    path = Path(folder or cache_folder()) / name
    if path.is_file():
        try:
            return PTDResult.load(path)
        except Exception:
            # a damaged file is worth no more than a missing one
            path.unlink(missing_ok=True)
    result = solver.solve(measure, n)
    try:
        result.save(path)
    except OSError:
        pass
    return result
