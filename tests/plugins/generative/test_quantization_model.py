"""Rounding learning, calibration and whole networks: exact objectives, exact restoration, measurable gains."""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from plugins.generative.quantization import (
    E2M1,
    E4M3FN,
    FPFormat,
    INTFormat,
    Moments,
    QuantizationConfig,
    QuantizedLayer,
    Quantizer,
    absmax_quantizer,
    collect_inputs,
    collect_moments,
    find_concatenations,
    fp_splits,
    learn_rounding,
    noisy_batches,
    output_error,
    quantize_model,
    quantized,
    restore_model,
    search_clip,
)
from plugins.generative.quantization.layers import input_rows, quantizable_layers, weight_rows
from plugins.generative.schedules import Flow


class SkipNet(nn.Module):
    """A small convolutional network with a skip concatenation, a shared layer, groups and a linear head."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(2, 16)
        self.merge = nn.Conv2d(16, 8, 3, padding="same", padding_mode="circular")
        self.project = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 10)
        self.twice = nn.Linear(10, 10)
        self.alias = self.twice
        self.unused = nn.Linear(3, 3)

    def forward(self, x, t):
        h = torch.relu(self.first(x)) + t[:, None, None, None]
        both = torch.cat([50 * h, self.inner(h)], dim=1)
        h = self.merge(torch.nn.functional.silu(self.norm(both))) + self.project(both)
        return self.alias(torch.tanh(self.twice(self.head(h.mean((2, 3))))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return SkipNet().eval()


@pytest.fixture(scope="module")
def digits():
    return torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1


@pytest.fixture
def batches(digits):
    return noisy_batches(digits[:64].view(-1, 1, 8, 8), [0.1, 0.5, 0.9], Flow())


def wiener(digits, sigma=0.5):
    """Linear least-squares denoiser of the digits at one noise level, with the moments of its (centred) inputs."""
    x = (digits - digits.mean(0)).double()
    cov = x.T @ x / len(x)
    noisy = cov + sigma**2 * torch.eye(64, dtype=torch.float64)
    return (cov @ torch.linalg.inv(noisy)).float(), Moments(noisy, noisy, noisy)


def test_moments_give_the_output_error_exactly():
    torch.manual_seed(0)
    x, w = torch.randn(500, 12), torch.randn(7, 12)
    x_hat, w_hat = absmax_quantizer(x, E4M3FN)(x), absmax_quantizer(w, E2M1, 0)(w)
    direct = (x.double() @ w.double().T - x_hat.double() @ w_hat.double().T).square().mean(0)
    torch.testing.assert_close(output_error(w, w_hat, Moments.of(x, x_hat)), direct, rtol=1e-9, atol=0)
    direct = (x.double() @ (w - w_hat).double().T).square().mean(0)
    torch.testing.assert_close(output_error(w, w_hat, Moments.of(x)), direct, rtol=1e-5, atol=0)


@pytest.mark.parametrize("polish", [False, True])
@pytest.mark.parametrize("channel_axis", [None, 0])
def test_learned_rounding_lowers_the_wiener_denoisers_error_by_a_fifth(digits, channel_axis, polish):
    weight, moments = wiener(digits)
    quantizer, _ = search_clip(weight, E2M1, channel_axis)
    result = learn_rounding(weight, quantizer, moments, polish=polish)
    assert result.learned_error <= 0.8 * result.nearest_error
    # what is reported is what the weight does
    assert float(output_error(weight, result.weight, moments).sum()) == pytest.approx(result.learned_error)
    assert float(output_error(weight, quantizer(weight), moments).sum()) == pytest.approx(result.nearest_error)
    # every weight stays on the grid, next to its value
    assert torch.equal(quantizer(result.weight), result.weight)
    low, high = quantizer.limits(weight)
    moved = (result.weight - weight.clamp(low, high)).abs()
    assert bool((moved <= quantizer.step(weight) * 1.0001).all())


def test_no_row_gets_worse_and_the_signs_are_learned_too(digits):
    weight, moments = wiener(digits)
    for sign in (1, -1):
        quantizer, _ = search_clip(sign * weight, INTFormat(4, narrow=True), 0)
        result = learn_rounding(sign * weight, quantizer, moments, steps=200)
        rows = output_error(sign * weight, result.weight, moments)
        assert bool((rows <= output_error(sign * weight, quantizer(sign * weight), moments)).all())
        assert result.learned_error < 0.8 * result.nearest_error


def test_learned_rounding_against_every_rounding_there_is():
    torch.manual_seed(1)
    excess = []
    for _ in range(6):
        x = torch.randn(200, 3) @ torch.randn(3, 8) + 0.3 * torch.randn(200, 8)
        moments, w = Moments.of(x, absmax_quantizer(x, E4M3FN)(x)), torch.randn(4, 8)
        quantizer = absmax_quantizer(w, E2M1, 0)
        step, (low, high) = quantizer.step(w), quantizer.limits(w)
        bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 8)
        best = 0.0
        for i in range(4):
            candidates = (step[i] * (torch.floor(w[i] / step[i]) + bits)).clamp(low[i], high[i])
            best += float(output_error(w[i].expand_as(candidates), candidates, moments).min())
        result = learn_rounding(w, quantizer, moments, steps=300)
        assert best * 0.999 <= result.learned_error < result.nearest_error
        excess.append(result.learned_error / best)
        for column in range(8):  # no single flip is left that would help
            for other in (torch.floor(w / step), torch.floor(w / step) + 1):
                flipped = result.weight.clone()
                flipped[:, column] = (step * other).clamp(low, high)[:, column]
                better = output_error(w, flipped, moments) < output_error(w, result.weight, moments) * (1 - 1e-6)
                assert not bool(better.any())
    assert sum(excess) / len(excess) < 1.5


def test_rounding_of_what_is_exact_already_and_bad_input():
    w = E2M1.quantize(torch.randn(3, 4))
    moments = Moments.of(torch.randn(10, 4))
    result = learn_rounding(w, Quantizer(E2M1, 1.0), moments)
    assert torch.equal(result.weight, w) and result.learned_error == result.nearest_error == 0
    with pytest.raises(ValueError, match="do not fit"):
        learn_rounding(w, Quantizer(E2M1, 1.0), Moments.of(torch.randn(10, 5)))
    with pytest.raises(ValueError, match="steps=0"):
        learn_rounding(w, Quantizer(E2M1, 1.0), moments, steps=0)
    with pytest.raises(ValueError, match="NaN"):
        learn_rounding(w * torch.nan, Quantizer(E2M1, 1.0), moments)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 5), (3, 7, 6)),
        (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (3, 4, 11)),
        (nn.Conv1d(4, 6, 3, padding="same"), (4, 11)),
        (nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), groups=2), (3, 4, 6, 8)),
        (nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"), (2, 3, 6, 5)),
    ],
)
def test_rows_times_weight_is_the_layer(layer, shape):
    x = torch.randn(shape)
    rows = input_rows(layer, x)
    groups = weight_rows(layer).chunk(len(rows))
    product = torch.cat([r @ w.T for r, w in zip(rows, groups, strict=True)], dim=1) + layer.bias
    out = layer(x)
    if isinstance(layer, nn.Linear):
        out = out.reshape(-1, 5)
    else:
        out = (out if out.ndim == 2 + len(layer.kernel_size) else out[None]).movedim(1, -1).reshape(-1, 6)
    torch.testing.assert_close(product, out, rtol=1e-4, atol=1e-5)


def test_calibration_sees_every_noise_level_equally_and_leaves_no_hook(net, batches):
    layers = quantizable_layers(net)
    samples = collect_inputs(layers, net, batches, max_values=3 * 40 * 8)
    assert "unused" not in samples and samples["first"].shape == (3 * 320, 1) and samples["inner"].shape == (120, 8)
    again = collect_inputs(layers, net, batches, max_values=3 * 40 * 8)
    assert all(torch.equal(a, again[name]) for name, a in samples.items())
    moments = collect_moments(layers, net, batches, max_rows=10**6)
    rows = torch.cat([input_rows(net.first, x)[0] for x, _ in batches]).double()
    torch.testing.assert_close(moments["first"][0].xx, rows.T @ rows / len(rows))
    assert len(moments["inner"]) == 2 and moments["inner"][0].xx.shape == (36, 36)
    assert not any(layer._forward_pre_hooks for layer in layers.values())


def test_noisy_batches_have_the_moments_they_claim():
    clean = torch.ones(4000, 5)
    (x, t), (y, _) = noisy_batches(clean, [0.25, 0.5], Flow())
    assert (
        bool((t == 0.25).all())
        and x.mean() == pytest.approx(0.75, abs=0.02)
        and x.std() == pytest.approx(0.25, abs=0.01)
    )
    assert (y - y.mean()).mul(x - x.mean()).mean().abs() < 0.005  # the noise of each level is its own


def test_concatenations_are_found_through_norms_and_activations(net, batches):
    found = find_concatenations(quantizable_layers(net), lambda: net(*batches[0]))
    assert found == {"merge": (8, 8), "project": (8, 8)}


def test_splitting_a_skip_concatenation_lowers_its_error(net, batches):
    config = QuantizationConfig(input_formats=tuple(fp_splits(4)))
    whole = QuantizationConfig(input_formats=tuple(fp_splits(4)), split_concatenations=False)
    errors = {}
    for name, option in (("split", config), ("whole", whole)):
        with quantized(net, batches, option) as reports:
            errors[name] = {r.name: r.error for r in reports}
            assert len(net.project.input_quantizers) == (2 if name == "split" else 1)
    assert errors["split"]["project"] < errors["whole"]["project"]


def test_quantized_weights_act_and_restoring_is_exact(net, batches):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    modules = list(net.named_modules())
    reference = net(*batches[0])
    config = QuantizationConfig(weight_formats=(E4M3FN,), search=False)
    reports = quantize_model(net, batches, config)
    assert [r.name for r in reports] == ["first", "inner", "merge", "project", "head", "twice"]
    assert isinstance(net.merge, QuantizedLayer) and net.alias is net.twice and isinstance(net.unused, nn.Linear)
    by_hand = copy.deepcopy(restore_model(net))
    for name in ("first", "inner", "merge", "project", "head", "twice"):
        layer = getattr(by_hand, name)
        layer.weight.data = absmax_quantizer(layer.weight.data, E4M3FN, 0)(layer.weight.data)
    quantize_model(net, batches, config)
    torch.testing.assert_close(net(*batches[0]), by_hand(*batches[0]), rtol=1e-5, atol=1e-5)
    assert not torch.equal(net(*batches[0]), reference)
    with pytest.raises(ValueError, match="already"):
        quantize_model(net, batches, config)
    restore_model(net)
    assert torch.equal(net(*batches[0]), reference) and list(net.named_modules()) == modules
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and len(before) == len(net.state_dict())


def test_more_bits_search_and_rounding_help_and_skipped_layers_are_left(net, batches):
    def error(**options):
        with quantized(net, batches, QuantizationConfig(**options)) as reports:
            return sum(r.error for r in reports), reports

    eight = error(weight_formats=tuple(fp_splits(8)), input_formats=tuple(fp_splits(8)))[0]
    four = error(weight_formats=tuple(fp_splits(4)), input_formats=tuple(fp_splits(8)))[0]
    standard = error(weight_formats=(E2M1,), input_formats=(E4M3FN,), search=False)[0]
    learned, reports = error(weight_formats=tuple(fp_splits(4)), input_formats=tuple(fp_splits(8)), rounding_steps=300)
    assert eight < 0.05 * four and four < standard and learned < 0.8 * four
    assert all(r.error <= r.nearest_error for r in reports)
    _, reports = error(weight_formats=(E2M1,), skip=("first", "t*"))
    assert [r.name for r in reports] == ["inner", "merge", "project", "head"]


def test_integer_inputs_use_their_asymmetric_grid(net, batches):
    for search in (True, False):
        with quantized(net, batches, QuantizationConfig(input_formats=(INTFormat(8),), search=search)):
            (quantizer,) = net.head.input_quantizers
            values = quantizer(net.head.original.weight.new_tensor([-1e6, 0.0, 1e6]))
            assert values[1] == 0 and values[2] - values[0] == pytest.approx(255 * quantizer.scale.item(), rel=1e-5)


def test_names_stand_for_formats():
    config = QuantizationConfig("FP4", ["E4M3FN", "INT8"], skip=["first"])
    assert config.weight_formats == tuple(fp_splits(4)) and config.input_formats == (E4M3FN, INTFormat(8))
    assert config.skip == ("first",)


def test_everything_works_inside_inference_mode(net, batches):
    config = QuantizationConfig("FP4", "FP8", rounding_steps=50)
    expected = quantize_model(net, batches, config)
    restore_model(net)
    with torch.inference_mode(), quantized(net, batches, config) as reports:
        assert reports == expected


def test_a_failure_inside_the_block_still_restores(net, batches):
    with pytest.raises(RuntimeError, match="inside"):
        with quantized(net, batches, QuantizationConfig(weight_formats=(E2M1,))):
            raise RuntimeError("inside")
    assert not any(isinstance(m, QuantizedLayer) for m in net.modules())


def test_gradients_flow_through_quantized_inputs(net, batches):
    with quantized(net, batches, QuantizationConfig(input_formats=(FPFormat(4, 3),))):
        x = batches[0][0].clone().requires_grad_()
        net(x, batches[0][1]).square().sum().backward()
    assert bool(x.grad.isfinite().all()) and float(x.grad.norm()) > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net, b: QuantizationConfig(), "both empty"),
        (lambda net, b: QuantizationConfig(input_formats=(E2M1,), rounding_steps=5), "rounding_steps"),
        (lambda net, b: quantize_model(net, [], QuantizationConfig((E2M1,))), "batches is empty"),
        (lambda net, b: quantize_model(net, b, QuantizationConfig((E2M1,), skip=("*",))), "reached"),
        (lambda net, b: quantize_model(net, [(b[0][0] * torch.nan, b[0][1])], QuantizationConfig((E2M1,))), "'first'"),
        (lambda net, b: QuantizedLayer(nn.ReLU(), torch.ones(1)), "ReLU"),
        (lambda net, b: QuantizedLayer(nn.Linear(4, 4), torch.ones(4, 3)), "shape"),
        (lambda net, b: QuantizedLayer(nn.Linear(4, 4), torch.ones(4, 4), [Quantizer(E2M1, 1.0)], (2, 1)), "parts"),
    ],
)
def test_bad_input_is_named(net, batches, make, message):
    with pytest.raises(ValueError, match=message):
        make(net, batches)
    assert not any(isinstance(m, QuantizedLayer) for m in net.modules())
