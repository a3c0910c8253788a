import pytest
import torch

from plugins.generative.acceleration import (
    PUBLISHED_50,
    EncoderPropagation,
    KeyStepPolicy,
    network_times,
    sample_with_prior_noise,
)
from plugins.generative.grids import karras
from plugins.generative.networks import UNet
from plugins.generative.parameterizations import NetworkDenoiser
from plugins.generative.schedules import Flow
from plugins.generative.solvers import DPMSolverPP2M, Euler, Heun

LABELS = torch.tensor([0, 3, 9])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = UNet(width=8, multipliers=(1, 2), attention_levels=(1,), num_classes=10).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return network


@torch.no_grad()
def trajectory(network, solver, steps, policy=None, parallel=False):
    """Final state, and the stand-in that produced it, None for the plain sampler."""
    sigmas = karras(steps, sigma_max=80.0, sigma_min=0.01)
    y = 80 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    stand_in = None if policy is None else EncoderPropagation(network, policy, parallel)
    if stand_in is not None:
        stand_in.begin(network_times(solver, sigmas, Flow()))
    used = stand_in or network
    denoiser = NetworkDenoiser(lambda x, t: used(x, t, LABELS), Flow(), "flow")
    return solver.sample(denoiser, y, sigmas), stand_in


@pytest.mark.parametrize("solver", [Euler(), Heun(), DPMSolverPP2M()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("parallel", [False, True])
def test_all_steps_as_keys_is_the_plain_sampler_bit_for_bit(network, solver, parallel):
    plain, _ = trajectory(network, solver, 8)
    out, _ = trajectory(network, solver, 8, KeyStepPolicy(every=1), parallel)
    assert torch.equal(out, plain)


@pytest.mark.parametrize("solver", [Euler(), Heun(), DPMSolverPP2M()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("policy", [KeyStepPolicy(every=4), KeyStepPolicy(steps=[0, 1, 5])])
def test_parallel_equals_serial_with_fewer_decoder_calls(network, solver, policy):
    serial, one = trajectory(network, solver, 10, policy)
    parallel, other = trajectory(network, solver, 10, policy, parallel=True)
    assert (serial - parallel).abs().max() < 1e-6
    evaluations = 10 * solver.evaluations
    keys = len(policy.keys(evaluations))
    assert (one.encoder_calls, one.decoder_calls) == (keys, evaluations)
    assert (other.encoder_calls, other.decoder_calls) == (keys, keys)
    plain, _ = trajectory(network, solver, 10)
    assert not torch.equal(serial, plain)


def test_error_grows_with_the_distance_between_keys(network):
    plain, _ = trajectory(network, Euler(), 24)
    errors = [
        (trajectory(network, Euler(), 24, KeyStepPolicy(every=every))[0] - plain).square().mean().sqrt().item()
        for every in (1, 2, 4, 8)
    ]
    assert errors[0] == 0
    assert errors == sorted(errors) and errors[1] < errors[3]


def test_between_keys_the_output_follows_the_time_and_not_the_state(network):
    stand_in = EncoderPropagation(network, KeyStepPolicy(steps=[0]))
    stand_in.begin([0.9, 0.5])
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        stand_in(x, torch.full((3,), 0.9), LABELS)
        reused = stand_in(torch.randn_like(x), torch.full((3,), 0.5), LABELS)
        features = network.encode(x, torch.full((3,), 0.9), LABELS)
        assert torch.equal(reused, network.decode(features, torch.full((3,), 0.5), LABELS))


def test_gradients_stop_at_reused_features(network):
    stand_in = EncoderPropagation(network, KeyStepPolicy(steps=[0]))
    stand_in.begin([0.9, 0.5])
    x = torch.randn(3, 1, 8, 8, requires_grad=True)
    key = stand_in(x, torch.full((3,), 0.9), LABELS)
    reused = stand_in(x, torch.full((3,), 0.5), LABELS)
    assert torch.autograd.grad(key.sum(), x, retain_graph=True)[0].any()
    assert torch.autograd.grad(reused.sum(), x, allow_unused=True)[0] is None


def test_begin_forgets_the_trajectory_before(network):
    stand_in = EncoderPropagation(network, KeyStepPolicy(steps=[0]), parallel=True)
    t = torch.full((3,), 0.9)
    with torch.no_grad():
        stand_in.begin([0.9, 0.5])
        stand_in(torch.randn(3, 1, 8, 8), t, LABELS)
        x = torch.randn(3, 1, 8, 8)
        stand_in.begin([0.9, 0.5])
        torch.testing.assert_close(stand_in(x, t, LABELS), network(x, t, LABELS), rtol=0, atol=1e-6)


def test_policies():
    assert KeyStepPolicy(every=4).keys(10) == (0, 4, 8)
    assert KeyStepPolicy(every=1).keys(3) == (0, 1, 2)
    assert KeyStepPolicy(steps=PUBLISHED_50).keys(50) == (0, 1, 2, 3, 5, 10, 15, 25, 35)


def test_network_times_follow_the_evaluations_of_the_solver():
    sigmas = karras(3, sigma_max=80.0, sigma_min=0.01)
    t = Flow().inverse_sigma_tilde(sigmas)
    assert torch.equal(network_times(Euler(), sigmas, Flow()), t[:3])
    assert torch.equal(network_times(Heun(), sigmas, Flow()), t[[0, 1, 1, 2, 2, 3]])


def test_prior_noise_adds_what_the_formula_says():
    """With D = 0 the plain trajectory is y * sigma / sigma_0, and every injection is carried on by the same factor."""
    schedule, sigmas = Flow(), karras(6, sigma_max=80.0, sigma_min=0.01)
    y = 80 * torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = schedule.inverse_sigma_tilde(sigmas)
    alpha = schedule.alpha(t)
    expected = y * sigmas[-1] / sigmas[0]
    for i in range(6):
        if t[i] / schedule.t_max < 0.5:
            expected = expected + 0.003 * alpha[0] * y / alpha[i] * sigmas[-1] / sigmas[i]
    out = sample_with_prior_noise(Euler(), lambda y, s: torch.zeros_like(y), y, sigmas, schedule)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-14)
    silent = sample_with_prior_noise(Euler(), lambda y, s: 0.5 * y, y, sigmas, schedule, strength=0.0)
    assert torch.equal(silent, Euler().sample(lambda y, s: 0.5 * y, y, sigmas))


def call(network, times, batches, policy=None):
    stand_in = EncoderPropagation(network, policy or KeyStepPolicy(every=2))
    if times is not None:
        stand_in.begin(times)
    for size, t in batches:
        stand_in(torch.zeros(size, 1, 8, 8), torch.full((size,), t))


@pytest.mark.parametrize(
    "work, message",
    [
        (lambda n: KeyStepPolicy(), "either every or steps"),
        (lambda n: KeyStepPolicy(every=2, steps=[0]), "either every or steps"),
        (lambda n: KeyStepPolicy(every=0), "every must be at least 1"),
        (lambda n: KeyStepPolicy(steps=[1, 2]), "step 0 has no features"),
        (lambda n: KeyStepPolicy(steps=[0, 3, 3]), "ascend"),
        (lambda n: KeyStepPolicy(steps=PUBLISHED_50).keys(20), "key step 35 lies outside a trajectory of 20"),
        (lambda n: EncoderPropagation(torch.nn.Linear(1, 1), KeyStepPolicy(every=1)), "has no encode"),
        (lambda n: call(n, None, [(1, 0.5)]), "begin"),
        (lambda n: call(n, [], []), "network time of each step"),
        (lambda n: call(n, [0.9], [(1, 0.9), (1, 0.5)]), "used up"),
        (lambda n: call(n, [0.9, 0.5], [(1, 0.9), (1, 0.4)]), "announced at time 0.5 and called at 0.4"),
        (lambda n: call(n, [0.9, 0.5], [(1, 0.9), (2, 0.5)]), "when the batch changes"),
        (
            lambda n: sample_with_prior_noise(
                DPMSolverPP2M(), lambda y, s: y, torch.ones(1, 1), karras(3), Flow()
            ),
            "one-step solver",
        ),
    ],
)
def test_misuse_is_named(network, work, message):
    with pytest.raises(ValueError, match=message):
        work(network)
