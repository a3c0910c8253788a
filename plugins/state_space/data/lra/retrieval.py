"""ACL Anthology Network: does one paper cite the other? Two documents, byte by byte."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from framework.data import fetch
from plugins.state_space.data.cache import cached
from plugins.state_space.data.loading import SequenceData

FOLDER = "aan"
FILES = {"train": "new_aan_pairs.train.tsv", "val": "new_aan_pairs.eval.tsv", "test": "new_aan_pairs.test.tsv"}
PAD, UNKNOWN, END, FIRST = 0, 1, 2, 3
VOCABULARY = FIRST + 128  # printable and control ASCII; anything else is unknown


def encode(text: str, max_length: int) -> Tensor:
    """ASCII codes + 3 of the first max_length − 1 characters, others unknown, and an end token; uint8."""
    codes = [FIRST + ord(c) if ord(c) < 128 else UNKNOWN for c in text[: max_length - 1]]
    return torch.tensor([*codes, END], dtype=torch.uint8)


def read_pairs(path: Path, max_length: int, limit: int | None = None) -> dict[str, Tensor]:
    """Label, two ids and two texts per line, tab-separated, as the arena's files have them.

    Raises:
        ValueError: a line of another form, by its number.
    """
    tokens: list[Tensor] = []
    lengths: list[int] = []
    labels: list[int] = []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        for number, row in enumerate(tqdm(rows, desc=f"reading {path.name}", unit="pair"), start=1):
            if limit is not None and len(labels) >= limit:
                break
            if len(row) != 5:
                raise ValueError(f"{path}, line {number}: five tab-separated fields expected, not {len(row)}")
            labels.append(int(float(row[0])))
            for text in row[3:]:
                tokens.append(encode(text, max_length))
                lengths.append(len(tokens[-1]))
    return {"tokens": torch.cat(tokens), "lengths": torch.tensor(lengths), "labels": torch.tensor(labels)}


class Pairs(Dataset):
    """Pairs of token sequences with a label, from what ``read_pairs`` returns."""

    def __init__(self, stored: dict[str, Tensor]) -> None:
        self.sequences = torch.split(stored["tokens"], stored["lengths"].tolist())
        self.labels = stored["labels"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        pair = (self.sequences[2 * index].long(), self.sequences[2 * index + 1].long())
        return pair, self.labels[index]


class RetrievalData(SequenceData):
    """147,086 training, 18,090 validation and 17,437 test pairs of papers.

    The files are part of the arena's release, one archive of 7.7 GB without a published checksum: they are not
    downloaded, but expected in the data folder under ``aan/`` (the error says which).

    Args:
        batch_size, workers, fast: as ``SequenceData``.
        max_length: longer documents are cut, the end token included.
        train_size, val_size, test_size: read only the first so many pairs; all when omitted.
    """

    def __init__(
        self,
        batch_size: int = 64,
        max_length: int = 4000,
        train_size: int | None = None,
        val_size: int | None = None,
        test_size: int | None = None,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, workers, fast)
        if max_length < 2:
            raise ValueError(f"max_length must be at least 2, not {max_length}")
        self.max_length = max_length
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        for part, name in FILES.items():
            path = fetch(f"{FOLDER}/{name}")
            settings = {
                "bytes": path.stat().st_size,
                "max_length": self.max_length,
                "limit": self.sizes[part],
                "part": part,
                "version": 1,
            }

            def read(path: Path = path, part: str = part) -> dict[str, Tensor]:
                return read_pairs(path, self.max_length, self.sizes[part])

            self.sets[part] = Pairs(cached("aan", settings, read))
