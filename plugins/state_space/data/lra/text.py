"""IMDb reviews, character by character."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor
from tqdm import tqdm

from framework.data import fetch
from plugins.state_space.data.cache import cached
from plugins.state_space.data.loading import SequenceData, Sequences

ARCHIVE, MD5 = "imdb/aclImdb_v1.tar.gz", "7c2ac02c03563afcf9b574c7e56c153a"
URLS = ["https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"]
MEMBER = re.compile(r"aclImdb/(?P<part>train|test)/(?P<label>pos|neg)/\d+_\d+\.txt")
PAD, UNKNOWN, END = 0, 1, 2
VOCABULARY = 135  # the published models have this many embeddings; min_frequency 15 stays below


def character_table(texts: Iterable[str], min_frequency: int = 15) -> dict[str, int]:
    """Character → code from 3 on, for characters that occur at least ``min_frequency`` times."""
    counts = Counter(character for text in texts for character in text)
    frequent = sorted(character for character, count in counts.items() if count >= min_frequency)
    return {character: code + 3 for code, character in enumerate(frequent)}


def encode(text: str, table: dict[str, int], max_length: int) -> Tensor:
    """Codes of the first max_length − 1 characters and an end token, int16."""
    codes = [table.get(character, UNKNOWN) for character in text[: max_length - 1]]
    return torch.tensor([*codes, END], dtype=torch.int16)


class TextData(SequenceData):
    """25,000 training and 25,000 test reviews, positive (1) or negative (0).

    Args:
        batch_size, workers, fast: as ``SequenceData``.
        max_length: longer reviews are cut, the end token included.
        min_frequency: rarer characters are unknown.
        train_size, test_size: use only so many, drawn with a fixed seed; all when omitted.
    """

    def __init__(
        self,
        batch_size: int = 16,
        max_length: int = 4096,
        min_frequency: int = 15,
        train_size: int | None = None,
        test_size: int | None = None,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, workers, fast)
        if max_length < 2:
            raise ValueError(f"max_length must be at least 2, not {max_length}")
        self.max_length, self.min_frequency = max_length, min_frequency
        self.train_size, self.test_size = train_size, test_size

    def prepare_data(self) -> None:
        fetch(ARCHIVE, URLS, md5=MD5)

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        settings = {"md5": MD5, "max_length": self.max_length, "min_frequency": self.min_frequency, "version": 1}
        stored = cached("imdb", settings, self._read)
        for name, size in (("train", self.train_size), ("test", self.test_size)):
            sequences = torch.split(stored[f"{name}_tokens"], stored[f"{name}_lengths"].tolist())
            labels = stored[f"{name}_labels"]
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:size]
            self.sets[name] = Sequences([sequences[i].long() for i in order.tolist()], labels[order])

    def _read(self) -> dict[str, Tensor]:
        texts: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
        with tarfile.open(fetch(ARCHIVE, URLS, md5=MD5)) as archive:
            for member in tqdm(archive, desc="reading reviews", unit="file"):
                match = MEMBER.fullmatch(member.name)
                if match and member.isfile() and (file := archive.extractfile(member)) is not None:
                    texts[match["part"]].append((file.read().decode("utf-8"), int(match["label"] == "pos")))
        table = character_table((text for text, _ in texts["train"]), self.min_frequency)
        result = {}
        for part, items in texts.items():
            encoded = [encode(text, table, self.max_length) for text, _ in items]
            result[f"{part}_tokens"] = torch.cat(encoded)
            result[f"{part}_lengths"] = torch.tensor([len(codes) for codes in encoded])
            result[f"{part}_labels"] = torch.tensor([label for _, label in items])
        return result
