"""A page that plays motions: one file, no network, opens anywhere."""

from __future__ import annotations

import base64
import html as escaping
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from plugins.motion.viewers.clip import Clip


def player_page(clips: Sequence[Clip], heading: str = "Motions", note: str = "") -> str:
    """The HTML of a player: 3-D skeletons side by side, with play, scrubbing and a camera to drag.

    Positions are kept to the millimetre, 16 bits a number. The address may end in ``#frame=20&play=0&yaw=90`` to open
    at a frame, paused, seen from an angle (yaw, pitch in degrees; zoom as a factor).

    Args:
        clips: in the order they are shown; those of one group side by side.
        heading, note: above the motions.

    Raises:
        ValueError: no clips, or a motion that leaves ±32 m.
    """
    if not clips:
        raise ValueError("the player needs at least one clip")
    data = json.dumps([_packed(clip) for clip in clips], ensure_ascii=False).replace("<", "\\u003c")
    page = files("plugins.motion.viewers").joinpath("player.html").read_text(encoding="utf-8")
    before, after = page.split("/*CLIPS*/")
    before = before.replace("<!--HEADING-->", escaping.escape(heading)).replace("<!--NOTE-->", escaping.escape(note))
    return before + data + after


def write_html(path: str | Path, clips: Sequence[Clip], heading: str = "Motions", note: str = "") -> Path:
    """Write `player_page` to a file and return its path."""
    path = Path(path)
    text = player_page(clips, heading, note)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _packed(clip: Clip) -> dict[str, object]:
    millimetres = (clip.positions * 1000).round()
    if float(millimetres.abs().max()) > 32767:
        raise ValueError(f"the motion {clip.title or clip.prompt!r} leaves the 32 m around the origin")
    return {
        "xyz": base64.b64encode(millimetres.numpy().astype("<i2").tobytes()).decode(),
        "frames": len(clip),
        "joints": len(clip.parents),
        "bones": clip.bones,
        "fps": clip.fps,
        "prompt": clip.prompt,
        "title": clip.title,
        "group": clip.group,
        "generated": None if clip.generated is None else clip.generated.int().tolist(),
    }
