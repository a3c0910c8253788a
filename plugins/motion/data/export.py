"""Labelled clips written in HumanML3D's official layout, for tools that read no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from plugins.motion.data.clips import tail_split
from plugins.motion.data.module import MotionData
from plugins.motion.representation import HumanML3D, Normalizer


def export_humanml3d(data: MotionData, folder: str | Path, compatible: bool = True, feat_bias: float = 1.0) -> Path:
    """Write ``new_joints``, ``new_joint_vecs``, ``texts``, ``{train,val,test,all}.txt``, ``Mean.npy`` and ``Std.npy``.

    Features are HumanML3D's 12J − 1 numbers a frame. Every clip gets all sentences of its labels, the held-out one only
    in the test split; validation is the test split again, as there is no third. Words carry the tag ``OTHER``, as no
    tagger is at hand. ``Std.npy`` is group-wise.

    Args:
        data: where ``load()`` gives joint positions; its skeleton needs ``chains`` and ``feet``.
        folder: made if it does not exist.
        compatible: with the quirks of the published features, as ``HumanML3D``.
        feat_bias: as ``Normalizer.fit``; the evaluators of Guo et al. (2022) are trained with 5.

    Raises:
        FileExistsError: the folder holds such data already.
        ValueError: the skeleton lacks what is needed.
    """
    representation = HumanML3D(data.skeleton, compatible, data.fps)
    folder = Path(folder)
    if (folder / "new_joint_vecs").exists():
        raise FileExistsError(f"{folder} holds motion already: choose another folder, or remove it first")
    _, clips = data.load()
    train, test = tail_split(clips, data.test_fraction)
    for name in ("new_joints", "new_joint_vecs", "texts"):
        (folder / name).mkdir(parents=True)
    ids = [f"{i:06d}" for i in range(len(clips))]
    rows = []
    testing = set(test)
    for i, name in enumerate(tqdm(ids, desc=f"writing {folder.name}", leave=False)):
        positions = clips[i].double()
        features = representation.encode(positions).float()
        np.save(folder / "new_joint_vecs" / f"{name}.npy", features.numpy())
        np.save(folder / "new_joints" / f"{name}.npy", representation.canonicalize(positions).float().numpy())
        labels = data.contents[int(clips.content[i])], data.styles[int(clips.style[i])]
        sentences = [data.prompts.held_out(*labels)] if i in testing else data.prompts.train(*labels)
        lines = [f"{s}#{' '.join(f'{word}/OTHER' for word in s.split())}#0.0#0.0\n" for s in sentences]
        (folder / "texts" / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
        if i not in testing:
            rows.append(features)
    for part, members in {"train": train, "val": test, "test": test, "all": range(len(ids))}.items():
        (folder / f"{part}.txt").write_text("".join(f"{ids[i]}\n" for i in members), encoding="utf-8")
    statistics = Normalizer.fit(torch.cat(rows), representation.groups, feat_bias)
    np.save(folder / "Mean.npy", statistics.mean.numpy())
    np.save(folder / "Std.npy", statistics.std.numpy())
    return folder
