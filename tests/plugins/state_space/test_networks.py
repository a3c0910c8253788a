"""Blocks, models, masks, and the modules that train them."""

import functools

import pytest
import torch

from plugins.state_space.disturbance import fourier_disturbance
from plugins.state_space.layers import S4D, S4PTD, S5, LSTMLayer
from plugins.state_space.modules import RobustClassifiers, SequenceClassifiers
from plugins.state_space.networks import ACTIVATIONS, MaskedBatchNorm, PairClassifier, SequenceBlock, SequenceModel

layer = functools.partial(S4D, d_state=8)


@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_does_not_change_a_model(norm: str, prenorm: bool, pooling: str) -> None:
    model = SequenceModel(layer, 3, d_input=2, d_model=8, n_layers=2, norm=norm, prenorm=prenorm, pooling=pooling)
    model.double()
    x, lengths = torch.randn(3, 20, 2, dtype=torch.float64), torch.tensor([20, 7, 1])
    model(x, lengths)  # moves the running statistics of batch norms
    model.eval()
    y = model(x, lengths)
    for i, n in enumerate(lengths.tolist()):
        assert torch.allclose(model(x[i : i + 1, :n]), y[i : i + 1], atol=1e-10)
    padded = torch.cat([x, 1e3 * torch.ones(3, 5, 2, dtype=torch.float64)], 1)
    assert torch.allclose(model(padded, lengths), y, atol=1e-10)


def test_batch_norm_statistics_ignore_padding() -> None:
    x, lengths = torch.randn(2, 6, 4), torch.tensor([6, 2])
    mask = torch.arange(6) < lengths[:, None]
    masked, plain = MaskedBatchNorm(4), torch.nn.BatchNorm1d(4)
    out, expected = masked(x, mask), plain(torch.cat([x[0], x[1, :2]]))
    assert torch.allclose(out[mask], expected, atol=1e-6)
    assert torch.allclose(masked.norm.running_mean, plain.running_mean)
    assert out[~mask].abs().sum() == 0


