"""What a run writes down about itself: ``record.json`` and ``metrics.json``, whole at every moment."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import secrets
import socket
import subprocess
import sys
import time
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from framework import __version__

RECORD = "record.json"
METRICS = "metrics.json"
CONFIG = "config.yaml"


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: whoever reads it, or kills us meanwhile, finds the old content or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:  # unlike tempfile's, readable by whom the umask allows
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Strict JSON: NaN and infinity, which JSON has no word for, are written as strings."""
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class Record:
    """The life of one run, rewritten after every change. Several processes may hold it; the file is what counts."""

    def __init__(self, run_dir: Path, earlier_seconds: float = 0.0) -> None:
        self.path = run_dir / RECORD
        self._earlier = earlier_seconds
        self._clock = time.monotonic()

    @classmethod
    def open(cls, run_dir: Path, config: dict[str, Any], experiment: str, overrides: list[str]) -> Record:
        """Begin a run's record, or continue that of a run which is being resumed."""
        path = run_dir / RECORD
        if path.is_file():
            content = read_json(path)
            content["resumed"] = [*content.get("resumed", []), _now()]
            content.pop("reason", None)
            content.pop("finished", None)
        else:
            content = {
                "experiment": experiment,
                "description": config.get("description", ""),
                "started": _now(),
                "seed": config["seed"],
                "stages": config["stages"],
                "stages_done": [],
                "overrides": overrides,
                "metrics": {},
                "git": _git(run_dir),
            }
        content |= {
            "status": "running",
            "pid": os.getpid(),
            "host": {"name": socket.gethostname(), "platform": platform.platform(), "cpus": os.cpu_count()},
            "command": sys.argv,
            "versions": _versions(),
        }
        write_json(path, content)
        return cls(run_dir, float(content.get("duration_seconds", 0.0)))

    @classmethod
    def attach(cls, run_dir: Path) -> Record:
        """The record that another process of the same run has opened."""
        return cls(run_dir, float(read_json(run_dir / RECORD).get("duration_seconds", 0.0)))

    @property
    def content(self) -> dict[str, Any]:
        return read_json(self.path)

    def update(self, **changes: Any) -> None:
        content = self.content
        content |= changes
        content["duration_seconds"] = round(self._earlier + time.monotonic() - self._clock, 3)
        content["peak_memory_bytes"] = max(peak_memory(), content.get("peak_memory_bytes", 0))
        write_json(self.path, content)

    def stage_done(self, stage: str, metrics: dict[str, float]) -> None:
        content = self.content
        merged = {**content["metrics"], **metrics}
        write_json(self.path.with_name(METRICS), merged)
        self.update(stages_done=[*content["stages_done"], stage], metrics=merged)

    def close(self, status: str, reason: str = "") -> None:
        self.update(status=status, finished=_now(), **({"reason": reason} if reason else {}))


def peak_memory() -> int:
    """The largest resident set of this process so far, in bytes; with a GPU, the record adds what torch allocated."""
    unit = 1 if sys.platform == "darwin" else 1024
    total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        total += torch.cuda.max_memory_allocated()
    return total


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _versions() -> dict[str, str]:
    from framework.plugins import healthy

    names = ["torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "wandb"]
    found = {"python": platform.python_version(), "framework": __version__}
    for name in [*names, *(p.distribution for p in healthy())]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def _git(run_dir: Path) -> dict[str, Any] | None:
    """The commit of the repository the run was launched from; uncommitted changes go to ``git.diff``."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout

    try:
        commit, root = git("rev-parse", "HEAD", "--show-toplevel").decode().splitlines()
        diff = git("-C", root, "diff", "--no-ext-diff", "--no-color", "--binary", "HEAD")
        untracked = git("-C", root, "ls-files", "--others", "--exclude-standard", "-z").decode(errors="replace")
    except (OSError, subprocess.CalledProcessError):
        return None
    if diff:
        write_bytes(run_dir / "git.diff", diff)  # in whatever encoding the changed files have
    names = untracked.split("\0")[:-1]
    return {"commit": commit, "dirty": bool(diff or names), "untracked": names[:100]}
