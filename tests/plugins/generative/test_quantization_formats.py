"""Number formats against torch's own float8 casts, brute force over the representable values, and closed forms."""

import math

import pytest
import torch

from plugins.generative.quantization import (
    E2M1,
    E2M3,
    E3M2,
    E4M3FN,
    E5M2,
    FPFormat,
    INTFormat,
    Quantizer,
    absmax_quantizer,
    fp_splits,
    parse_format,
    search_clip,
    search_format,
)

FLOAT8 = [(E4M3FN, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)]
SPLITS = fp_splits(4, 0) + fp_splits(6, 0) + fp_splits(8, 0)


def same_bits(a, b):
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def probes(format):
    """Every value, every midpoint, and the float32 neighbours of both, with both signs."""
    grid = format.values().float()
    points = torch.cat([grid, (grid[1:] + grid[:-1]) / 2, torch.exp2(torch.arange(-30, 15).float())])
    points = points[points <= format.max_value]
    up, down = torch.nextafter(points, torch.tensor(math.inf)), torch.nextafter(points, torch.tensor(-math.inf))
    points = torch.cat([points, up[up <= format.max_value], down.clamp(min=0)])
    return torch.cat([points, -points])


@pytest.mark.parametrize(("format", "dtype"), FLOAT8)
def test_casts_are_bit_equal_to_torch(format, dtype):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1_000_000, generator=generator)
    scales = torch.tensor([1e-4, 1e-2, 1.0, 30.0])[torch.arange(len(noise)) % 4]
    x = torch.cat([(noise * scales).clamp(-format.max_value, format.max_value), probes(format)])
    assert same_bits(format.quantize(x), x.to(dtype).float())
    assert torch.equal(format.encode(x), x.to(dtype).view(torch.uint8))


@pytest.mark.parametrize(("format", "dtype"), FLOAT8)
def test_overflow_follows_one_of_the_two_conventions(format, dtype):
    edge = format.max_value
    gap = edge - float(format.values()[-2])
    x = torch.tensor([edge + 0.49 * gap, edge + 0.5 * gap, edge + 0.51 * gap, 3 * edge, 1e30, math.inf])
    x = torch.cat([x, -x, torch.tensor([math.nan])])
    special, saturated = format.quantize(x, "special"), format.quantize(x)
    finite = torch.tensor(
        [True, format is E4M3FN, False, False, False, False]
    )  # the half way goes to the even mantissa
    assert torch.equal(special.isfinite(), torch.cat([finite, finite, torch.tensor([False])]))
    assert bool((special.isinf() if format is E5M2 else special.isnan())[2:6].all())
    assert torch.equal(saturated[:6], torch.full((6,), edge)) and torch.equal(saturated[6:12], -saturated[:6])
    assert bool(saturated[12].isnan())
    reference = x.to(dtype).float()  # float8_e4m3fn saturates in some torch releases and not in others
    assert any(torch.equal(reference.nan_to_num(7.0), own.nan_to_num(7.0)) for own in (special, saturated))


@pytest.mark.parametrize("format", FLOAT8, ids=lambda f: f[0].name)
def test_codes_decode_to_what_torch_reads_in_them(format):
    own, dtype = format
    codes = torch.arange(256, dtype=torch.uint8)
    expected = codes.view(dtype).float()
    decoded = own.decode(codes)
    assert torch.equal(decoded.isnan(), expected.isnan())
    assert same_bits(decoded[~decoded.isnan()], expected[~expected.isnan()])


@pytest.mark.parametrize("format", [f for f in SPLITS if f.bits < 8 or f.exponent_bits < 7], ids=lambda f: f.name)
def test_rounds_to_the_nearest_value_and_ties_to_even(format):
    grid = format.values()
    assert len(grid) == 2 ** (format.bits - 1) and grid[0] == 0 and bool((grid.diff() > 0).all())
    assert grid[-1] == format.max_value
    assert torch.equal(format.quantize(grid), grid)
    x = torch.cat(
        [torch.rand(2000, dtype=torch.float64) * format.max_value, grid[-1] * torch.logspace(-8, 0, 2000).double()]
    )
    distance = (x[:, None] - grid).abs().amin(1)
    torch.testing.assert_close((format.quantize(x) - x).abs(), distance, rtol=0, atol=0)
    middle = (grid[1:] + grid[:-1]) / 2
    codes = torch.arange(len(middle))
    if format.mantissa_bits > 0:  # even code = even mantissa
        assert torch.equal(format.quantize(middle), grid[codes + codes % 2])
    codes = format.encode(torch.cat([grid, -grid]))
    assert torch.equal(codes, torch.arange(2**format.bits).to(torch.uint8))
    assert torch.equal(format.decode(codes, torch.float64), torch.cat([grid, -grid]))


