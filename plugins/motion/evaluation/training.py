"""The evaluator's training: on the training split alone, before any generator, the same for the same data and seed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from plugins.motion.evaluation.clips import LabelledClips, cell_numbers
from plugins.motion.evaluation.network import MotionEvaluator
from plugins.motion.metrics import accuracy
from plugins.motion.networks import length_mask

VERSION = 1  # of the recipe: raise it when a change here gives other weights


@dataclasses.dataclass(frozen=True)
class EvaluatorSettings:
    """How an evaluator is built and trained.

    Args:
        steps, batch_size, lr, weight_decay: of AdamW, under a one-cycle rate.
        width, embedding, dropout: of the network.
        matching: weight of the text-matching loss beside the two classifications.
        shortest: share of a clip that a random crop keeps at least.
        smoothing: of the labels in both classifications.
        seed: of weights and batches.
    """

    steps: int = 1200
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.05
    width: int = 128
    embedding: int = 64
    dropout: float = 0.2
    matching: float = 0.5
    shortest: float = 0.75
    smoothing: float = 0.05
    seed: int = 0


def matching_loss(text: Tensor, motion: Tensor, cells: Tensor) -> Tensor:
    """Cross-entropy of finding each text's motion and each motion's text in the batch, by −|a − b|²/2.

    Args:
        text, motion: (B, E) embeddings.
        cells: (B,) numbers; other samples of the same cell are neither right nor wrong and are left out.
    """
    logits = -0.5 * torch.cdist(text, motion).square()
    same = cells[:, None] == cells
    same = same & ~torch.eye(len(cells), dtype=torch.bool, device=cells.device)
    logits = logits.masked_fill(same, -torch.inf)
    target = torch.arange(len(cells), device=cells.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2


def shortened(lengths: Tensor, shortest: float) -> Tensor:
    """Lengths cut at random to no less than ``shortest`` of themselves."""
    share = shortest + (1 - shortest) * torch.rand(len(lengths))
    return (lengths * share).ceil().long().clamp_min(1)


def train_evaluator(
    dataset: Any,
    contents: int,
    styles: int,
    features: int | None = None,
    settings: EvaluatorSettings | None = None,
    progress: bool = True,
) -> MotionEvaluator:
    """Train an evaluator on labelled clips and freeze it.

    Args:
        dataset: the training split: ``len`` and ``__getitems__(indices)``, which gives a batch with motion, lengths,
            text_emb, content and style, cropped and worded at random from torch's global generator.
        contents, styles: numbers of labels.
        features: leading feature columns to look at; all when omitted.

    Returns:
        The network in evaluation mode, without gradients. The same for the same arguments on one machine, whatever
        the state of the global generator, which is left as it was.

    Raises:
        ValueError: the data set is empty.
    """
    s = settings or EvaluatorSettings()
    if not len(dataset):
        raise ValueError("an evaluator needs at least one clip to train on")
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(s.seed)
        network = _build(dataset, contents, styles, features, s)
        optimizer = torch.optim.AdamW(network.parameters(), s.lr, weight_decay=s.weight_decay)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, s.lr, total_steps=max(s.steps, 2), pct_start=0.1)
        order: list[int] = []
        for _ in tqdm(range(s.steps), desc="evaluator", disable=not progress, leave=False):
            if len(order) < s.batch_size:
                order += torch.randperm(len(dataset)).tolist()
            chosen, order = order[: s.batch_size], order[s.batch_size :]
            batch = dataset.__getitems__(chosen)
            mask = length_mask(shortened(batch["lengths"], s.shortest), batch["motion"].shape[1])
            out = network(batch["motion"], mask)
            text = network.embed_text(batch["text_emb"])
            loss = (
                F.cross_entropy(out.content, batch["content"], label_smoothing=s.smoothing)
                + F.cross_entropy(out.style, batch["style"], label_smoothing=s.smoothing)
                + s.matching * matching_loss(text, out.embedding, cell_numbers(batch["content"], batch["style"]))
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            rate.step()
    return network.eval().requires_grad_(False)


def _build(
    dataset: Any, contents: int, styles: int, features: int | None, s: EvaluatorSettings
) -> MotionEvaluator:
    columns = features or dataset.motion.shape[-1]
    text_dim = dataset.text_emb.shape[-1]
    return MotionEvaluator(columns, text_dim, contents, styles, s.width, s.embedding, s.dropout)


def fingerprint(network: torch.nn.Module) -> str:
    """SHA-256 (hex) of a network's weights: names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def cached_evaluator(
    dataset: Any,
    contents: int,
    styles: int,
    features: int | None = None,
    settings: EvaluatorSettings | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> MotionEvaluator:
    """`train_evaluator`, kept on disk under a name made of the data and settings, so that all runs share one judge.

    Args:
        folder: where evaluators are kept; ``evaluators`` in the cache folder of motion data when omitted.
    """
    s = settings or EvaluatorSettings()
    if folder is None:
        from plugins.motion.data.cache import cache_folder

        folder = cache_folder() / "evaluators"
    digest = hashlib.sha256()
    digest.update(json.dumps([VERSION, contents, styles, features, dataclasses.asdict(s), dataset.text]).encode())
    for value in (dataset.motion, dataset.lengths, dataset.content, dataset.style, dataset.text_emb):
        digest.update(value.contiguous().numpy().tobytes())
    path = Path(folder) / f"{digest.hexdigest()[:24]}.pt"
    if path.is_file():
        network = _build(dataset, contents, styles, features, s)
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return network.eval().requires_grad_(False)
    network = train_evaluator(dataset, contents, styles, features, s, progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    torch.save(network.state_dict(), unfinished)
    unfinished.replace(path)
    return network


@torch.no_grad()
def held_out_scores(network: MotionEvaluator, clips: LabelledClips) -> dict[str, float]:
    """Accuracy of content and style on clips, such as those of the test split."""
    out = network(clips.motion, clips.mask)
    return {"content": accuracy(out.content, clips.content), "style": accuracy(out.style, clips.style)}
