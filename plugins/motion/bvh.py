"""BVH files, read and written as the format has it: channels in the order they are named, positions instead of offsets.

A joint with position channels is placed by them, relative to its parent, in place of its OFFSET; some data sets move
the body by the position channels of a joint below the root, which readers that look at the root alone get wrong.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor

from plugins.motion.kinematics import fit_skeleton, fk, ik
from plugins.motion.rotations import euler_to_quaternion, matrix_to_euler, normalize, quaternion_to_matrix
from plugins.motion.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class BVH:
    """A motion of T frames of a skeleton of J joints.

    Args:
        skeleton: names, parents and offsets, in the file's units times the reader's ``scale``.
        rotations: (T, J, 4) local quaternions (w, x, y, z).
        translations: (T, J, 3) where each joint sits in its parent's frame; the offsets, unless channels say else.
        fps: frames a second.
    """

    skeleton: Skeleton
    rotations: Tensor
    translations: Tensor
    fps: float

    def __len__(self) -> int:
        return len(self.rotations)

    @cached_property
    def positions(self) -> Tensor:
        """Global joint positions (T, J, 3)."""
        return fk(self.rotations, self.translations[:, 0], self.skeleton, self.translations)[0]


@dataclasses.dataclass(frozen=True)
class Header:
    """The HIERARCHY part: joints and, for each, its channel names in order."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: tuple[tuple[float, float, float], ...]
    channels: tuple[tuple[str, ...], ...]

    @property
    def width(self) -> int:
        return sum(len(c) for c in self.channels)


CHANNELS = {f"{axis}{kind}".lower(): (kind, axis) for axis in "XYZ" for kind in ("position", "rotation")}


def parse_header(text: str) -> Header:
    """Parse everything before ``MOTION``.

    Raises:
        ValueError: no hierarchy, unbalanced braces or an unknown channel.
    """
    words = text.split()
    if not words or words[0].upper() != "HIERARCHY":
        raise ValueError("this is no BVH file: it does not start with HIERARCHY")
    names: list[str] = []
    parents: list[int] = []
    offsets: list[tuple[float, float, float]] = []
    channels: list[tuple[str, ...]] = []
    open_joints: list[int] = []  # −1 stands for an end site
    pending = -2
    at = 1
    try:
        while at < len(words):
            word = words[at].upper()
            if word in ("ROOT", "JOINT"):
                if word == "ROOT" and names:
                    raise ValueError("this BVH file has more than one ROOT: split it")
                names.append(words[at + 1])
                parents.append(open_joints[-1] if open_joints else -1)
                offsets.append((0.0, 0.0, 0.0))
                channels.append(())
                pending, at = len(names) - 1, at + 2
            elif word == "END":
                pending, at = -1, at + 2
            elif word == "{":
                open_joints.append(pending)
                at += 1
            elif word == "}":
                open_joints.pop()
                at += 1
            elif word == "OFFSET":
                if open_joints[-1] >= 0:
                    x, y, z = (float(w) for w in words[at + 1 : at + 4])
                    offsets[open_joints[-1]] = (x, y, z)
                at += 4
            elif word == "CHANNELS":
                count = int(words[at + 1])
                own = tuple(w.lower() for w in words[at + 2 : at + 2 + count])
                unknown = [c for c in own if c not in CHANNELS]
                if unknown:
                    raise ValueError(f"joint {names[open_joints[-1]]} has an unknown channel {unknown[0]!r}")
                channels[open_joints[-1]] = own
                at += 2 + count
            else:
                raise ValueError(f"unexpected word {words[at]!r} in the hierarchy")
    except IndexError:
        raise ValueError("the hierarchy ends too early or its braces do not match") from None
    if open_joints or not names:
        raise ValueError("the hierarchy ends too early or its braces do not match")
    return Header(tuple(names), tuple(parents), tuple(offsets), tuple(channels))