def test_zero_keeps_its_sign_and_small_values_round_to_it():
    tiny = E4M3FN.min_subnormal / 2
    x = torch.tensor([0.0, -0.0, tiny, -tiny, 1e-45, -1e-45])
    assert same_bits(E4M3FN.quantize(x), torch.tensor([0.0, -0.0, 0.0, -0.0, 0.0, -0.0]))
    assert E4M3FN.quantize(torch.tensor(tiny * 1.0001)) == E4M3FN.min_subnormal


def test_published_limits():
    assert (E4M3FN.max_value, E5M2.max_value, E3M2.max_value, E2M3.max_value, E2M1.max_value) == (
        448,
        57344,
        28,
        7.5,
        6,
    )
    assert (E4M3FN.min_subnormal, E5M2.min_subnormal, E3M2.min_subnormal) == (2**-9, 2**-16, 2**-4)
    assert E2M1.values().tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    bfloat16 = FPFormat(8, 7, specials="ieee")
    assert bfloat16.max_value == torch.finfo(torch.bfloat16).max
    x = torch.randn(10_000) * torch.exp2(torch.randint(-120, 120, (10_000,)).float())
    assert torch.equal(bfloat16.quantize(x), x.bfloat16().float())
    half = FPFormat(5, 10, specials="ieee")
    x = torch.randn(10_000) * torch.exp2(torch.randint(-26, 14, (10_000,)).float())
    assert torch.equal(half.quantize(x, "special"), x.half().float())


