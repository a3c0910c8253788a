"""The hand-written derivatives, to third order, against finite differences, in one piece and in many."""

import math

import pytest
import torch
from scipy.special import eval_legendre
from torch.autograd import gradcheck, gradgradcheck

from plugins.equivariant.bases import KernelMLP
from plugins.equivariant.bases.harmonics import ZonalFiber
from plugins.equivariant.bases.zonal import ZonalAttributes, ZonalBasis, zonal_polynomials
from plugins.equivariant.geometry import Grid, circle, fibonacci, icosahedral
from plugins.equivariant.layers import activation, gather, gather_scale_sum, gelu_linear
from plugins.equivariant.layers.factored import FactoredKernel, factored_messages


def _random(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture(params=["one piece", "many pieces"])
def pieces(request, monkeypatch):
    if request.param == "many pieces":
        monkeypatch.setattr(activation, "CHUNK", 8)
        monkeypatch.setattr(gather, "CHUNK", 8)


def _slope(function, inputs):
    """The gradients of a fixed functional of the outputs, themselves functions of the inputs."""

    def gradients(*inputs):
        outs = function(*inputs)
        total = sum((out.sin() * (k + 1)).sum() for k, out in enumerate(outs if isinstance(outs, list) else [outs]))
        return torch.autograd.grad(total, inputs, create_graph=True)

    return gradients


def test_gelu_linear_has_three_derivatives(pieces):
    torch.manual_seed(0)
    inputs = _random(5, 3), _random(2, 3), _random(4, 3), _random(2)

    def function(x, w, v, bias):
        return gelu_linear(x, [w, v], bias)

    expected = [torch.nn.functional.gelu(inputs[0]) @ w.T for w in inputs[1:3]]
    expected[0] = expected[0] + inputs[3]
    for out, wanted in zip(function(*inputs), expected, strict=True):
        torch.testing.assert_close(out, wanted, rtol=1e-13, atol=1e-13)
    assert gradcheck(function, inputs) and gradgradcheck(function, inputs)
    assert gradgradcheck(_slope(function, inputs), inputs)


def test_messages_have_three_derivatives(pieces):
    torch.manual_seed(1)
    # two edges share each row of the kernel, one node receives nothing, one edge is a loop
    sender, receiver = torch.tensor([0, 1, 2, 2, 3, 0]), torch.tensor([1, 2, 2, 0, 1, 0])
    kernel, x = _random(3, 4), _random(4, 4)

    def function(kernel, x):
        return gather_scale_sum(kernel, x, sender, receiver, 4)

    wanted = torch.zeros(4, 4, dtype=torch.float64)
    for e in range(6):
        wanted[receiver[e]] += kernel[e % 3] * x[sender[e]]
    torch.testing.assert_close(function(kernel, x), wanted, rtol=1e-14, atol=1e-14)
    assert gradcheck(function, (kernel, x)) and gradgradcheck(function, (kernel, x))
    assert gradgradcheck(_slope(function, (kernel, x)), (kernel, x))


def test_messages_of_factored_kernels_are_those_of_the_kernels_and_have_three_derivatives(pieces):
    torch.manual_seed(5)
    # three kernels of two rows each, each used by two edges; one row receives nothing, one edge is a loop
    sender = torch.tensor([0, 1, 2, 3, 4, 5, 2, 0, 5, 1, 4, 4])
    receiver = torch.tensor([1, 2, 2, 0, 1, 0, 4, 4, 5, 5, 4, 0])
    inputs = _random(3, 4, 2), _random(3, 2, 3), _random(6, 6)

    def function(a, b, x):
        return factored_messages(FactoredKernel(a, b), x, sender, receiver)

    a, b, x = inputs
    torch.testing.assert_close(function(*inputs), gather_scale_sum((a @ b).view(6, 6), x, sender, receiver, 6))
    assert gradcheck(function, inputs) and gradgradcheck(function, inputs)
    assert gradgradcheck(_slope(function, inputs), inputs)
    # as in training on energies alone, where positions want no gradient
    known = a.detach()
    assert gradcheck(lambda b, x: function(known, b, x), (b, x))
    assert gradgradcheck(lambda b, x: function(known, b, x), (b, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fast_curvature_is_the_second_derivative_of_gelu_everywhere(dtype):
    x = torch.cat([torch.linspace(-14, 14, 2801), torch.tensor([0.0, 1e-8, -1e-8, 40.0, -40.0, 1e4])]).double()
    wanted = (2 - x.square()) * (-0.5 * x.square()).exp() / math.sqrt(2 * math.pi)
    found = activation._fast_curvature(x.to(dtype))
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_a_kernel_basis_of_nothing_is_empty_and_any_shape_of_attributes_will_do():
    basis = KernelMLP(2, 6, 5).double()
    assert basis(torch.zeros(0, 4, 2, dtype=torch.float64)).shape == (0, 4, 5)
    attributes = torch.randn(3, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(basis(attributes)[1, 2], basis(attributes[1, 2][None])[0], rtol=1e-13, atol=1e-13)


def test_zonal_polynomials_are_legendres_of_the_cosine_and_powers_of_the_length():
    torch.manual_seed(3)
    rel, points = torch.randn(7, 3, dtype=torch.float64), icosahedral()[0]
    length = rel.norm(dim=-1, keepdim=True)
    cosine = (rel / length) @ points.T
    found = zonal_polynomials(rel, points, 6, soft=0.7)
    shrunk = length / (length.square() + 0.7**2).sqrt()
    for order in range(7):
        wanted = math.sqrt(2 * order + 1) * torch.from_numpy(eval_legendre(order, cosine.numpy())) * shrunk**order
        torch.testing.assert_close(found[..., order], wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(zonal_polynomials(-rel, -points, 6, soft=0.7), found, rtol=1e-13, atol=1e-13)
    assert torch.equal(zonal_polynomials(torch.zeros(1, 3), points.float(), 3)[0, :, 1:], torch.zeros(12, 3))


def test_plane_harmonics_are_cosines_and_sines_of_the_angle():
    angle, turn = torch.linspace(-3, 3, 11, dtype=torch.float64), torch.tensor([0.3, 2.0], dtype=torch.float64)
    rel, points = (torch.stack([a.cos(), a.sin()], -1) for a in (angle, turn))
    found, between = zonal_polynomials(rel, points, 3, soft=0), angle[:, None] - turn
    wanted = [torch.ones_like(between)]
    for order in (1, 2, 3):
        wanted += [math.sqrt(2) * (order * between).cos(), math.sqrt(2) * (order * between).sin()]
    torch.testing.assert_close(found, torch.stack(wanted, -1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make, count", [(circle, 16), (fibonacci, 4000)])
def test_zonal_polynomials_are_orthonormal_over_directions(make, count):
    directions = make(count)[0]
    functions = zonal_polynomials(directions, directions[:1], 4, soft=0)[:, 0]
    gram = functions.T @ functions / count
    assert (gram - torch.eye(len(gram))).abs().max() < (1e-12 if make is circle else 1e-2)


@pytest.mark.parametrize("n", [2, 3])
def test_zonal_kernels_are_linear_maps_of_the_basis(n):
    torch.manual_seed(4)
    basis = ZonalBasis(n, hidden=6, basis_dim=5, degree=3).double()
    points = (circle(6) if n == 2 else icosahedral())[0]
    rel = torch.randn(4, n, dtype=torch.float64)
    at = ZonalAttributes(rel.norm(dim=-1, keepdim=True), zonal_polynomials(rel, points, 3))
    weights = [torch.randn(c, basis.out_features, dtype=torch.float64) for c in (2, 3)]
    for kernel, weight in zip(basis.kernels(at, weights), weights, strict=True):
        torch.testing.assert_close(kernel.dense(), basis(at) @ weight.T, rtol=1e-12, atol=1e-12)
    nothing = ZonalAttributes(at.length[:0], at.angular[:0])
    assert basis.kernels(nothing, weights)[0].dense().shape == (0, len(points), 2)


@pytest.mark.parametrize("make, count", [(circle, 7), (icosahedral, 12), (fibonacci, 9)])
@pytest.mark.parametrize("degree", [1, 3, 4])
def test_convolution_in_harmonics_is_the_sum_over_orientations(make, count, degree):
    torch.manual_seed(6)
    points = make()[0] if make is icosahedral else make(count)[0]
    weights = torch.rand(count, dtype=torch.float64)
    fiber = ZonalFiber(Grid(points, weights), degree)
    values = zonal_polynomials(points, points, degree, soft=0).transpose(0, 1) * weights[:, None]
    torch.testing.assert_close(fiber(), values, rtol=1e-12, atol=1e-12)
    weight, y = _random(5, values.shape[-1]), _random(4, count, 5)
    (convolve,) = fiber.filters([weight])
    wanted = torch.einsum("nma,ca,imc->inc", values, weight, y)
    torch.testing.assert_close(convolve(y), wanted, rtol=1e-12, atol=1e-12)
    inputs = weight, y

    def function(weight, y):
        return fiber.filters([weight])[0](y)

    assert gradcheck(function, inputs) and gradgradcheck(function, inputs)


def test_harmonics_stay_exact_in_a_network_that_was_cast_to_single_precision():
    fiber = ZonalFiber(Grid(*icosahedral()), 2)
    before = fiber.harmonics.clone()
    assert torch.equal(fiber.float().double().harmonics, before)
