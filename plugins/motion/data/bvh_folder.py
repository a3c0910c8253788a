"""BVH files with labels in their names: a folder, a tar or a zip archive."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from framework.data import data_dir
from framework.errors import DataMissing
from plugins.motion.bvh import parse, pose, select_joints
from plugins.motion.data.cache import cached, fingerprint
from plugins.motion.data.clips import Clips, join
from plugins.motion.data.module import MotionData
from plugins.motion.skeletons import BANDAI_NAMCO, HUMANML3D, KIT, Skeleton, skeleton_from_names

SKELETONS = {"bandai_namco": BANDAI_NAMCO, "humanml3d": HUMANML3D, "kit": KIT}


def bvh_texts(source: Path) -> Iterator[tuple[str, str]]:
    """Name without suffix and text of every BVH file in a folder or archive, in no particular order."""
    if source.is_dir():
        for path in sorted(source.rglob("*.bvh")):
            yield path.stem, path.read_text()
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for member in archive.namelist():
                if member.lower().endswith(".bvh"):
                    yield Path(member).stem, archive.read(member).decode()
    else:
        with tarfile.open(source, "r|*") as archive:
            for entry in archive:
                if entry.isfile() and entry.name.lower().endswith(".bvh"):
                    yield Path(entry.name).stem, archive.extractfile(entry).read().decode()  # type: ignore[union-attr]


def few_texts(source: Path, pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """Of every pair of labels the first two and the last file by name, read in one pass."""
    cells: dict[tuple[str, str] | None, list[tuple[str, str]]] = {}
    for name, text in bvh_texts(source):
        own = cells.setdefault(label(name, pattern), [])
        own.append((name, text))
        own.sort()
        del own[2:-1]
    return [one for own in cells.values() for one in own]


def label(name: str, pattern: re.Pattern[str]) -> tuple[str, str] | None:
    """Content and style of a file name; None where the pattern does not fit. A missing style is ``normal``."""
    found = pattern.fullmatch(name)
    if not found:
        return None
    groups = found.groupdict()
    return groups["content"], groups.get("style") or "normal"


def read_clips(
    source: Path,
    pattern: re.Pattern[str],
    contents: Sequence[str],
    styles: Sequence[str],
    skeleton: Skeleton,
    scale: float,
    stride: int,
    few: bool = False,
) -> Clips:
    """Joint positions of all files whose labels are wanted, in order of their names.

    Args:
        source: folder or archive.
        pattern: of the file names, with a group ``content`` and, if there are styles, ``style``.
        contents, styles: the labels wanted, in order of their numbers.
        skeleton: the joints wanted, by name.
        scale: units of the files → metres.
        stride: keep every so many frames.
        few: only the first two and the last clip, by name, of every pair of labels.

    Raises:
        ValueError: a file is damaged or lacks a joint (names it), or nothing fits.
    """
    found: list[tuple[str, torch.Tensor, int, int]] = []
    texts = few_texts(source, pattern) if few else bvh_texts(source)
    for name, text in tqdm(texts, desc=f"reading {source.name}", unit=" clips", leave=False):
        labels = label(name, pattern)
        if not labels or labels[0] not in contents or labels[1] not in styles:
            continue
        try:
            motion = pose(*parse(text, stride), scale=scale)
            positions = select_joints(motion.positions, motion.skeleton.names, skeleton)
        except ValueError as error:
            raise ValueError(f"{source}: {name}: {error}") from error
        found.append((name, positions.float(), contents.index(labels[0]), styles.index(labels[1])))
    if not found:
        raise ValueError(f"{source} has no BVH file whose name fits {pattern.pattern!r} with the labels asked for")
    found.sort(key=lambda one: one[0])
    names, clips, content, style = zip(*found, strict=True)
    return join(clips, list(names), torch.tensor(content), torch.tensor(style))


def names_in(source: Path) -> list[str]:
    """Names without suffix of the BVH files in a folder or archive, sorted."""
    if source.is_dir():
        found = [path.stem for path in source.rglob("*.bvh")]
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            found = [Path(m).stem for m in archive.namelist() if m.lower().endswith(".bvh")]
    else:
        with tarfile.open(source, "r|*") as archive:
            found = [Path(e.name).stem for e in archive if e.isfile() and e.name.lower().endswith(".bvh")]
    return sorted(found)


class BVHFolder(MotionData):
    """Any BVH files with labels in their names.

    Args:
        path: folder, tar or zip archive; relative ones are looked for below the data folder.
        pattern: regular expression of a file's name without suffix; its group ``content`` is the content label, its
            group ``style``, if there is one, the style label.
        skeleton: ``bandai_namco``, ``humanml3d`` or ``kit`` where the files have joints of those names; else a mapping
            that names the files' own ``right_hip``, ``left_hip``, ``right_shoulder``, ``left_shoulder`` and, for
            contacts and skating, ``left_ankle``, ``left_toe``, ``right_ankle``, ``right_toe``, and the hands
            ``left_wrist``, ``right_wrist``. The joints are then all those of the first file.
        scale: units of the files → metres.
        stride: keep every so many frames.
        representation, text, frames, unit_length, batch_size, test_fraction, mirror, workers, fast: as ``MotionData``.

    Raises:
        DataMissing: there is nothing at ``path``.
        ValueError: no name fits the pattern, or a named joint does not exist.
    """

    def __init__(
        self,
        path: str,
        pattern: str = r"(?P<content>.+)_(?P<style>[^_]+)_(?P<id>\d+)",
        skeleton: str | Mapping[str, str] = "bandai_namco",
        scale: float = 0.01,
        stride: int = 1,
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
        source = Path(path).expanduser()
        source = source if source.is_absolute() else data_dir() / source
        if not source.exists():
            raise DataMissing(
                f"There is no folder or archive of BVH files at {source}: put it there, or set data.path."
            )
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error
        if "content" not in compiled.groupindex:
            raise ValueError(f"pattern {pattern!r} needs a group (?P<content>…)")
        labels = [found for name in names_in(source) if (found := label(name, compiled))]
        if not labels:
            raise ValueError(f"{source} has no BVH file whose name fits {pattern!r}")
        first = next(text for name, text in bvh_texts(source) if label(name, compiled))
        header, _, fps = parse(first, stride)
        body = SKELETONS.get(skeleton) if isinstance(skeleton, str) else _named(header, scale, skeleton)
        if body is None:
            raise ValueError(f"skeleton {skeleton!r} must be one of {', '.join(SKELETONS)}, or name the joints")
        super().__init__(
            body,
            round(fps, 3),
            sorted({content for content, _ in labels}),
            sorted({style for _, style in labels}),
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
        self.source, self.pattern, self.scale, self.stride = source, compiled, scale, stride

    def load(self) -> tuple[dict[str, Any], Clips]:
        key = {
            "source": fingerprint(self.source),
            "pattern": self.pattern.pattern,
            "labels": [self.contents, self.styles],
            "joints": self.skeleton.names,
            "scale": self.scale,
            "stride": self.stride,
            "fast": self.fast,
        }
        return key, Clips(**cached("positions", key, lambda: self._read().as_dict()))

    def _read(self) -> Clips:
        return read_clips(
            self.source, self.pattern, self.contents, self.styles, self.skeleton, self.scale, self.stride, self.fast
        )


def _named(header: Any, scale: float, joints: Mapping[str, str]) -> Skeleton:
    offsets = torch.tensor(header.offsets, dtype=torch.float64) * scale
    return skeleton_from_names(header.names, header.parents, offsets, joints)
