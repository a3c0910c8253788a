"""The table an evaluation ends in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from plugins.motion.metrics import Interval

COLUMNS = {
    "frechet_distance": "Fréchet",
    "accuracy_content": "content",
    "accuracy_style": "style",
    "physical": "physical",
    "left_right": "left/right",
    "r_precision_1": "R@1",
    "r_precision_2": "R@2",
    "r_precision_3": "R@3",
    "matching": "matching",
    "diversity": "diversity",
    "multimodality": "multimod.",
    "skating": "skating",
    "acceleration_rms": "accel. m/s²",
    "bone_drift": "bones cm",
    "seconds_per_clip": "s/clip",
    "seconds_per_clip_batched": "s/clip batched",
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One motion of a row to look at: positions (T, J, 3), the text it was asked for, and where it is from."""

    row: str
    positions: Tensor
    text: str
    content: str
    style: str


@dataclasses.dataclass(frozen=True)
class EvaluationTable:
    """What an evaluation found.

    Attributes:
        rows: row → metric (the keys of `COLUMNS`) → mean and interval over seeds.
        clips: row → clips judged for each seed.
        checks: row → content label → share of motions that pass its physical check.
        samples: motions of the first seed to look at, the same prompts for every row.
        sha256: of the evaluator's weights.
        notes: what else is to be known: the held-out accuracy of the evaluator, sizes, thresholds.
    """

    rows: Mapping[str, Mapping[str, Interval]]
    clips: Mapping[str, int]
    checks: Mapping[str, Mapping[str, float]]
    samples: tuple[Sample, ...]
    sha256: str
    notes: Mapping[str, float]

    def metrics(self) -> dict[str, float]:
        """Flat: ``<metric>/<row>``, ``<metric>_ci95/<row>`` with several seeds, ``clips/<row>``, ``evaluator/...``.

        The first 48 bits of the evaluator's hash are there as two numbers of 24 bits, which float32 holds exactly.
        """
        flat: dict[str, float] = {}
        for row, cells in self.rows.items():
            for metric, interval in cells.items():
                if math.isfinite(interval.mean):
                    flat[f"{metric}/{row}"] = interval.mean
                    if len(interval.values) > 1:
                        flat[f"{metric}_ci95/{row}"] = interval.half_width
            flat[f"clips/{row}"] = float(self.clips[row])
        flat["evaluator/sha256_bits_0_24"] = float(int(self.sha256[:6], 16))
        flat["evaluator/sha256_bits_24_48"] = float(int(self.sha256[6:12], 16))
        return flat | {f"evaluator/{name}": value for name, value in self.notes.items()}

    def markdown(self) -> str:
        """The table as Markdown, mean ± half width of the 95 % interval."""
        shown = [m for m in COLUMNS if any(m in cells for cells in self.rows.values())]
        lines = [
            "| row | clips | " + " | ".join(COLUMNS[m] for m in shown) + " |",
            "|---|--:|" + "--:|" * len(shown),
        ]
        for row, cells in self.rows.items():
            values = [str(cells[m]) if m in cells and math.isfinite(cells[m].mean) else "" for m in shown]
            lines.append(f"| {row} | {self.clips[row]} | " + " | ".join(values) + " |")
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """Everything but the motions, for JSON."""
        return {
            "rows": {
                row: {
                    m: {"mean": i.mean, "half_width": i.half_width, "values": list(i.values)} for m, i in cells.items()
                }
                for row, cells in self.rows.items()
            },
            "clips": dict(self.clips),
            "physical_checks": {row: dict(c) for row, c in self.checks.items()},
            "evaluator_sha256": self.sha256,
            "notes": dict(self.notes),
        }