def parse(text: str, stride: int = 1) -> tuple[Header, np.ndarray, float]:
    """A file's header, channel values (T, C) of every ``stride``-th frame, and frames a second after striding.

    Raises:
        ValueError: the text is no BVH file, or its numbers do not fill whole frames.
    """
    if stride < 1:
        raise ValueError(f"stride must be at least 1, not {stride}")
    head, found, motion = text.partition("MOTION")
    header = parse_header(head)
    opening = re.match(r"\s*Frames:\s*(\d+)\s*Frame Time:\s*(\S+)[ \t]*\r?\n?", motion)
    if not found or not opening:
        raise ValueError("this BVH file has no MOTION part with Frames: and Frame Time:")
    frames, frame_time = int(opening[1]), float(opening[2])
    if not frame_time > 0:
        raise ValueError(f"Frame Time must be positive, not {opening[2]}")
    lines = motion[opening.end() :].strip().splitlines()
    if len(lines) == frames:  # one frame a line, as nearly all files have it: parse only those wanted
        values = np.array(" ".join(lines[::stride]).split(), dtype=np.float64)
        wanted = len(lines[::stride])
    else:
        values = np.array(motion[opening.end() :].split(), dtype=np.float64)
        wanted = frames
    if values.size != wanted * header.width:
        raise ValueError(
            f"{wanted} frames of {header.width} channels need {wanted * header.width} numbers, "
            f"the file has {values.size}"
        )
    values = values.reshape(wanted, header.width)
    return header, values if len(lines) == frames else values[::stride], 1 / (frame_time * stride)


def read_bvh(source: str | Path | TextIO, scale: float = 1.0, stride: int = 1) -> BVH:
    """Read a BVH file.

    Args:
        source: a path, or an open text file.
        scale: units of the file → units of the result; 0.01 for files in centimetres.
        stride: keep every so many frames.

    Raises:
        ValueError: the file is not BVH; names the file and what is wrong.
    """
    text = source.read() if hasattr(source, "read") else Path(source).read_text()
    try:
        return pose(*parse(text, stride), scale=scale)
    except ValueError as error:
        raise ValueError(f"{getattr(source, 'name', source)}: {error}") from error


def pose(header: Header, values: np.ndarray, fps: float, scale: float = 1.0) -> BVH:
    """Channel values (T, C) as local rotations and translations."""
    data = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
    offsets = torch.tensor(header.offsets, dtype=torch.float64)
    frames, joints = len(data), len(header.names)
    translations = offsets.expand(frames, joints, 3).clone()
    rotations = torch.zeros(frames, joints, 4, dtype=torch.float64)
    rotations[..., 0] = 1
    column = 0
    by_order: dict[str, tuple[list[int], list[list[int]]]] = {}
    for j, channels in enumerate(header.channels):
        order, columns = "", []
        for channel in channels:
            kind, axis = CHANNELS[channel]
            if kind == "position":
                translations[:, j, "XYZ".index(axis)] = data[:, column]
            else:
                order += axis
                columns.append(column)
            column += 1
        if order:
            # a joint with fewer than three rotation channels has angle zero about the axes that are missing
            order += "".join(a for a in "XYZ" if a not in order)
            columns += [-1] * (3 - len(columns))
            group = by_order.setdefault(order, ([], []))
            group[0].append(j)
            group[1].append(columns)
    padded = torch.cat([torch.deg2rad(data), torch.zeros(frames, 1, dtype=torch.float64)], 1)
    for order, (which, columns) in by_order.items():
        rotations[:, which] = euler_to_quaternion(padded[:, torch.tensor(columns)], order)
    skeleton = Skeleton(header.names, header.parents, offsets * scale)
    return BVH(skeleton, rotations, translations * scale, fps)


def from_positions(positions: Tensor, skeleton: Skeleton, fps: float, fit: bool = True) -> BVH:
    """A BVH motion of joint positions (T, J, 3), by inverse kinematics.

    Args:
        skeleton: tree and rest pose.
        fit: take bone lengths, and the offsets of branching joints, from the positions; else keep the skeleton's.
    """
    positions = positions.detach().double().cpu()
    if positions.ndim != 3 or not len(positions):
        raise ValueError(f"positions must be (T, J, 3) with at least one frame, not {tuple(positions.shape)}")
    if fit:
        skeleton = fit_skeleton(positions, skeleton)
    rotations, root = ik(positions, skeleton)
    translations = skeleton.offsets.expand(len(positions), -1, -1).clone()
    translations[:, 0] = root
    return BVH(skeleton, rotations, translations, fps)


