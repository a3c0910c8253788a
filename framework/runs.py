"""Runs after the fact: find them, compare them, have their model back in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from framework.errors import UserError
from framework.record import CONFIG, RECORD, read_json


@dataclass
class Run:
    """A run folder. ``record``, ``config`` and ``metrics`` are plain containers; ``model`` is built when asked for."""

    path: Path
    record: dict[str, Any]
    config: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        return self.record["metrics"]

    @property
    def checkpoint(self) -> Path:
        """The weights after training, else the newest that can be read.

        Raises:
            UserError: the run has none.
        """
        final = self.path / "checkpoints" / "final.ckpt"
        if final.is_file():
            return final
        from framework.resume import newest_checkpoint

        newest = newest_checkpoint(self.path)
        if newest is None:
            raise UserError(
                f"The run {self.path} has no checkpoint: it did not train, or was stopped before the first."
            )
        return newest

    @property
    def model(self) -> Any:
        """The LightningModule with the run's weights, on the CPU, in evaluation mode. Built anew at each call."""
        import torch

        from framework.build import build

        model = build(self.config["model"])
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        model.on_load_checkpoint(state)
        model.load_state_dict(state["state_dict"])
        return model.eval()

    @property
    def data(self) -> Any:
        """The run's LightningDataModule, as configured."""
        from framework.build import build
        from framework.data import using

        with using(self.config["paths"]["data"]):
            return build(self.config["data"])


def load_run(folder: str | Path) -> Run:
    """A run from its folder, wherever that has been moved: ``load_run("runs/…").model`` has the trained weights.

    Raises:
        UserError: the folder is not that of a run.
    """
    path = Path(folder).expanduser().absolute()
    if not (path / RECORD).is_file() or not (path / CONFIG).is_file():
        inside = sorted(p.parent.name for p in path.glob(f"*/{RECORD}"))
        hint = f" It holds the runs {', '.join(inside)}." if inside else ""
        raise UserError(f"{folder} is not a run folder: it has no {RECORD} and {CONFIG}.{hint}")
    config = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
    return Run(path, read_json(path / RECORD), moved(config, Path(config["paths"]["run"]), path))


def moved(config: Any, old: Path, new: Path) -> Any:
    """The same config with every path into the old run folder pointing into the new one."""
    if isinstance(config, dict):
        return {k: moved(v, old, new) for k, v in config.items()}
    if isinstance(config, list):
        return [moved(v, old, new) for v in config]
    if isinstance(config, str) and (config == str(old) or config.startswith(f"{old}/")):
        return str(new) + config[len(str(old)) :]
    return config


def find(root: Path, experiment: str = "", status: str = "") -> Iterator[Run]:
    """Every readable run below a folder, oldest first; ``experiment`` may be a part of the name."""
    found = []
    for path in root.rglob(RECORD):
        if ".superseded" in path.parent.name:
            continue
        try:
            run = load_run(path.parent)
        except (UserError, ValueError, yaml.YAMLError):
            continue
        if experiment in run.record.get("experiment", "") and status in run.record["status"]:
            found.append(run)
    return iter(sorted(found, key=lambda run: run.record["started"]))


def differing_keys(runs: list[Run], most: int = 12) -> list[str]:
    """The config keys, beyond paths, in which some of the runs differ."""
    from framework.config import leaves

    flat = [dict(leaves(run.config)) for run in runs]
    paths = [str(run.path) for run in runs]
    out = []
    for key in dict.fromkeys(k for one in flat for k in one):
        values = [str(one.get(key, "")).replace(path, "") for one, path in zip(flat, paths, strict=True)]
        if len(set(values)) > 1 and not key.startswith("paths.") and key != "description":
            out.append(key)
    return out[:most]
