import pytest
import torch

from plugins.generative.networks import ConvClassifier, UNet


def fresh(**options):
    """A U-Net whose zeroed convolutions have been filled, so that every path shows in the output."""
    torch.manual_seed(0)
    network = UNet(**{"width": 8, "num_classes": 10, **options}).double().eval()
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return network


def inputs(batch=3, channels=1, size=8):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64)
    return x, torch.linspace(0.1, 0.9, batch, dtype=torch.float64), torch.arange(batch) % 10


@pytest.mark.parametrize(
    "options, size",
    [
        ({}, 8),
        ({"multipliers": (1,)}, 5),
        ({"multipliers": (1, 2, 2), "blocks": 2, "attention_levels": (1, 2)}, 16),
        ({"channels": 3, "width": 6, "groups": 4}, 8),
    ],
)
def test_forward_is_decode_of_encode_and_keeps_the_shape(options, size):
    network = fresh(**options)
    x, t, c = inputs(channels=options.get("channels", 1), size=size)
    whole = network(x, t, c)
    assert whole.shape == x.shape and whole.any()
    assert torch.equal(whole, network.decode(network.encode(x, t, c), t, c))


def test_a_fresh_network_returns_zeros_and_still_learns():
    torch.manual_seed(0)
    network = UNet(width=8, attention_levels=(1,))
    x, t, _ = inputs(batch=4)
    x, t = x.float(), t.float()
    assert not network(x, t).any()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(x, t) - x).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * x.square().mean()


def test_time_and_class_reach_both_halves():
    network = fresh(attention_levels=(1,))
    x, t, c = inputs()
    features = network.encode(x, t, c)
    for other in (network.encode(x, t / 2, c), network.encode(x, t, c + 1)):
        assert not torch.allclose(features.hidden, other.hidden)
    out = network.decode(features, t, c)
    assert not torch.allclose(out, network.decode(features, t / 2, c))
    assert not torch.allclose(out, network.decode(features, t, c + 1))


def test_without_labels_means_the_null_class():
    network = fresh()
    x, t, c = inputs()
    assert torch.equal(network(x, t), network(x, t, torch.full_like(c, 10)))
    assert not torch.allclose(network(x, t), network(x, t, c))


def test_images_of_a_batch_do_not_mix():
    network = fresh(attention_levels=(0, 1), multipliers=(1, 2))
    x, t, c = inputs()
    together = network(x, t, c)
    apart = torch.cat([network(x[i : i + 1], t[i : i + 1], c[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-12)


def test_every_parameter_gets_a_gradient():
    network = fresh(attention_levels=(1,), dropout=0.1, multipliers=(1, 2, 2)).train()
    x, t, c = inputs()
    network(x, t, c).square().sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_features_repeat_whole_batches_and_detach():
    network = fresh()
    x, t, c = inputs()
    features = network.encode(x.requires_grad_(), t, c)
    assert features.hidden.requires_grad and not features.detach().hidden.requires_grad
    repeated = features.repeat(2)
    for one, two in zip([features.hidden, *features.skips], [repeated.hidden, *repeated.skips], strict=True):
        assert torch.equal(two, torch.cat([one, one]))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: UNet(multipliers=()), "multipliers"),
        (lambda: UNet(blocks=0), "blocks"),
        (lambda: UNet(attention_levels=(2,)), "levels are 0..1"),
        (lambda: UNet(width=6, attention_levels=(0,), attention_heads=4), "attention_heads"),
        (lambda: UNet()(torch.zeros(1, 1, 7, 7), torch.zeros(1)), "divisible by 2"),
        (lambda: UNet()(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long)), "num_classes"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_an_empty_batch_passes():
    network = fresh()
    x, t, c = inputs()
    assert network(x[:0], t[:0], c[:0]).shape == (0, 1, 8, 8)


def test_classifier_shapes_for_odd_images():
    classifier = ConvClassifier(channels=3, image_size=7, num_classes=4, feature_size=5)
    x = torch.randn(2, 3, 7, 7)
    assert classifier(x).shape == (2, 4)
    assert torch.equal(classifier.read_out(classifier.features(x)), classifier(x))