def format_bvh(motion: BVH, scale: float = 1.0, order: str = "ZXY") -> str:
    """The text of a BVH file: six channels at the root, three rotations at every other joint.

    Joints other than the root keep their offsets: a motion whose translations move within the body (not only at the
    root) is first to be turned into one that does not, with ``from_positions(motion.positions, ...)``.

    Args:
        scale: units of the motion → units of the file; 100 writes metres as centimetres.
        order: of the rotation channels.

    Raises:
        ValueError: joints below the root move in their parents' frames.
    """
    skeleton = motion.skeleton
    drift = (motion.translations[:, 1:] - skeleton.offsets[1:]).abs().amax() if len(skeleton) > 1 else torch.tensor(0.0)
    if drift > 1e-3 * skeleton.offsets.abs().amax().clamp(min=1e-9):
        raise ValueError(
            f"joints below the root move by up to {drift:.3g} in their parents' frames, which three channels cannot "
            "say; pass from_positions(motion.positions, skeleton, fps)"
        )
    lines = ["HIERARCHY"]

    def write(j: int, depth: int) -> None:
        tab = "\t" * depth
        x, y, z = (0.0, 0.0, 0.0) if j == 0 else (float(v) * scale for v in skeleton.offsets[j])
        rotation = " ".join(f"{axis}rotation" for axis in order.upper())
        lines.append(f"{tab}{'JOINT' if j else 'ROOT'} {skeleton.names[j]}")
        lines.append(f"{tab}{{")
        lines.append(f"{tab}\tOFFSET {x:.6f} {y:.6f} {z:.6f}")
        lines.append(
            f"{tab}\tCHANNELS 3 {rotation}" if j else f"{tab}\tCHANNELS 6 Xposition Yposition Zposition {rotation}"
        )
        for child in skeleton.children[j]:
            write(child, depth + 1)
        if not skeleton.children[j]:
            # a short stump in the bone's own direction, so that viewers can draw the last bone
            bone = normalize(skeleton.offsets[j]) * 0.2 * torch.linalg.vector_norm(skeleton.offsets[j])
            x, y, z = (float(v) * scale for v in bone)
            lines.extend([f"{tab}\tEnd Site", f"{tab}\t{{", f"{tab}\t\tOFFSET {x:.6f} {y:.6f} {z:.6f}", f"{tab}\t}}"])
        lines.append(f"{tab}}}")

    write(0, 0)
    angles = torch.rad2deg(matrix_to_euler(quaternion_to_matrix(motion.rotations), order))
    # depth-first order of the tree above, which need not be the skeleton's own order
    depth_first = _depth_first(skeleton)
    values = torch.cat([motion.translations[:, 0] * scale, angles[:, depth_first].flatten(1)], 1)
    table = io.StringIO()
    np.savetxt(table, values.numpy(), fmt="%.6f")
    return "\n".join(
        [*lines, "MOTION", f"Frames: {len(motion)}", f"Frame Time: {1 / motion.fps:.8f}", table.getvalue()]
    )


def write_bvh(path: str | Path, motion: BVH, scale: float = 100.0, order: str = "ZXY") -> Path:
    """Write ``format_bvh(motion)``; by default metres become centimetres. Blender and others open it, y up."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(format_bvh(motion, scale, order))
    return path


def round_trip_error(positions: Tensor, skeleton: Skeleton, fps: float, scale: float = 100.0) -> Tensor:
    """Distances (T, J), in the units of ``positions``, between a motion and itself written to BVH and read again."""
    again = read_bvh(io.StringIO(format_bvh(from_positions(positions, skeleton, fps), scale)), 1 / scale)
    order = [again.skeleton.names.index(name) for name in skeleton.names]
    return torch.linalg.vector_norm(again.positions[:, order] - positions.double().cpu(), dim=-1)


def _depth_first(skeleton: Skeleton) -> list[int]:
    order: list[int] = []
    stack = [0]
    while stack:
        j = stack.pop()
        order.append(j)
        stack.extend(reversed(skeleton.children[j]))
    return order


def select_joints(positions: Tensor, names: Iterable[str], wanted: Skeleton) -> Tensor:
    """The joints of ``wanted``, in its order, out of positions (…, J, 3) of joints called ``names``.

    Raises:
        ValueError: a joint of ``wanted`` is missing.
    """
    names = list(names)
    missing = [name for name in wanted.names if name not in names]
    if missing:
        raise ValueError(f"the file has no joint {missing[0]!r}; it has {', '.join(names)}")
    return positions[..., [names.index(name) for name in wanted.names], :]
