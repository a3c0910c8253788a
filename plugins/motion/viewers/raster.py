"""Skeletons as pixels, for GIF and MP4: an orthographic view drawn with Pillow, milliseconds a frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from plugins.motion.viewers.clip import Clip

INK, SOFT, FLOOR, GIVEN = (28, 37, 48), (102, 115, 131), (223, 228, 234), (154, 165, 177)
SIDES = {0: (57, 67, 79), 1: (217, 72, 15), 2: (29, 111, 209)}


def frames(
    clips: Sequence[Clip],
    size: int = 240,
    columns: int | None = None,
    yaw: float = 28.0,
    pitch: float = 14.0,
    oversample: int = 2,
) -> Iterator[Image.Image]:
    """RGB images of the clips side by side, one for each frame of the longest; shorter clips wait on their last.

    Args:
        size: pixels a clip, in each direction, beside its caption.
        columns: clips a row; at most five when omitted.
        yaw, pitch: of the camera, in degrees. It follows the root.
        oversample: drawn so many times larger and averaged, for smooth lines.

    Raises:
        ValueError: no clips, or clips of different frame rates.
    """
    if not clips:
        raise ValueError("nothing to draw: give at least one clip")
    rates = {clip.fps for clip in clips}
    if len(rates) > 1:
        raise ValueError(f"clips of one picture must share a frame rate, not {sorted(rates)}")
    columns = min(len(clips), columns or 5)
    rows = math.ceil(len(clips) / columns)
    caption = 44
    # video encoders want even sides
    width, height = columns * size + columns * size % 2, rows * (size + caption) + rows * (size + caption) % 2
    font = ImageFont.load_default(12)
    base = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(base)
    for i, clip in enumerate(clips):
        left, top = i % columns * size, i // columns * (size + caption)
        lines = ([clip.title] if clip.title else []) + _wrapped(clip.prompt, font, size - 16)
        for k, line in enumerate(lines[:3]):
            pen.text((left + 8, top + size + 14 * k), line, fill=INK if k == 0 and clip.title else SOFT, font=font)
    for t in range(max(len(clip) for clip in clips)):
        picture = base.copy()
        for i, clip in enumerate(clips):
            cell = _draw(clip, min(t, len(clip) - 1), size * oversample, yaw, pitch, oversample)
            corner = (i % columns * size, i // columns * (size + caption))
            picture.paste(cell.resize((size, size), Image.Resampling.BOX), corner)
        yield picture


def _draw(clip: Clip, t: int, size: int, yaw: float, pitch: float, pen_width: int) -> Image.Image:
    positions = clip.positions.numpy()
    low, high = positions[..., 1].min(), positions[..., 1].max()
    root = np.array([positions[t, 0, 0], (low + high) / 2, positions[t, 0, 2]])
    scale = size / 2 / (max(high - low, 0.5) * 0.62)
    a, b = math.radians(yaw), math.radians(pitch)
    right = np.array([math.cos(a), 0, -math.sin(a)])
    up = np.array([-math.sin(a) * math.sin(b), math.cos(b), -math.cos(a) * math.sin(b)])

    def project(points: np.ndarray) -> list[tuple[float, float]]:
        relative = points - root
        return [
            (size / 2 + x * scale, size / 2 - y * scale)
            for x, y in zip(relative @ right, relative @ up, strict=True)
        ]

    image = Image.new("RGB", (size, size), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    reach = math.ceil(max(high - low, 0.5) * 1.4)
    gx, gz = round(float(root[0])), round(float(root[2]))
    for i in range(-reach, reach + 1):
        for ends in (
            [(gx + i, low, gz - reach), (gx + i, low, gz + reach)],
            [(gx - reach, low, gz + i), (gx + reach, low, gz + i)],
        ):
            pen.line(project(np.array(ends)), fill=FLOOR, width=pen_width)
    place = project(positions[t])
    given = clip.generated is not None and not bool(clip.generated[t])
    for parent, child, side in clip.bones:
        pen.line([place[parent], place[child]], fill=GIVEN if given else SIDES[side], width=3 * pen_width)
    return image


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
