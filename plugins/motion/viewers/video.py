"""Motions as an MP4 (H.264), through the ffmpeg binary that imageio-ffmpeg brings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plugins.motion.viewers.clip import Clip
from plugins.motion.viewers.raster import frames


def write_mp4(path: str | Path, clips: Sequence[Clip], **view: Any) -> Path:
    """Write an MP4 that any browser plays and return its path.

    Args:
        view: of `raster.frames`: size, columns, yaw, pitch.

    Raises:
        ModuleNotFoundError: imageio-ffmpeg is not installed; names the extra.
    """
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError:
        raise ModuleNotFoundError("MP4 needs imageio-ffmpeg: install the extra framework[motion]") from None
    path = Path(path)
    pictures = frames(clips, **view)
    first = next(pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = imageio_ffmpeg.write_frames(
        str(path),
        first.size,
        fps=clips[0].fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-preset", "fast", "-threads", "1", "-movflags", "+faststart"],
    )
    writer.send(None)
    try:
        writer.send(first.tobytes())
        for picture in pictures:
            writer.send(picture.tobytes())
    finally:
        writer.close()
    return path
