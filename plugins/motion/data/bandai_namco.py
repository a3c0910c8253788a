"""Bandai-Namco-Research-Motiondataset-2: 10 contents in 7 styles, one skeleton, 30 frames a second (CC BY-NC 4.0)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from framework.data import data_dir
from framework.errors import DataMissing
from plugins.motion.data.bvh_folder import read_clips
from plugins.motion.data.cache import cached, fingerprint
from plugins.motion.data.clips import Clips
from plugins.motion.data.module import MotionData
from plugins.motion.skeletons import BANDAI_NAMCO
from plugins.motion.text.prompts import CONTENTS, STYLES

PLACES = ("motion/bandai-namco-2.tar.xz", "motion/bandai-namco-2.zip", "motion/bandai-namco-2")
PATTERN = re.compile(r"dataset-2_(?P<content>[^_]+)_(?P<style>[^_]+)_(?P<id>\d+)")


def find() -> Path:
    """The archive or folder below the data folder.

    Raises:
        DataMissing: it is not there; says where it comes from and where to put it.
    """
    for place in PLACES:
        if (data_dir() / place).exists():
            return data_dir() / place
    raise DataMissing(
        "Bandai-Namco-Research-Motiondataset-2 is missing (CC BY-NC 4.0: for research, with attribution).\n"
        "  Clone https://github.com/BandaiNamcoResearchInc/Bandai-Namco-Research-Motiondataset, and put\n"
        "  dataset/Bandai-Namco-Research-Motiondataset-2/data.zip\n"
        f"  at {data_dir() / PLACES[1]}\n"
        f"  (or the BVH files themselves below {data_dir() / PLACES[2]}, or in an archive {data_dir() / PLACES[0]}).\n"
        "  Every motion experiment also runs without it on stick figures: data=motion/synthetic."
    )


class BandaiNamco(MotionData):
    """Real motion capture: joint positions in metres, 21 joints, 15 frames a second with the default stride.

    Args:
        stride: keep every so many of the 30 frames a second.
        representation, text, frames, unit_length, batch_size, test_fraction, mirror, workers, fast: as ``MotionData``.
    """

    def __init__(
        self,
        stride: int = 2,
        representation: str = "essential",
        text: str = "minilm",
        frames: int = 64,
        unit_length: int = 4,
        batch_size: int = 64,
        test_fraction: float = 0.2,
        mirror: bool = False,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        if stride < 1:
            raise ValueError(f"stride must be at least 1, not {stride}")
        super().__init__(
            BANDAI_NAMCO,
            30 / stride,
            tuple(CONTENTS),
            tuple(STYLES),
            representation,
            text,
            frames,
            unit_length,
            batch_size,
            test_fraction,
            mirror,
            workers,
            fast,
        )
        self.stride = stride

    def prepare_data(self) -> None:
        find()

    def load(self) -> tuple[dict[str, Any], Clips]:
        source = find()
        key = {
            "bandai-namco": fingerprint(source),
            "labels": [self.contents, self.styles],
            "joints": self.skeleton.names,
            "stride": self.stride,
            "fast": self.fast,
        }
        return key, Clips(**cached("positions", key, lambda: self._read(source).as_dict()))

    def _read(self, source: Path) -> Clips:
        return read_clips(source, PATTERN, self.contents, self.styles, self.skeleton, 0.01, self.stride, self.fast)
