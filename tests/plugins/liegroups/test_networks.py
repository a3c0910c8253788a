"""Networks, the equivariance error of whole modules, the comparison module and the studies."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.liegroups.equivariance import equivariance_error
from plugins.liegroups.groups import make_group
from plugins.liegroups.haar import FiniteGroupRule, PolarBall, SamplePlan, StarGrid
from plugins.liegroups.kernels import MLP
from plugins.liegroups.layers import FieldNorm, GroupPool, LiftingConv
from plugins.liegroups.modules import ClassifierComparison
from plugins.liegroups.networks import AugmentedClassifier, ConvClassifier, GroupClassifier, regular_classifier


def small(group="gl2", **options):
    group = make_group(group)
    plan = SamplePlan(StarGrid(group, 4, 0.3), sets=[0, 0, 0], offset=PolarBall(group, 0.2))
    settings = {"channels": (4, 4, 6), "kernel_sizes": (5, 3, 3), "kernel_factory": MLP, "hidden": 8}
    return GroupClassifier(plan, **{**settings, **options})


@pytest.mark.parametrize("convolution", ["dense", "separable", "depthwise"])
def test_forward_backward_and_determinism(convolution):
    torch.manual_seed(0)
    network = small(convolution=convolution)
    images = torch.rand(4, 1, 20, 20)
    nn.functional.cross_entropy(network(images), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    assert torch.equal(network(images), network(images)), "evaluation is bitwise repeatable"
    network.train()
    assert not torch.equal(network(images), network(images)), "training moves the samples"


def test_evaluation_averages_over_its_offsets():
    group = make_group("gl2")
    torch.manual_seed(0)
    plan = SamplePlan(StarGrid(group, 4, 0.3), sets=[0, 0], offset=PolarBall(group, 0.2), eval_offsets=3)
    network = GroupClassifier(plan, channels=(3, 4), kernel_sizes=(5, 3), pool=(1, 1)).eval()
    images = torch.rand(2, 1, 20, 20)
    each = [network.head(network.features(images, stages)) for stages in plan.evaluation_draws()]
    torch.testing.assert_close(network(images), torch.stack(each).mean(0))
    assert (each[0] - each[1]).abs().max() > 1e-6


def test_margin_shows_the_network_what_touches_the_border():
    """An image pushed to the border gives the features it had in the middle."""
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 20, 20)
    image[..., 6:14, 6:14] = torch.rand(8, 8)
    pushed = torch.roll(image, (-6, 6), (2, 3))
    gaps = []
    for margin in (0, 8):
        torch.manual_seed(1)
        network = small(margin=margin, pool=(1, 1, 1), stride=1).eval()
        gaps.append(float((network(image) - network(pushed)).abs().max()))
    assert gaps[1] < 1e-4 < gaps[0]


def test_state_loads_without_its_samples():
    a, b = small(), small()
    b.load_state_dict(a.state_dict())
    images = torch.rand(2, 1, 20, 20)
    assert torch.equal(a.eval()(images), b.eval()(images))


def test_regular_network_is_exactly_invariant_under_its_rotations():
    torch.manual_seed(0)
    network = regular_classifier(4, channels=(4, 4), kernel_sizes=(5, 3), pool=(1, 1), stride=1).eval()
    images = torch.rand(3, 1, 21, 21)
    torch.testing.assert_close(network(torch.rot90(images, 1, (2, 3))), network(images), rtol=0, atol=1e-5)
    torch.manual_seed(0)
    network = regular_classifier(4, True, channels=(4, 4), kernel_sizes=(5, 3), pool=(1, 1), stride=1).eval()
    torch.testing.assert_close(network(images.flip(3)), network(images), rtol=0, atol=1e-5)


def test_equivariance_error_separates_group_networks_from_plain_ones():
    torch.manual_seed(0)
    group = make_group("so2")
    plan = SamplePlan(StarGrid(make_group("sl2"), 8, 0.2), sets=[0, 0])
    options = {"channels": (6, 8), "kernel_sizes": (7, 5), "pool": (1, 1), "stride": 1}
    network = GroupClassifier(plan, kernel_factory=MLP, group_pool="mean", **options).double()
    plain = ConvClassifier(channels=(6, 8), kernel_sizes=(7, 5), pool=(1, 1)).double()
    ours = equivariance_error(network, group, scale=1.0)
    theirs = equivariance_error(plain, group, scale=1.0)
    assert ours < 0.3 * theirs
    assert network.training, "the module is left in the mode it was in"
    assert ours == equivariance_error(network, group, scale=1.0)


def test_equivariance_error_with_actions_of_ones_own():
    def quarter_turn(h, x):
        return torch.rot90(x, -1, (2, 3))

    group = make_group("c4")
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    x = torch.rand(2, 1, 9, 9)
    moved = equivariance_error(conv, group, x, action_in=quarter_turn, action_out=quarter_turn, elements=1)
    assert moved > 0.05
    conv.weight.data[:] = 1.0
    assert equivariance_error(conv, group, x, action_in=quarter_turn, action_out=quarter_turn, elements=1) < 1e-6
    with pytest.raises(ValueError, match="elements"):
        equivariance_error(conv, group, elements=0)


@pytest.mark.parametrize("name", ["so2", "gl2", "centred_homography", "c8"])
def test_equivariance_error_of_single_layers(name):
    group = make_group(name)
    torch.manual_seed(0)
    layer = LiftingConv(group, 1, 2, 15, window="bump", kernel_factory=MLP, unit=7.5)
    assert equivariance_error(layer, group) < 0.12
    assert equivariance_error(FieldNorm(3), group) < 1e-5
    pool = equivariance_error(GroupPool("mean"), group)
    assert pool < 1e-6 if group.dim == 0 else pool > 1e-3


def test_augmentation_acts_in_training_only():
    torch.manual_seed(0)
    inner = nn.Flatten()
    network = AugmentedClassifier(inner)
    images = torch.rand(2, 1, 20, 20)
    assert not torch.equal(network(images), images.flatten(1))
    assert torch.equal(network.eval()(images), images.flatten(1))


class TinyData(pl.LightningDataModule):
    test_sets = ["padded", "gl2"]

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.data = TensorDataset(
            torch.rand(12, 1, 20, 20, generator=generator), torch.randint(0, 10, (12,), generator=generator)
        )

    def train_dataloader(self):
        return DataLoader(self.data, 6)

    def val_dataloader(self):
        return DataLoader(self.data, 6)

    def test_dataloader(self):
        return [DataLoader(self.data, 5), DataLoader(self.data, 5)]


def test_comparison_logs_every_model_on_every_set(tmp_path):
    torch.manual_seed(0)
    module = ClassifierComparison({"lie": small(), "cnn": ConvClassifier()}, learning_rates={"cnn": 1e-3})
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    before = [p.detach().clone() for p in module.parameters()]
    trainer.fit(module, TinyData())
    assert {"equivariance/lie", "equivariance/cnn", "val/accuracy/lie"} <= set(trainer.callback_metrics)
    assert all(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    (metrics, *_) = trainer.test(module, TinyData(), verbose=False)
    for name in ("lie", "cnn"):
        assert metrics[f"accuracy/{name}/padded"] == metrics[f"accuracy/{name}/gl2"]
        assert metrics[f"forward_seconds/{name}"] > 0
    logits = module.eval().models["cnn"](TinyData().data.tensors[0])
    accuracy = 100 * (logits.argmax(1) == TinyData().data.tensors[1]).double().mean()
    assert abs(metrics["accuracy/cnn/padded"] - accuracy) < 1e-4
    assert (tmp_path / "figures" / "accuracy.png").stat().st_size > 1000


def test_peers_say_what_is_missing_or_join_in():
    try:
        import escnn  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match="escnn"):
            ClassifierComparison({"cnn": ConvClassifier()}, peers=True)
    else:
        module = ClassifierComparison({"cnn": ConvClassifier()}, peers=True)
        assert module(torch.rand(2, 1, 20, 20))["escnn_c8"].shape == (2, 10)


def test_bad_arguments_are_named():
    plan = SamplePlan(FiniteGroupRule(make_group("c4")), sets=[0, 0, 0])
    for build, message in [
        (lambda: GroupClassifier(plan, channels=(4, 4)), "one entry for each stage"),
        (lambda: GroupClassifier(plan, margin=-1), "margin"),
        (lambda: GroupClassifier(plan, convolution="sparse"), "convolution"),
        (lambda: GroupClassifier(plan, activation="tanh"), "activation"),
        (lambda: GroupClassifier(plan, convolution="dense", rank=2), "rank=2"),
        (lambda: ClassifierComparison({"a": nn.Identity()}, learning_rates={"b": 1.0}), "learning_rates"),
        (lambda: ClassifierComparison({"a": nn.Identity()}, warmup=0.0), "warmup"),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
