"""Batches as a function of (seed, epoch, batch index)."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

from framework import loading


class Augmented(Dataset):
    """Samples that carry random numbers of all three kinds."""

    def __init__(self, count: int) -> None:
        self.count, self.tag = count, "mine"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i):
        return i, torch.rand(()), float(np.random.rand()), random.random()


def served(loader, epochs: int = 1, position: loading.Position | None = None, stop: int | None = None) -> list:
    """Iterate as a trainer would, advancing the position after each batch."""
    position = position or loader.batch_sampler.position
    batches = []
    for _ in range(epochs):
        for batch in loader:
            batches.append([t.tolist() for t in batch])
            position.batches += 1
            if len(batches) == stop:
                return batches
    return batches


def resumable(loader, **options):
    return loading.resumable(loader, seed=3, position=options.pop("position", loading.Position()), **options)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_a_stopped_pass_continues_with_the_batches_it_had_not_served(workers, stop):
    def loader():
        return DataLoader(Augmented(18), 4, shuffle=True, num_workers=workers)

    whole = served(resumable(loader()), epochs=2)
    position = loading.Position()
    before = served(resumable(loader(), position=position), epochs=2, stop=stop)
    assert position.batches == stop
    remaining_epochs = 2 - stop // 5
    after = served(resumable(loader(), position=position), epochs=remaining_epochs)
    assert before + after == whole


def test_workers_do_not_change_what_is_served():
    one = served(resumable(DataLoader(Augmented(10), 3, shuffle=True)), epochs=2)
    two = served(resumable(DataLoader(Augmented(10), 3, shuffle=True, num_workers=2)), epochs=2)
    assert one == two


def test_every_epoch_is_a_new_permutation_of_all_samples():
    batches = served(resumable(DataLoader(Augmented(12), 4, shuffle=True)), epochs=2)
    first, second = (sum((b[0] for b in batches[i : i + 3]), []) for i in (0, 3))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert batches[0][1] != batches[3][1]  # the augmentations are new as well


@pytest.mark.parametrize(("count", "drop_last"), [(16, False), (18, False), (17, False), (18, True), (3, False)])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_see_the_batches_of_one(count, drop_last, world):
    def indices(rank, world, size):
        loader = DataLoader(TensorDataset(torch.arange(count)), size, shuffle=True, drop_last=drop_last)
        return [b[0] for b in served(resumable(loader, rank=rank, world=world))]

    single = indices(0, 1, 2 * world)
    ranks = [indices(rank, world, 2) for rank in range(world)]
    assert {len(r) for r in ranks} == {len(single)}
    for number, batch in enumerate(single):
        together = sum((r[number] for r in ranks), [])
        assert together[: len(batch)] == batch
        assert len({len(r[number]) for r in ranks}) == 1
        if len(batch) % world == 0:
            assert together == batch


def test_seeds_of_neighbours_are_unrelated_and_the_same_everywhere():
    assert loading.mix(0, 1, 2) == 2439208070
    assert len({loading.mix(a, b) for a in range(100) for b in range(100)}) == 10_000


def test_drawing_an_order_leaves_the_global_generators_alone():
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = torch.rand(()), np.random.rand(), random.random()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    iterator = iter(resumable(DataLoader(Augmented(8), 4, shuffle=True)).batch_sampler)
    next(iterator)
    assert (torch.rand(()), np.random.rand(), random.random()) == expected


def test_a_weighted_sampler_keeps_its_meaning_and_resumes():
    def loader():
        weights = torch.tensor([0.0, 1.0, 1.0, 2.0])
        return DataLoader(TensorDataset(torch.arange(4)), 2, sampler=WeightedRandomSampler(weights, 8))

    whole = served(resumable(loader()), epochs=2)
    assert all(i != 0 for b in whole for i in b[0])
    position = loading.Position()
    assert (
        served(resumable(loader(), position=position), stop=3)
        + served(resumable(loader(), position=position), epochs=2)
        == whole
    )


def test_a_limit_ends_the_epoch_for_the_order_too():
    batches = served(resumable(DataLoader(Augmented(12), 4, shuffle=True), limit=2), epochs=1, stop=2)
    position = loading.Position(2)
    after = served(resumable(DataLoader(Augmented(12), 4, shuffle=True), limit=2, position=position), stop=1)
    second_epoch = served(resumable(DataLoader(Augmented(12), 4, shuffle=True), position=loading.Position(3)), stop=1)
    assert after == second_epoch
    assert after[0] not in batches


def test_containers_of_loaders_and_attributes_of_datasets_survive():
    loaders = {"a": DataLoader(Augmented(4), 2), "b": [DataLoader(Augmented(6), 3)]}
    wrapped = resumable(loaders)
    assert len(wrapped["a"]) == 2 and len(wrapped["b"][0]) == 2
    assert wrapped["a"].dataset.tag == "mine"


def test_what_cannot_be_resumed_is_said():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(4))

    loader = DataLoader(Stream(), 2)
    with pytest.warns(UserWarning, match="Stream.*cannot be resumed"):
        assert resumable(loader) is loader


def test_an_empty_dataset_gives_no_batches():
    assert served(resumable(DataLoader(TensorDataset(torch.empty(0, 2)), 4))) == []


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_sample_once(world):
    seen = []
    for rank in range(world):
        loader = loading.share(DataLoader(TensorDataset(torch.arange(11)), 2), rank, world)
        shares = [b[0].tolist() for b in loader]
        assert len(shares) == len(loader)
        seen += sum(shares, [])
    assert sorted(seen) == list(range(11))
