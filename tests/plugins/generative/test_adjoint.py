"""Gradients through sampling: against finite differences, autograd and each other; memory that does not grow."""

import math

import pytest
import torch
from torch import nn

from plugins.generative.grids import append_zero, karras
from plugins.generative.mixtures import GaussianMixture, toy_mixture
from plugins.generative.parameterizations import ClassifierFreeGuidance
from plugins.generative.solvers import RungeKutta
from plugins.generative.solvers.adjoint import METHODS, adjoint_sample
from plugins.generative.studies.memory import peak_allocation

MIXTURE = toy_mixture()


def noise(count=8, sigma=80.0):
    return sigma * torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def gradients(steps, method="rk4", gradient="adjoint", sigma_min=0.002):
    """Of a loss on the sample with respect to the starting noise and the means of the mixture."""
    means = MIXTURE.means.clone().requires_grad_()
    y = noise().requires_grad_()

    def denoiser(y, sigma):
        return GaussianMixture(means, MIXTURE.std, MIXTURE.weights)(y, sigma)

    sample = adjoint_sample(denoiser, y, karras(steps, 80.0, sigma_min), method=method, gradient=gradient)
    loss = (sample - torch.tensor([1.0, 0.4], dtype=torch.float64)).square().sum()
    return torch.autograd.grad(loss, (y, means))


@pytest.fixture(scope="module")
def exact():
    return gradients(400, gradient="backprop")


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2", "kutta3", "rk4"])
@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint", "backprop"])
def test_samples_are_those_of_the_runge_kutta_solver(method, gradient):
    y = noise()
    for grid in (karras(6), append_zero(karras(5))):
        ours = adjoint_sample(MIXTURE, y.requires_grad_(), grid, method=method, gradient=gradient).detach()
        if method == "midpoint":
            levels = karras(1, 2.0, 1.0)
            single = adjoint_sample(MIXTURE, y, levels, method=method)
            half = y + (1.5 - 2.0) * (y - MIXTURE(y, 2.0)) / 2.0
            assert (single - (y - (half - MIXTURE(half, 1.5)) / 1.5)).abs().max() < 1e-12
        else:
            theirs = RungeKutta(method).sample(MIXTURE, y.detach(), grid)
            assert (ours - theirs).abs().max() < 1e-11


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_checkpoint_equals_backprop(method):
    for one, other in zip(gradients(6, method, "checkpoint"), gradients(6, method, "backprop"), strict=True):
        assert relative(one, other) < 1e-12


def test_backprop_is_the_derivative_of_the_sample():
    y = noise(2, 3.0).requires_grad_()
    grid = karras(4, 3.0, 0.1)
    for gradient in ("backprop", "checkpoint"):
        assert torch.autograd.gradcheck(lambda y, g=gradient: adjoint_sample(MIXTURE, y, grid, gradient=g), (y,))


@pytest.mark.parametrize(("method", "order"), [("midpoint", 2), ("heun2", 2), ("rk4", 4)])
def test_the_adjoint_converges_to_the_exact_gradient_at_the_order_of_its_method(method, order, exact):
    errors = [[relative(a, b) for a, b in zip(gradients(n, method), exact, strict=True)] for n in (40, 80)]
    for coarse, fine in zip(*errors, strict=True):
        assert abs(math.log2(coarse / fine) - order) < 0.5
    if method == "rk4":
        assert max(errors[0]) < 2e-4 and max(errors[1]) < 1e-5


def test_euler_adjoints_are_poor_at_few_steps(exact):
    """What the docstring warns of."""
    assert relative(gradients(40, "euler")[0], exact[0]) > 0.1 > relative(gradients(40, "rk4")[0], exact[0])


def test_stages_see_the_true_noise_level():
    """A linear denoiser D = c(sigma) y has dy0/dy in closed form, which snapped stages would miss."""
    std = 0.5

    def denoiser(y, sigma):
        return std**2 / (std**2 + sigma**2) * y

    for method in ("midpoint", "rk4"):
        y = noise(3, 4.0).requires_grad_()
        (a,) = torch.autograd.grad(adjoint_sample(denoiser, y, karras(80, 4.0, 0.05), method=method).sum(), y)
        expected = math.sqrt((std**2 + 0.05**2) / (std**2 + 16))
        assert (a - expected).abs().max() < (1e-3 if method == "midpoint" else 1e-6)


