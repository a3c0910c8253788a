"""What a sweep leaves behind: one table of overrides against metrics, with the failures last."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from framework.record import RECORD, read_json, write_text

COMMAND = "sweep.yaml"
SHOWN_METRICS = 8


class SweepRecord(Callback):
    """Writes down, before the first job, the overrides with which the sweep can be continued."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / COMMAND).is_file():
            hydra = OmegaConf.to_container(config.hydra.overrides.hydra)
            assert isinstance(hydra, list)
            content = {
                "overrides": [
                    *OmegaConf.to_container(config.hydra.overrides.task),  # type: ignore[misc]
                    *(o for o in hydra if not str(o).startswith(("hydra.sweep.dir=", "hydra.mode="))),
                ],
                "optimized_metric": config.get("optimized_metric"),
            }
            write_text(folder / COMMAND, yaml.safe_dump(content))


def jobs(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The jobs of a sweep in their order, with their records."""
    found = [
        (path.parent, read_json(path)) for path in folder.glob(f"*/{RECORD}") if ".superseded" not in path.parent.name
    ]
    return sorted(found, key=lambda job: (len(job[0].name), job[0].name))


def summarise(folder: Path) -> list[tuple[str, str]]:
    """Write ``sweep.csv`` and ``sweep.md``, print the table, list the failures last.

    Returns:
        (job, reason) of each job that did not finish.
    """
    found = jobs(folder)
    if not found:
        return []
    overrides = [dict(o.lstrip("+~").partition("=")[::2] for o in record["overrides"]) for _, record in found]
    varied = [k for k in dict.fromkeys(k for o in overrides for k in o) if len({o.get(k) for o in overrides}) > 1]
    metrics = list(dict.fromkeys(name for _, record in found for name in record["metrics"]))
    header = ["job", *varied, "status", "seconds", *metrics]
    rows = [
        [
            path.name,
            *(o.get(k, "") for k in varied),
            record["status"],
            record.get("duration_seconds", ""),
            *(record["metrics"].get(name, "") for name in metrics),
        ]
        for (path, record), o in zip(found, overrides, strict=True)
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(folder / "sweep.csv", text.getvalue())
    shown = _shown(folder, metrics)
    columns = [i for i, name in enumerate(header) if name not in metrics or name in shown]
    table = markdown([[str_(row[i]) for i in columns] for row in [header, *rows]])
    write_text(folder / "sweep.md", table)
    print(table)
    if len(shown) < len(metrics):
        print(f"({len(metrics) - len(shown)} more metrics in {folder / 'sweep.csv'})")
    failures = [
        (path.name, record.get("reason", record["status"])) for path, record in found if record["status"] != "finished"
    ]
    if failures:
        print(f"\n{len(failures)} of {len(found)} jobs did not finish:", file=sys.stderr)
        for name, reason in failures:
            print(f"  {folder / name}: {reason}", file=sys.stderr)
    print(f"Sweep: {folder}")
    return failures


def _shown(folder: Path, metrics: list[str]) -> set[str]:
    path = folder / COMMAND
    optimised = yaml.safe_load(path.read_text()).get("optimized_metric") if path.is_file() else None
    first = [optimised] if optimised in metrics else []
    return set([*first, *(m for m in metrics if m != optimised)][:SHOWN_METRICS])


def markdown(rows: list[list[str]]) -> str:
    """A table in Markdown, its first row the header, columns aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]) + "\n"


def str_(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