@pytest.mark.parametrize("make", [layer, functools.partial(S5, d_state=8), LSTMLayer])
@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_streaming_is_the_whole_sequence(make, norm: str, prenorm: bool) -> None:
    options = {"d_model": 8, "n_layers": 2, "pooling": "none", "norm": norm, "prenorm": prenorm}
    model = SequenceModel(make, 3, vocabulary=5, **options).double()
    tokens = torch.randint(5, (2, 15))
    model(tokens)
    model.eval()
    whole = model(tokens)
    states, systems, outputs = model.default_state(2), model.discrete_systems(), []
    for k in range(15):
        y, states = model.step(tokens[:, k], states, systems)
        outputs.append(y)
    assert torch.allclose(torch.stack(outputs, 1), whole, atol=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    torch.manual_seed(0)
    block = SequenceBlock(layer(d_model=6), norm="none", activation=activation, residual=False)
    x = torch.randn(2, 9, 6)
    y = block.layer(x)
    g, mix = torch.nn.functional.gelu(y), block.mix
    expected = {
        "none": lambda: y,
        "gelu": lambda: g,
        "half_glu1": lambda: g * torch.sigmoid(mix(g)),
        "half_glu2": lambda: y * torch.sigmoid(mix(g)),
        "glu": lambda: mix(g)[..., :6] * torch.sigmoid(mix(g)[..., 6:]),
        "full_glu": lambda: mix(g)[..., :6] * torch.sigmoid(mix(g)[..., 6:]),
    }[activation]()
    assert torch.allclose(block(x), expected, atol=1e-6)


def test_dropout_drops_whole_channels_and_only_in_training() -> None:
    block = SequenceBlock(layer(d_model=64), norm="none", activation="none", dropout=0.5, residual=False)
    x = torch.randn(1, 10, 64)
    zero = block(x) == 0
    assert 0.2 < zero.all(1).float().mean() < 0.8
    assert torch.equal(zero.all(1), zero.any(1))
    block.eval()
    assert torch.equal(block(x), block(x)) and (block(x) != 0).all()


def test_frames_group_steps() -> None:
    model = SequenceModel(layer, 2, d_input=1, d_model=6, n_layers=1, frame=4).eval()
    x = torch.randn(2, 10, 1)
    grouped = torch.nn.functional.pad(x, (0, 0, 0, 2)).view(2, 3, 4)
    plain = SequenceModel(layer, 2, d_input=4, d_model=6, n_layers=1).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(model(x), plain(grouped), atol=1e-6)
    assert torch.allclose(model(x, torch.tensor([10, 5])), plain(grouped, torch.tensor([3, 2])), atol=1e-6)
    with pytest.raises(ValueError, match="frame"):
        model.step(x[:, 0], model.default_state(2))


def test_pairs_compare_both_sequences() -> None:
    model = PairClassifier(SequenceModel(layer, 2, vocabulary=9, d_model=8, n_layers=1)).eval()
    x, lengths = torch.randint(9, (3, 2, 12)), torch.tensor([[12, 5], [3, 12], [1, 1]])
    y = model(x, lengths)
    assert y.shape == (3, 2)
    cut = model(x[1:2, :, :], lengths[1:2])
    assert torch.allclose(cut, y[1:2], atol=1e-5)


def test_disturbance_is_a_cosine_in_the_layers_own_time_and_ends() -> None:
    torch.manual_seed(0)
    model = SequenceModel(functools.partial(S4PTD, d_state=8), 2, d_input=1, d_model=4, n_layers=1).eval()
    x, seen = torch.zeros(1, 50, 1), []
    handle = model.blocks[0].layer.register_forward_hook(lambda m, args, out: seen.append(args[0].detach()))
    clean = model(x)
    with fourier_disturbance(model, (30.0, 0.5)):
        model(x)
    assert torch.equal(model(x), clean)
    handle.remove()
    difference = (seen[1] - seen[0])[0]
    step = torch.exp(model.blocks[0].layer.log_dt).detach()
    wave = torch.cos(30.0 * step * torch.arange(50)[:, None])
    size = difference[0]
    assert torch.allclose(difference, size * wave, atol=1e-5)
    assert (size >= 0).all() and (size < 0.5).all() and size.std() > 0


def test_replicas_differ_and_share_nothing() -> None:
    network = functools.partial(SequenceModel, d_output=3, d_input=1, d_model=4, n_layers=1)
    module = SequenceClassifiers({"a": layer, "b": layer}, network, replicas=[0, 1])
    first, second, other = (module.networks[k] for k in ("a_seed0", "a_seed1", "b_seed0"))
    assert not torch.equal(first.encoder.weight, second.encoder.weight)
    assert torch.equal(first.encoder.weight, other.encoder.weight)
    batch = {"x": torch.randn(5, 8, 1), "y": torch.randint(3, (5,))}
    losses = {k: module._loss(net, batch)[0] for k, net in module.networks.items()}
    torch.stack(list(losses.values())).sum().backward()
    together = first.encoder.weight.grad.clone()
    first.zero_grad()
    module._loss(first, batch)[0].backward()
    assert torch.allclose(together, first.encoder.weight.grad)


def test_bad_settings() -> None:
    network = functools.partial(SequenceModel, d_output=3, d_input=1, d_model=4, n_layers=1)
    for make, message in (
        (lambda: SequenceModel(layer, 2), "d_input"),
        (lambda: SequenceModel(layer, 2, d_input=1, vocabulary=3), "d_input"),
        (lambda: SequenceModel(layer, 2, d_input=1, pooling="max"), "pooling"),
        (lambda: SequenceModel(layer, 2, vocabulary=5, frame=2), "frame"),
        (lambda: SequenceBlock(layer(d_model=4), norm="group"), "norm"),
        (lambda: SequenceBlock(layer(d_model=4), activation="relu"), "activation"),
        (lambda: SequenceClassifiers({}, network), "layers"),
        (lambda: SequenceClassifiers({"a.b": layer}, network), "name"),
        (lambda: SequenceClassifiers({"a": layer}, network, replicas=[]), "replicas"),
        (lambda: SequenceClassifiers({"a": layer}, network, warmup=1.0), "warmup"),
        (lambda: SequenceClassifiers({"a": layer}, network, schedule_steps=0), "schedule_steps"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_robust_classifiers_list_every_condition() -> None:
    network = functools.partial(SequenceModel, d_output=3, d_input=1, d_model=4, n_layers=1)
    module = RobustClassifiers({"a": layer}, network, omegas=[1, 2], amplitudes=[0.1, 0.5])
    assert module.conditions == [None, (1.0, 0.1), (1.0, 0.5), (2.0, 0.1), (2.0, 0.5)]