class Network(nn.Module):
    """A small conditional denoiser."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2)).double()

    def forward(self, y, sigma, c):
        keep = 1 / (1 + sigma**2)
        inputs = torch.cat([y * keep.sqrt(), c.expand(len(y), 2), sigma.log().expand(len(y), 1)], dim=1)
        return keep * y + sigma * keep.sqrt() * self.body(inputs)


@pytest.mark.parametrize("end", ["sigma_min", "zero"])
def test_weights_embedding_and_guidance_scale_all_get_gradients(end):
    network = Network()
    embedding = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    null = torch.zeros(2, dtype=torch.float64)
    denoiser = ClassifierFreeGuidance(
        lambda y, s: network(y, s, embedding), lambda y, s: network(y, s, null), scale
    )
    y = noise(4, 5.0).requires_grad_()
    wanted = [y, embedding, scale, *network.parameters()]
    grid = karras(60, 5.0, 0.1, end=end)
    results = {}
    for gradient in ("adjoint", "backprop", "checkpoint"):
        loss = adjoint_sample(denoiser, y, grid, gradient=gradient).square().sum()
        results[gradient] = torch.autograd.grad(loss, wanted)
    for one, other, third in zip(*results.values(), strict=True):
        assert other.norm() > 1e-4
        assert relative(one, other) < 1e-5 and relative(third, other) < 1e-10


def test_a_computed_embedding_can_be_named_and_passes_its_gradient_on():
    network = Network()
    source = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    y, grid = noise(4, 5.0), karras(40, 5.0, 0.1)

    def gradient(named):
        embedding = torch.tanh(source)
        options = {"parameters": [embedding]} if named else {"gradient": "backprop"}
        sample = adjoint_sample(lambda y, s: network(y, s, embedding), y, grid, **options)
        return torch.autograd.grad(sample.square().sum(), source, retain_graph=True)[0]

    assert relative(gradient(True), gradient(False)) < 1e-5


def test_named_parameters_alone_get_gradients():
    network = Network()
    embedding = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    sample = adjoint_sample(
        lambda y, s: network(y, s, embedding), noise(4, 5.0), karras(10, 5.0, 0.1), parameters=[embedding]
    )
    sample.sum().backward()
    assert embedding.grad is not None and all(weight.grad is None for weight in network.parameters())


def wide(width):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))
    return lambda y, sigma: body(y / (1 + sigma.float()))


def saved_bytes(gradient, steps):
    """Bytes autograd keeps between the forward and the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    y = noise(64).float().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        sample = adjoint_sample(wide(64), y, karras(steps), gradient=gradient)
    assert sample.requires_grad
    return sum(kept.values())


def test_what_is_kept_for_the_backward_pass():
    assert saved_bytes("adjoint", 40) == saved_bytes("adjoint", 5)
    assert saved_bytes("backprop", 40) > 6 * saved_bytes("backprop", 5)


def test_peak_memory_is_flat_for_the_adjoint_and_grows_without_it():
    """Peak of the allocator over forward and backward together."""

    def peak(gradient, steps):
        y = noise(256).float().requires_grad_()
        denoiser, grid = wide(128), karras(steps)

        def work():
            adjoint_sample(denoiser, y, grid, gradient=gradient).square().sum().backward()

        return peak_allocation(work)

    assert peak("adjoint", 32) < 1.2 * peak("adjoint", 4)
    assert peak("backprop", 32) > 4 * peak("backprop", 4)
    assert peak("adjoint", 32) < peak("checkpoint", 32) < 0.5 * peak("backprop", 32)


def test_peak_allocation_counts_what_is_alive_at_once():
    def work():
        first = [torch.zeros(1000, 1000) for _ in range(3)]
        del first
        torch.zeros(2000, 1000)

    assert peak_allocation(work) == pytest.approx(12e6, rel=0.01)


def test_no_gradient_no_graph():
    with torch.no_grad():
        assert not adjoint_sample(MIXTURE, noise().requires_grad_(), karras(4)).requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rk5"}, "method"),
        ({"gradient": "symplectic"}, "gradient"),
        ({"gradient": "backprop", "parameters": []}, "restricts"),
        ({"parameters": [torch.zeros(2)]}, "do not require gradients"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        adjoint_sample(MIXTURE, noise().requires_grad_(), karras(4), **options)


@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint", "backprop"])
def test_a_bad_denoiser_is_named_with_its_step(gradient):
    y, grid = noise().requires_grad_(), karras(4)
    with pytest.raises(ValueError, match="at step 0"):
        adjoint_sample(lambda y, s: y[:, :1], y, grid, gradient=gradient)
    with pytest.raises(ValueError, match="NaN or infinity at step 2"):
        adjoint_sample(lambda y, s: y * (float("nan") if s < 0.999 * grid[2] else 0.5), y, grid, gradient=gradient)


def test_every_tableau_is_consistent():
    for order, tableau in METHODS.values():
        assert sum(tableau[-1]) == pytest.approx(1.0) and order <= len(tableau) - 1


def test_the_studys_sampler_reaches_noise_embedding_and_weights():
    from plugins.generative.networks import UNet
    from plugins.generative.studies.adjoint_guidance import EMBEDDING, DigitSampler

    torch.manual_seed(0)
    network = UNet(width=8, multipliers=(1,), num_classes=10).double()
    for parameter in network.parameters():
        if not parameter.any():  # zero-initialised layers would hide the gradients behind them
            nn.init.normal_(parameter, std=0.05)
    embedding = network.get_parameter(EMBEDDING)
    weights = [p for p in network.parameters() if p is not embedding]
    start = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([3, 10])
    results = []
    for gradient in ("adjoint", "backprop"):
        sampler = DigitSampler(network, 12, "rk4", gradient)
        images = sampler(start, labels, embedding)
        results.append(torch.autograd.grad(images.square().sum(), [start, embedding, *weights], allow_unused=True))
    assert all(found is not None for found in results[0])
    adjoint, exact = ([*found[:2], torch.cat([g.flatten() for g in found[2:]])] for found in results)
    for one, other in zip(adjoint, exact, strict=True):
        assert relative(one, other) < 0.02
    # only the labels in use have conditioning gradients
    assert results[0][1].norm(dim=1).nonzero().flatten().tolist() == [3, 10]
