"""The law's closed forms against numerical ones, its fit, and training through quantized products."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from plugins.generative.mixtures import GaussianMixture
from plugins.generative.quantization import E2M1, E4M3FN, FPFormat
from plugins.generative.scaling_law import (
    PUBLISHED,
    TARGETS,
    BlockQuantizer,
    DenoiserEnsemble,
    DenoisingTask,
    QuantizedLinear,
    TrainingRun,
    fit,
    fit_penalty,
    paired_penalties,
    train_runs,
)

FORMATS = [(1, 1), (1, 3), (2, 1), (3, 1), (2, 3), (4, 3), (5, 2)]


def synthetic(noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    runs = []
    for n in (41e6, 85e6, 154e6, 679e6):
        for d in (1e10, 2e10, 5e10, 1e11):
            settings = [(e, m, b) for e, m in FORMATS for b in (32, 512)] + [(8, 23, 1)]
            for e, m, b in settings:
                loss = float(PUBLISHED.loss(n, d, e, m, b)) * (1 + noise * rng.standard_normal())
                runs.append(TrainingRun(n, d, e, m, b, loss))
    return runs


def test_published_consequences():
    critical = PUBLISHED.critical_tokens(1e9, [8, 4, 2], [7, 3, 1], 128)
    np.testing.assert_allclose(critical, [1.73e15, 2.73e13, 3.93e11], rtol=2e-3)
    # Figure 5 of the paper, 2 to 16 bits
    layouts = "E1M0 E1M1 E2M1 E2M2 E3M2 E3M3 E4M3 E4M4 E5M4 E5M5 E6M5 E6M6 E7M6 E7M7 E8M7".split()
    assert [PUBLISHED.optimal_format(bits).name for bits in range(2, 17)] == layouts
    best = PUBLISHED.optimal_precision([1e11, 1e14], 128)  # "consistently within 4 to 8 bits"
    assert 4 < best[0] < best[1] < 8


def test_optimal_layout_minimises_the_loss_over_real_splits():
    for bits in (4.0, 8.0, 16.0):
        found = minimize_scalar(
            lambda m, p=bits: float(PUBLISHED.information_loss(p - 1 - m, m, 2)),
            bounds=(0, bits - 1),
            method="bounded",
            options={"xatol": 1e-10},
        )
        exponent, mantissa = PUBLISHED.optimal_layout(bits)
        assert mantissa == pytest.approx(found.x, abs=1e-5) and exponent + mantissa + 1 == bits
    assert [float(b) for b in PUBLISHED.optimal_layout(1)] == [0, 0]


def test_the_slope_in_data_vanishes_at_the_critical_size_and_changes_sign_there():
    for n, e, m, b in ((1e9, 8, 7, 128), (1e9, 4, 3, 128), (4e7, 2, 1, 32), (7e10, 1, 1, 512)):
        critical = float(PUBLISHED.critical_tokens(n, e, m, b))
        scale = PUBLISHED.beta * PUBLISHED.d / critical**PUBLISHED.beta  # of either of the two terms of D·dL/dD
        assert abs(critical * PUBLISHED.loss_gradient_in_tokens(n, critical, e, m, b)) < 1e-8 * scale
        below, above = PUBLISHED.loss_gradient_in_tokens(n, critical * np.array([0.9, 1.1]), e, m, b)
        assert below < 0 < above
        at = PUBLISHED.loss(n, critical * np.array([0.8, 1.0, 1.25]), e, m, b)
        assert at[1] < at[0] and at[1] < at[2]
    assert PUBLISHED.critical_tokens(1e9, 2, 1, 1) == np.inf


def test_the_slope_is_that_of_the_loss():
    d, args = np.array([1e10, 1e12]), (2, 1, 64)
    step = d * 1e-4
    numeric = (PUBLISHED.loss(1e8, d + step, *args) - PUBLISHED.loss(1e8, d - step, *args)) / (2 * step)
    np.testing.assert_allclose(PUBLISHED.loss_gradient_in_tokens(1e8, d, *args), numeric, rtol=1e-5)


def test_optimal_precision_minimises_the_loss_at_fixed_compute():
    budget = 1e21
    for d, b in ((1e11, 128), (3e12, 32)):

        def loss(p, d=d, b=b):
            e, m = PUBLISHED.optimal_layout(p)
            return float(PUBLISHED.loss(budget / (p * d), d, e, m, b))

        found = minimize_scalar(loss, bounds=(2, 30), method="bounded", options={"xatol": 1e-9})
        assert float(PUBLISHED.optimal_precision(d, b)) == pytest.approx(found.x, rel=1e-3)


def test_full_precision_is_chinchillas_law_and_arguments_broadcast():
    n, d = np.array([[1e8], [1e9]]), np.array([1e10, 1e11, 1e12])
    chinchilla = PUBLISHED.n / n**PUBLISHED.alpha + PUBLISHED.d / d**PUBLISHED.beta + PUBLISHED.epsilon
    np.testing.assert_allclose(PUBLISHED.loss(n, d, 4, 3, 1), chinchilla, rtol=1e-14)
    assert PUBLISHED.loss(n, d, 4, 3, 128).shape == (2, 3)
    assert bool((PUBLISHED.loss(n, d, 2, 1, 128) > PUBLISHED.loss(n, d, 4, 3, 128)).all())


def test_fit_recovers_the_constants_from_clean_runs():
    result = fit(synthetic())
    for name, value in dataclasses.asdict(PUBLISHED).items():
        assert getattr(result.law, name) == pytest.approx(value, rel=1e-4), name
    assert result.r_squared > 1 - 1e-10 and np.abs(result.residuals).max() < 1e-6


def test_fit_of_noisy_runs_errs_by_what_it_says():
    pulls = []
    for seed in range(6):
        result = fit(synthetic(noise=0.002, seed=seed), starts=4)
        assert result.relative_rms == pytest.approx(0.002, rel=0.2)
        for name, value in dataclasses.asdict(PUBLISHED).items():
            pulls.append((getattr(result.law, name) - value) / result.standard_errors[name])
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.5 and np.abs(pulls).max() < 5


def test_runs_without_a_penalty_fit_an_infinite_gamma():
    runs = [r._replace(loss=float(PUBLISHED.loss(r.parameters, r.tokens, 8, 23, 1))) for r in synthetic()]
    result = fit(runs, starts=2)
    assert result.law.gamma > 1e6 * PUBLISHED.gamma and result.relative_rms < 1e-6
    assert result.relative_rms_without_precision < 1e-6
    assert fit(synthetic(), starts=2).relative_rms_without_precision > 1e-3


def test_paired_differences_give_the_precision_term_alone():
    runs = synthetic()
    wrong_base = [r._replace(loss=r.loss + np.sin(r.parameters) + np.log(r.tokens)) for r in runs]  # the same in pairs
    quantized, penalty = paired_penalties(wrong_base)
    law = PUBLISHED.precision_penalty(*np.array(quantized)[:, :5].T)
    np.testing.assert_allclose(penalty, law, rtol=1e-6)
    found = fit_penalty(wrong_base)
    expected = (-PUBLISHED.alpha, PUBLISHED.beta, PUBLISHED.delta, PUBLISHED.nu)
    got = (found.parameters_exponent, found.tokens_exponent, found.delta, found.nu)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert found.r_squared > 1 - 1e-9
    np.testing.assert_allclose(found.predicted, law, rtol=1e-4)
    with pytest.raises(ValueError, match="no full-precision run"):
        fit_penalty(quantized)
    with pytest.raises(ValueError, match="5 constants"):
        fit_penalty([r for r in runs if r.block_size == 1])


def test_block_quantizer_is_the_format_at_each_blocks_scale():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 10) * torch.logspace(-3, 3, 10)
    for format in (E2M1, E4M3FN, FPFormat(0, 7), FPFormat(1, 1)):
        q = BlockQuantizer(format, 4)(x)
        for block in (slice(0, 4), slice(4, 8), slice(8, 10)):  # the last block is short
            part = x[..., block]
            scale = format.max_value / part.abs().amax(-1, keepdim=True)
            torch.testing.assert_close(q[..., block], format.quantize(part * scale) / scale, rtol=1e-6, atol=0)
        along = BlockQuantizer(format, 4)(x.transpose(0, 2), axis=0)
        assert torch.equal(along, q.transpose(0, 2))
    torch.testing.assert_close(BlockQuantizer(E2M1, 1)(x), x, rtol=1e-6, atol=0)  # a scale each: nothing is lost
    assert torch.equal(BlockQuantizer(E2M1, 4)(torch.zeros(2, 8)), torch.zeros(2, 8))
    assert bool(BlockQuantizer(E2M1, 4)(torch.tensor([1e-44, 0.0, -1e-44, 0.0])).isfinite().all())


def test_members_side_by_side_equal_members_alone():
    torch.manual_seed(0)
    x = torch.randn(2, 7, 12)
    formats = [FPFormat(2, 1), FPFormat(4, 3)]
    together = BlockQuantizer(formats, 5)(x)
    for i, format in enumerate(formats):
        torch.testing.assert_close(together[i], BlockQuantizer(format, 5)(x[i]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("targets", [(t,) for t in TARGETS] + [TARGETS, ()], ids=lambda t: "+".join(t) or "none")
def test_each_product_sees_its_operands_quantized(targets):
    torch.manual_seed(0)
    layer = QuantizedLinear(12, 6, E2M1, block_size=4, targets=targets)
    x, g = torch.randn(8, 12, requires_grad=True), torch.randn(8, 6)
    q = BlockQuantizer(E2M1, 4)

    def of(name, tensor, axis):
        return q(tensor, axis) if name in targets else tensor

    w = layer.weight.detach()
    y = layer(x)
    y.backward(g)
    torch.testing.assert_close(y, of("input", x, -1) @ of("weight", w, -1).T)
    torch.testing.assert_close(x.grad, of("output_grad", g, -1) @ of("weight_backward", w, -2))
    expected = of("output_grad_weight", g, -2).T @ of("input_backward", x.detach(), -2)
    torch.testing.assert_close(layer.weight.grad, expected)
    torch.testing.assert_close(layer.bias.grad, g.sum(0, keepdim=True))


def test_fine_formats_approach_the_plain_layer():
    torch.manual_seed(0)
    layer = QuantizedLinear(16, 8, FPFormat(8, 23), block_size=8, targets=TARGETS)
    plain = nn.Linear(16, 8)
    plain.weight.data, plain.bias.data = layer.weight.data.clone(), layer.bias.data[0].clone()
    x = torch.randn(32, 16)
    for module in (layer, plain):
        module(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    return DenoisingTask(GaussianMixture(torch.randn(10, 16), 0.3), test_size=2000)


def test_the_floor_is_the_loss_of_the_best_denoiser(task):
    assert task.losses(task.best[None]).item() == pytest.approx(task.floor)
    y, sigma, clean = task.draw(50_000, torch.Generator().manual_seed(5))
    direct = (task.weight(sigma) * (task.mixture(y, sigma) - clean).square()).mean()
    assert float(direct) == pytest.approx(task.floor, rel=0.02)


def test_runs_are_reproducible_paired_and_ordered_by_precision(task):
    formats = [FPFormat(1, 1), FPFormat(2, 3), FPFormat(8, 23)]
    runs = train_runs(task, width=16, steps=60, formats=formats, block_size=8)
    again = train_runs(task, width=16, steps=60, formats=formats, block_size=8)
    assert runs == again
    (full,) = train_runs(task, width=16, steps=60, formats=None)
    assert runs[2].loss == pytest.approx(full.loss, rel=1e-4)  # the same weights and data, hardly any rounding
    assert runs[0].loss > runs[1].loss > task.floor
    assert full[:2] == runs[0][:2] == (17 * 16 + 16 + 4 * (16 * 16 + 16) + 16 * 16 + 16, 60 * 64)
    assert full.block_size == 1 and runs[0].block_size == 8
    (longer,) = train_runs(task, width=16, steps=240, formats=None)
    assert longer.loss < full.loss


def test_a_member_of_an_ensemble_trains_as_it_would_alone(task):
    formats = [FPFormat(1, 1), FPFormat(3, 2)]
    together = train_runs(task, width=16, steps=20, formats=formats, block_size=8)
    alone = [train_runs(task, width=16, steps=20, formats=[f], block_size=8)[0] for f in formats]
    for one, other in zip(together, alone, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
    assert DenoiserEnsemble(16, 16, 2, formats, 8).parameters_each == together[0].parameters


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PUBLISHED.loss(0, 1e9, 2, 1, 32), "parameters"),
        (lambda: PUBLISHED.loss(1e6, -1, 2, 1, 32), "tokens"),
        (lambda: PUBLISHED.loss(1e6, 1e9, -1, 1, 32), "exponent_bits"),
        (lambda: PUBLISHED.loss(1e6, 1e9, 2, 1, 0.5), "block_size"),
        (lambda: PUBLISHED.optimal_format(1), "bits=1"),
        (lambda: PUBLISHED.optimal_layout(0.5), "bits"),
        (lambda: dataclasses.replace(PUBLISHED, alpha=-1.0), "alpha"),
        (lambda: fit(synthetic()[:7]), "7 runs"),
        (lambda: fit([r._replace(parameters=1e6) for r in synthetic()]), "parameters"),
        (lambda: fit([r._replace(exponent_bits=2) for r in synthetic()]), "exponent_bits"),
        (lambda: fit([r._replace(loss=np.nan) for r in synthetic()]), "NaN"),
        (lambda: fit([r._replace(tokens=0) for r in synthetic()]), "tokens"),
        (lambda: fit([r._replace(block_size=0) for r in synthetic()]), "block_size"),
        (lambda: BlockQuantizer(E2M1, 0), "block_size=0"),
        (lambda: BlockQuantizer([], 4), "formats"),
        (lambda: QuantizedLinear(4, 4, E2M1, targets=("weigth",)), "weigth"),
        (lambda: DenoisingTask(GaussianMixture(torch.zeros(1, 2), 1.0), (1.0, 0.5)), "sigmas"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_blocks_longer_than_what_they_run_along_are_refused(task):
    with pytest.raises(ValueError, match="block_size=32"):
        train_runs(task, width=16, steps=5, formats=[E2M1], block_size=32)
