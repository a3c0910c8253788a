"""Data loading whose every batch is a function of (seed, epoch, batch index) alone.

So a run resumed in the middle of an epoch sees exactly the batches it had not seen, with the same augmentations,
whatever the number of workers; and W processes with batch size B see together what one process with W·B sees.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler, SequentialSampler


def mix(*numbers: int) -> int:
    """A seed of 32 bits from several numbers; near numbers give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest(), "little")


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators, in a few microseconds (``torch.manual_seed`` takes hundreds)."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from the CPU's generators under a seed, and leave them as they were."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


class _SeededBatch(list):
    """The indices of a batch with the seed under which its samples are made."""

    def __init__(self, indices: list[Any], seed: int) -> None:
        super().__init__(indices)
        self.seed = seed

    def __reduce__(self):
        return _SeededBatch, (list(self), self.seed)


class _Seeded(Dataset):
    """A map-style dataset whose random numbers depend on the batch, not on the worker or on what came before."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitems__(self, batch: _SeededBatch) -> list[Any]:
        # not put back afterwards, which would cost more than most batches: the training step seeds itself
        seed_everything(batch.seed)
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(list(batch))
        return [self.dataset[i] for i in batch]


@dataclass
class Position:
    """How many training batches this process has consumed since the run began, over all sessions of the run."""

    batches: int = 0


class ResumableBatches(Sampler):
    """The batches of one process, in an order fixed by the seed and the epoch, continuing from a position.

    Args:
        sampler: the loader's own sampler of single indices; it is drawn from under the epoch's seed.
        batch_size: of one process.
        drop_last: as for a DataLoader, applied to the global batch.
        seed: the run's seed.
        rank, world: this process among all.
        limit: batches an epoch at most.
        position: read at the start of every epoch; whoever trains advances it. What a worker has prefetched
            is thereby not mistaken for what was trained on.
    """

    def __init__(
        self,
        sampler: Any,
        batch_size: int,
        drop_last: bool,
        seed: int,
        rank: int = 0,
        world: int = 1,
        limit: int | float = 1.0,
        position: Position | None = None,
    ) -> None:
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        self.seed, self.rank, self.world = seed, rank, world
        self.limit, self.position = limit, position or Position()

    def __len__(self) -> int:
        size = self.batch_size * self.world
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // size if self.drop_last else -(-count // size)

    def __iter__(self) -> Iterator[_SeededBatch]:
        per_epoch = min(len(self), self.limit) if isinstance(self.limit, int) else int(len(self) * self.limit)
        # not a generator itself: workers begin to prefetch the moment the iterator is made
        return self._batches(*divmod(self.position.batches, max(1, per_epoch)))

    def _batches(self, epoch: int, start: int) -> Iterator[_SeededBatch]:
        order = self._order(epoch)
        size = self.batch_size * self.world
        for number in range(start, len(self)):
            batch = order[number * size : (number + 1) * size]
            if short := -len(batch) % self.world:  # every process must have equally many samples
                batch += (order * (1 + short // len(order)))[:short]
            share = len(batch) // self.world
            mine = batch[self.rank * share : (self.rank + 1) * share]
            yield _SeededBatch(mine, mix(self.seed, epoch, number, self.rank))

    def _order(self, epoch: int) -> list[Any]:
        seed = mix(self.seed, epoch)
        with seeded(seed):
            if isinstance(own := getattr(self.sampler, "generator", None), torch.Generator):
                own.manual_seed(seed)
            return list(self.sampler)


class EvaluationShare(Sampler):
    """The indices of every ``world``-th batch for evaluation: no sample twice, so sums over processes are exact."""

    def __init__(self, sampler: Any, batch_size: int, rank: int, world: int) -> None:
        self.sampler, self.batch_size, self.rank, self.world = sampler, batch_size, rank, world

    def __len__(self) -> int:
        return sum(1 for i in range(len(self.sampler)) if self._mine(i))

    def __iter__(self) -> Iterator[Any]:
        return (index for i, index in enumerate(self.sampler) if self._mine(i))

    def _mine(self, i: int) -> bool:
        return i // self.batch_size % self.world == self.rank


def resumable(
    loader: Any,
    seed: int,
    position: Position,
    rank: int = 0,
    world: int = 1,
    limit: int | float = 1.0,
    sequential: bool = False,
) -> Any:
    """The same training loader with resumable, distributed batches; nested containers of loaders keep their shape.

    Loaders of iterable datasets, with their own batch sampler, or of a subclass of DataLoader are left as they are
    (torchdata's StatefulDataLoader resumes by itself).
    """
    return _map(loader, lambda one: _resumable(one, seed, position, rank, world, limit, sequential))


def share(loader: Any, rank: int, world: int) -> Any:
    """The same evaluation loader with this process's share of the batches; it leaves the global generator alone.

    A loader with a batch sampler of its own, or of an iterable dataset, is not shared: every process sees all of it.
    """

    def one(loader: DataLoader) -> DataLoader:
        if type(loader) is not DataLoader or type(loader.batch_sampler) is not BatchSampler:
            return loader
        size = loader.batch_size or 1
        sampler = loader.sampler if world == 1 else EvaluationShare(loader.sampler, size, rank, world)
        return _rebuild(loader, loader.dataset, batch_size=size, sampler=sampler, drop_last=loader.drop_last)

    return _map(loader, one)


def _map(loader: Any, change: Callable[[DataLoader], DataLoader]) -> Any:
    if isinstance(loader, DataLoader):
        return change(loader)
    if isinstance(loader, dict):
        return {k: _map(v, change) for k, v in loader.items()}
    if isinstance(loader, (list, tuple)):
        return type(loader)(_map(v, change) for v in loader)
    return loader


def _resumable(
    loader: DataLoader, seed: int, position: Position, rank: int, world: int, limit: int | float, sequential: bool
) -> DataLoader:
    plain = type(loader) is DataLoader and type(loader.batch_sampler) is BatchSampler
    if not plain or isinstance(loader.dataset, IterableDataset):
        if not hasattr(loader, "load_state_dict"):
            warnings.warn(
                f"{type(loader).__name__} over {type(loader.dataset).__name__} with a batch sampler of its own or an "
                "iterable dataset cannot be resumed in the middle of an epoch, nor be shared among processes; "
                "use a map-style dataset with batch_size and sampler, or torchdata's StatefulDataLoader.",
                stacklevel=2,
            )
        return loader
    sampler = SequentialSampler(loader.dataset) if sequential else loader.sampler  # type: ignore[arg-type]
    batches = ResumableBatches(
        sampler,
        loader.batch_size or 1,
        loader.drop_last,
        seed,
        rank,
        world,
        limit,
        position,  # type: ignore[arg-type]
    )
    return _rebuild(loader, _Seeded(loader.dataset), batch_sampler=batches)


def _rebuild(loader: DataLoader, dataset: Any, **batching: Any) -> DataLoader:
    return DataLoader(
        dataset,
        **batching,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        # the iterator draws a number from here; from the global one it would shift the model's randomness
        generator=torch.Generator().manual_seed(0),
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )
