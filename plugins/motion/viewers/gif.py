"""Motions as an animated GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plugins.motion.viewers.clip import Clip
from plugins.motion.viewers.raster import frames


def write_gif(path: str | Path, clips: Sequence[Clip], **view: Any) -> Path:
    """Write an endlessly repeating GIF and return its path.

    GIF counts in hundredths of a second, so 15 fps plays at 14.3.

    Args:
        view: of `raster.frames`: size, columns, yaw, pitch.
    """
    path = Path(path)
    pictures = [picture.quantize(64) for picture in frames(clips, **view)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=max(20, round(100 / clips[0].fps) * 10),
        loop=0,
    )
    return path
