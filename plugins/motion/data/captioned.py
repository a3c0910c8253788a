"""HumanML3D and KIT-ML in their official layout: features and captions in files, no labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from framework.data import data_dir
from framework.errors import DataMissing
from plugins.motion.data.cache import cached
from plugins.motion.data.clips import Clips, MotionSet, collate, join
from plugins.motion.representation import Essential, HumanML3D, Normalizer
from plugins.motion.skeletons import HUMANML3D, KIT
from plugins.motion.text import Clip, Hashing, MiniLM, TextEncoder

DATASETS = {"humanml3d": (HUMANML3D, 20.0, "HumanML3D", 40), "kit": (KIT, 12.5, "KIT-ML", 24)}
ENCODERS = {"clip": Clip, "minilm": MiniLM, "hashing": lambda: Hashing(512)}


def read_captions(path: Path) -> list[tuple[str, float, float]]:
    """Lines ``caption#tokens#from#to`` of a file as (caption, from, to), in seconds; 0, 0 is the whole clip.

    Raises:
        ValueError: a line has another form; names file and line.
    """
    captions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        parts = line.strip().split("#")
        try:
            start, end = (0.0 if part == "nan" else float(part) for part in parts[2:4])
        except ValueError:
            raise ValueError(f"{path}:{number}: expected caption#tokens#from#to, got {line.strip()!r}") from None
        captions.append((parts[0].strip(), start, end))
    return captions


class CaptionedMotion(pl.LightningDataModule):
    """HumanML3D or KIT-ML: ``new_joint_vecs/*.npy``, ``texts/*.txt``, ``{train,val,test}.txt``, ``Mean.npy``.

    Clips of 40 (KIT: 24) to 199 frames; a caption with times is a clip of its own. Crops are multiples of four frames,
    with probability 1/3 one unit shorter (Guo et al. 2022). There is no automatic download: neither may be
    redistributed, and the error says where they come from.

    Args:
        dataset: ``humanml3d`` or ``kit``.
        folder: below the data folder; ``motion/HumanML3D`` or ``motion/KIT-ML`` when omitted.
        representation: ``essential`` (the first columns) or ``humanml3d`` (all).
        text: ``clip``, ``minilm`` or ``hashing``.
        frames, unit_length, batch_size, workers: as ``MotionData``.
        fast: the first few clips, the hashing encoder.

    Attributes after ``setup``: ``train_set``, ``val_set``, ``test_set``, ``normalizer`` (group-wise, fitted on the
    training split).
    """

    def __init__(
        self,
        dataset: str = "humanml3d",
        folder: str | None = None,
        representation: str = "humanml3d",
        text: str = "clip",
        frames: int = 196,
        unit_length: int = 4,
        batch_size: int = 64,
        workers: int = 4,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, not {dataset!r}")
        if representation not in ("essential", "humanml3d"):
            raise ValueError(f"representation must be essential or humanml3d, not {representation!r}")
        if text not in ENCODERS:
            raise ValueError(f"text must be one of {', '.join(ENCODERS)}, not {text!r}")
        self.skeleton, self.fps, place, self.shortest = DATASETS[dataset]
        self.folder = folder or f"motion/{place}"
        self.name = place
        kind = Essential if representation == "essential" else HumanML3D
        self.representation: Essential = kind(self.skeleton, compatible=True)
        self.text = "hashing" if fast else text
        self.frames, self.unit_length, self.batch_size = frames, unit_length, batch_size
        self.workers, self.fast = 0 if fast else workers, fast
        self._encoder: TextEncoder | None = None

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "train_set"):
            return
        root = data_dir() / self.folder
        if not (root / "new_joint_vecs").is_dir():
            source = "https://github.com/EricGuo5513/HumanML3D"
            raise DataMissing(
                f"{self.name} is missing: {root / 'new_joint_vecs'} does not exist.\n"
                f"  It may not be redistributed; {source} says how to make or request it.\n"
                "  Put its folder there, in the official layout (new_joint_vecs, texts, train.txt, val.txt, test.txt), "
                "or set data.folder."
            )
        parts = {part: self._read(root, part) for part in ("train", "val", "test")}
        self.normalizer = Normalizer.fit(parts["train"][0].frames, self.representation.groups)
        self.train_set, self.val_set, self.test_set = (
            self._set(*parts[part], random=part == "train") for part in ("train", "val", "test")
        )

    def _read(self, root: Path, part: str) -> tuple[Clips, list[list[str]]]:
        ids = (root / f"{part}.txt").read_text(encoding="utf-8").split()
        if self.fast:
            ids = ids[:16]
        clips: list[Tensor] = []
        names: list[str] = []
        texts: list[list[str]] = []
        width = 12 * len(self.skeleton) - 1
        for name in tqdm(ids, desc=f"{self.name} {part}", leave=False, disable=self.fast):
            path = root / "new_joint_vecs" / f"{name}.npy"
            if not path.is_file():
                continue  # the official lists name a few clips that the processing cannot make
            motion = torch.from_numpy(np.load(path, allow_pickle=False)).float()
            if motion.ndim != 2 or motion.shape[1] != width:
                raise ValueError(f"{path}: expected (frames, {width}) features, got {tuple(motion.shape)}")
            whole = []
            for caption, start, end in read_captions(root / "texts" / f"{name}.txt"):
                if start == end == 0:
                    whole.append(caption)
                    continue
                piece = motion[int(start * self.fps) : int(end * self.fps)]
                if self.shortest <= len(piece) < 200:
                    clips.append(piece)
                    names.append(f"{name}@{start:g}-{end:g}")
                    texts.append([caption])
            if whole and self.shortest <= len(motion) < 200:
                clips.append(motion)
                names.append(name)
                texts.append(whole)
        if not clips:
            raise ValueError(f"{root / f'{part}.txt'} names no clip of {self.shortest} to 199 frames with a caption")
        zeros = torch.zeros(len(clips))
        return join([clip[:, : self.representation.dim] for clip in clips], names, zeros, zeros), texts

    def _set(self, clips: Clips, texts: list[list[str]], random: bool) -> MotionSet:
        sentences = list(dict.fromkeys(text for own in texts for text in own))
        number = {text: i for i, text in enumerate(sentences)}
        clips.frames = self.normalizer.normalize(clips.frames)
        return MotionSet(
            clips,
            sentences,
            self.encode_text(sentences),
            [[number[text] for text in own] for own in texts],
            self.frames,
            self.unit_length,
            random=random,
            shorten=1 / 3,
        )

    @property
    def encoder(self) -> TextEncoder:
        if self._encoder is None:
            self._encoder = ENCODERS[self.text]()
        return self._encoder

    @property
    def text_dim(self) -> int:
        """Width of ``encode_text``."""
        return self.encoder.dim

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Vectors (B, ``text_dim``) of sentences, kept on disk."""

        def make() -> dict[str, Any]:
            return {"vectors": self.encoder.encode(list(texts))}

        return cached("captions", {"encoder": self.encoder.name, "sentences": list(texts)}, make)["vectors"]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            self.train_set, self.batch_size, shuffle=True, drop_last=not self.fast, num_workers=self.workers,
            collate_fn=collate,
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val_set, self.batch_size, num_workers=self.workers, collate_fn=collate)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test_set, self.batch_size, num_workers=self.workers, collate_fn=collate)
