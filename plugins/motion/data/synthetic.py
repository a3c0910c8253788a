"""Stick figures that walk, turn, run, raise and wave: motion with the real clips' labels, for where those are not."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from plugins.motion.data.clips import Clips, join
from plugins.motion.data.module import MotionData
from plugins.motion.kinematics import fk
from plugins.motion.rotations import axis_quaternion, identity_quaternion, quaternion_multiply
from plugins.motion.skeletons import BANDAI_NAMCO
from plugins.motion.text.prompts import CONTENTS, STYLES

# pace of the limbs in cycles a second, and size of their swing, of every style
MANNERS = {
    "active": (1.25, 1.3),
    "elderly": (0.6, 0.6),
    "exhausted": (0.5, 0.8),
    "feminine": (0.95, 0.85),
    "masculine": (0.9, 1.1),
    "normal": (0.9, 1.0),
    "youthful": (1.1, 1.15),
}


def stick_figure(content: str, style: str, frames: int, fps: float, generator: torch.Generator) -> Tensor:
    """Joint positions (frames, 21, 3) in metres of one figure; pace, size and phase vary with the generator.

    Raises:
        ValueError: an unknown label, or fewer than two frames.
    """
    if content not in CONTENTS or style not in MANNERS:
        raise ValueError(f"no stick figure does {content!r} in the style {style!r}")
    if frames < 2:
        raise ValueError(f"a motion needs at least 2 frames, not {frames}")
    skeleton, names = BANDAI_NAMCO, BANDAI_NAMCO.names
    vary = 1 + 0.1 * torch.randn(2, generator=generator, dtype=torch.float64)
    pace, size = (float(m * v) for m, v in zip(MANNERS[style], vary, strict=True))
    time = torch.arange(frames, dtype=torch.float64) / fps
    phase = 2 * math.pi * (pace * time + float(torch.rand((), generator=generator)))
    rotations = identity_quaternion(frames, len(skeleton), dtype=torch.float64).clone()
    yaw = torch.zeros_like(time)

    def bend(joint: str, axis: str, angle: Tensor) -> None:
        turn = axis_quaternion(axis, angle)
        rotations[:, names.index(joint)] = quaternion_multiply(rotations[:, names.index(joint)], turn)

    speed = 0.0
    if content.startswith(("walk", "run")):
        stride = size * (1.5 if content == "run" else 0.8)
        speed = pace * size * (3.0 if content == "run" else 1.3)
        for side, sign in (("L", 1.0), ("R", -1.0)):
            swing = sign * phase.sin()
            bend(f"UpperLeg_{side}", "x", -0.5 * stride * swing)
            bend(f"LowerLeg_{side}", "x", 0.6 * stride * (sign * phase.cos()).clamp_min(0))
            bend(f"UpperArm_{side}", "x", 0.4 * stride * swing)
        if "turn" in content:
            yaw = (1 if content.endswith("left") else -1) * size * time
    else:
        ease = (1.2 * pace * time).clamp(max=1)
        raised = 2.4 * size**0.25 * (3 * ease**2 - 2 * ease**3)
        for side, word, sign in (("L", "left", 1.0), ("R", "right", -1.0)):
            if word in content or "both" in content:
                bend(f"UpperArm_{side}", "z", sign * raised)
                if content.startswith("wave"):
                    bend(f"LowerArm_{side}", "z", sign * 0.5 * size * (2 * phase).sin() * ease)
    rotations[:, 0] = axis_quaternion("y", yaw)
    path = speed / fps * torch.stack([yaw.sin(), torch.zeros_like(yaw), yaw.cos()], -1).cumsum(0)
    positions, _ = fk(rotations, path, skeleton)
    # stand on the floor
    return positions - positions[..., 1].amin(-1)[:, None, None] * positions.new_tensor([0.0, 1.0, 0.0])


class StickFigures(MotionData):
    """Procedural motion with the labels, skeleton and frame rate of ``BandaiNamco``; needs no file.

    Args:
        clips_per_cell: figures of every (content, style).
        figure_seed: of their variations.
        representation, text, frames, unit_length, batch_size, test_fraction, mirror, workers, fast: as ``MotionData``.
    """

    def __init__(
        self,
        clips_per_cell: int = 20,
        figure_seed: int = 0,
        representation: str = "essential",
        text: str = "hashing",
        frames: int = 64,
        unit_length: int = 4,
        batch_size: int = 64,
        test_fraction: float = 0.2,
        mirror: bool = False,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        if clips_per_cell < 2:
            raise ValueError(f"clips_per_cell must be at least 2, one to train and one to test; got {clips_per_cell}")
        super().__init__(
            BANDAI_NAMCO,
            15.0,
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
        self.clips_per_cell, self.figure_seed = 2 if fast else clips_per_cell, figure_seed

    def load(self) -> tuple[dict[str, Any], Clips]:
        generator = torch.Generator().manual_seed(self.figure_seed)
        figures, names, content, style = [], [], [], []
        for c, doing in enumerate(self.contents):
            for s, manner in enumerate(self.styles):
                for k in range(self.clips_per_cell):
                    frames = int(torch.randint(self.frames // 2, self.frames + 1, (), generator=generator)) + 1
                    figures.append(stick_figure(doing, manner, frames, self.fps, generator).float())
                    names.append(f"{doing}_{manner}_{k:03d}")
                    content.append(c)
                    style.append(s)
        key = {"stick figures": [self.clips_per_cell, self.figure_seed, self.frames]}
        return key, join(figures, names, torch.tensor(content), torch.tensor(style))