@pytest.mark.parametrize("format", [E2M1, E4M3FN, FPFormat(3, 2), FPFormat(0, 7)], ids=lambda f: f.name)
def test_real_bias_is_a_scale_and_sets_the_largest_value(format):
    shifted = format.with_max(1.7)
    assert shifted.max_value == pytest.approx(1.7, rel=1e-12)
    if format.specials == "none" and format.exponent_bits:
        e, m = format.exponent_bits, format.mantissa_bits
        assert shifted.bias == pytest.approx(2**e - math.log2(1.7) + math.log2(2 - 2.0**-m) - 1, rel=1e-12)
    x = torch.randn(5000, dtype=torch.float64)
    scale = 1.7 / format.max_value
    torch.testing.assert_close(shifted.quantize(x), format.quantize(x / scale) * scale, rtol=1e-12, atol=0)
    torch.testing.assert_close(shifted.step(x), format.step(x / scale) * scale, rtol=1e-12, atol=0)
    assert Quantizer(format, scale).bias.item() == pytest.approx(shifted.bias, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_agree_with_float32(dtype):
    x = torch.randn(4000).to(dtype)
    q = E4M3FN.quantize(x)
    assert q.dtype == dtype and torch.equal(q.float(), E4M3FN.quantize(x.float()))


def test_step_is_the_distance_of_neighbouring_values():
    grid = E2M1.values()
    inside = (grid[1:] + grid[:-1]) / 2 * 1.0001
    assert torch.equal(E2M1.step(inside), grid.diff())
    assert E2M1.step(torch.tensor([100.0, -math.inf])).tolist() == [2.0, 2.0]


def test_straight_through_gradient_and_exact_grid_values():
    quantizer = Quantizer(E2M1, 0.37)
    x = torch.linspace(-4, 4, 101, requires_grad=True)
    y = quantizer(x)
    y.sum().backward()
    assert torch.equal(x.grad, (x.detach().abs() <= 0.37 * 6).float())
    assert torch.equal(y, quantizer(x.detach()))
    units = torch.cat([E2M1.values(), -E2M1.values()]).float() * torch.tensor(0.37)
    assert bool(torch.isin(y, units).all())


def test_per_channel_scales_act_on_their_axis():
    x = torch.randn(3, 5, 7) * torch.tensor([1.0, 10.0, 0.1, 3.0, 100.0])[:, None]
    quantizer = absmax_quantizer(x, E4M3FN, channel_axis=1)
    expected = torch.stack([absmax_quantizer(x[:, i], E4M3FN)(x[:, i]) for i in range(5)], dim=1)
    assert torch.equal(quantizer(x), expected)
    top = x.abs().amax((0, 2))
    torch.testing.assert_close(quantizer(x).abs().amax((0, 2)), top)
    assert absmax_quantizer(torch.zeros(4), E2M1)(torch.zeros(4)).tolist() == [0] * 4


def gaussian():
    """Equally probable points of N(0, 1) in its bulk, and a fine cut of its tails: weights folded into repetition."""
    p = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    return torch.special.ndtri(p)


@pytest.mark.parametrize(
    ("format", "mse"),
    [
        (FPFormat(5, 2), 2.75e-3),
        (FPFormat(4, 3), 6.88e-4),
        (FPFormat(3, 4), 1.74e-4),
        (FPFormat(2, 5), 5.3e-5),
        (INTFormat(8), 8.3e-5),
        (FPFormat(2, 1), 1.254e-2),
        (INTFormat(4, narrow=True), 1.268e-2),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_least_error_on_a_gaussian(format, mse):
    quantizer, error = search_clip(gaussian(), format)
    assert float(error) == pytest.approx(mse, rel=0.06 if format.bits == 8 else 0.02)
    torch.testing.assert_close((quantizer(gaussian()) - gaussian()).square().mean(), error)


def test_search_finds_the_best_split_and_beats_the_largest_magnitude():
    x = gaussian()
    result = search_format(x, fp_splits(8, 2))
    assert result.quantizer.format == FPFormat(2, 5) and result.mse == min(result.mse_by_format.values())
    heavy = x * x.abs() ** 2
    assert search_format(heavy, fp_splits(8, 2)).quantizer.format.exponent_bits > 2
    for format in (E2M1, INTFormat(4, narrow=True)):
        plain = (absmax_quantizer(x, format)(x) - x).square().mean()
        assert search_clip(x, format)[1] < 0.9 * plain


def test_search_is_near_the_optimum_of_a_dense_scan():
    x = gaussian()[::10]
    for format in (E2M1, FPFormat(3, 2), INTFormat(4, narrow=True)):
        clips = torch.logspace(-0.5, 1, 3000).double()
        dense = min((Quantizer(format, c / format.max_value)(x) - x).square().mean() for c in clips)
        assert search_clip(x, format)[1] <= 1.01 * dense


def test_search_by_channel_equals_search_of_each_channel():
    x = torch.randn(3, 400) ** 3 * torch.tensor([[1.0], [20.0], [0.05]])
    quantizer, error = search_clip(x, E2M1, channel_axis=0)
    for row, scale, e in zip(x, quantizer.scale, error, strict=True):
        alone, alone_error = search_clip(row, E2M1)
        torch.testing.assert_close(alone.scale, scale)
        torch.testing.assert_close(alone_error, e)


def test_asymmetric_integers_use_the_range_of_one_sided_data_and_hold_zero():
    x = torch.nn.functional.silu(torch.randn(20_000) * 2)
    symmetric, asymmetric = search_clip(x, INTFormat(4))[1], search_clip(x, INTFormat(4), asymmetric=True)
    assert asymmetric[1] < 0.5 * symmetric
    assert asymmetric[0](torch.zeros(1)).item() == 0
    assert len(asymmetric[0](x).unique()) <= 16


def test_names():
    for format in (E4M3FN, E5M2, E2M1, E3M2, E2M3, INTFormat(6)):
        assert parse_format(format.name) == format
    assert [f.name for f in fp_splits(4)] == ["E1M2", "E2M1", "E3M0"]
    with pytest.raises(ValueError, match="E4Mx"):
        parse_format("E4Mx")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FPFormat(9, 2), "exponent_bits=9"),
        (lambda: FPFormat(4, 24), "mantissa_bits=24"),
        (lambda: FPFormat(0, 0), "exponent_bits=0"),
        (lambda: FPFormat(1, 2, specials="ieee"), "ieee"),
        (lambda: FPFormat(0, 3, specials="fn"), "fn"),
        (lambda: FPFormat(4, 3, specials="inf"), "specials"),
        (lambda: FPFormat(4, 3, bias=math.nan), "bias"),
        (lambda: INTFormat(1), "bits=1"),
        (lambda: fp_splits(1), "bits=1"),
        (lambda: E2M1.quantize(torch.ones(2), "special"), "special"),
        (lambda: E2M1.quantize(torch.ones(2, dtype=torch.int32)), "int32"),
        (lambda: E2M1.encode(torch.tensor([math.nan])), "NaN"),
        (lambda: FPFormat(5, 10).encode(torch.ones(1)), "16 bits"),
        (lambda: E2M1.with_max(0.0), "max_value"),
        (lambda: Quantizer(E2M1, -1.0), "scale"),
        (lambda: Quantizer(E2M1, torch.ones(3)), "scale"),
        (lambda: absmax_quantizer(torch.ones(0), E2M1), "empty"),
        (lambda: absmax_quantizer(torch.tensor([math.inf]), E2M1), "infinity"),
        (lambda: search_clip(torch.ones(0), E2M1), "empty"),
        (lambda: search_clip(torch.tensor([math.nan]), E2M1), "NaN"),
        (lambda: search_clip(torch.ones(3), E2M1, asymmetric=True), "asymmetric"),
        (lambda: search_clip(torch.ones(3), E2M1, candidates=1), "candidates=1"),
        (lambda: search_format(torch.ones(3), []), "formats"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
