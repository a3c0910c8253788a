import pytest
import torch

from plugins.generative.data import DigitsDataModule, load_digits, stratified_split


def test_digits_are_scaled_to_minus_one_one():
    images, labels = load_digits()
    assert images.shape == (1797, 1, 8, 8) and images.dtype == torch.float32
    assert images.min() == -1 and images.max() == 1
    assert labels.unique().tolist() == list(range(10))


def test_split_is_disjoint_complete_stratified_and_repeatable():
    _, labels = load_digits()
    train, heldout = stratified_split(labels, 0.25, seed=3)
    assert torch.equal(torch.cat([train, heldout]).sort().values, torch.arange(1797))
    for label in range(10):
        members = int((labels == label).sum())
        assert int((labels[heldout] == label).sum()) == round(members / 4)
    again, other = stratified_split(labels, 0.25, seed=3)[1], stratified_split(labels, 0.25, seed=4)[1]
    assert torch.equal(heldout, again) and not torch.equal(heldout, other)


def test_loaders_cover_their_set():
    data = DigitsDataModule(batch_size=100)
    heldout = torch.cat([labels for _, labels in data.val_dataloader()])
    assert torch.equal(heldout, data.heldout_set.tensors[1])
    batches = list(data.train_dataloader())
    assert {len(images) for images, _ in batches} == {100} and len(batches) == len(data.train_set) // 100
    assert batches[0][0].shape == (100, 1, 8, 8)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"heldout_fraction": 0.0}, "heldout_fraction"),
        ({"heldout_fraction": 0.001}, "without images"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 5000}, "batch_size"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DigitsDataModule(**options)
