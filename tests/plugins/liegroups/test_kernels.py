"""Kernel networks: shapes, initial scale, and the factorisations of the separable ones."""

import math
from functools import partial

import pytest
import torch

from plugins.liegroups.kernels import (
    MLP,
    BSpline,
    DepthwiseKernel,
    PolarSpline,
    SeparableKernel,
    Siren,
    Wire,
    cubic_bspline,
    product_kernel,
)

KERNELS = [Siren, MLP, Wire, BSpline]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("batch", [(), (7,), (2, 3, 5), (0,)])
def test_shapes(kernel, batch):
    module = kernel(5, 4, 3, 25)
    assert module(torch.rand(*batch, 5)).shape == (*batch, 4, 3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_initial_activations_have_about_unit_size(kernel):
    torch.manual_seed(0)
    taps, channels = 25, 8
    module = kernel(4, 64, channels, taps)
    z = 2 * torch.rand(taps, 4) - 1
    values = module(z)
    out = torch.einsum("toi,ti->o", values, torch.randn(taps, channels))
    assert 0.1 < out.std() < 4


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_depend_on_every_coordinate_and_train(kernel):
    torch.manual_seed(0)
    module = kernel(3, 2, 2, 9).double()
    z = (0.2 * torch.randn(6, 3, dtype=torch.float64)).requires_grad_()
    module(z).square().sum().backward()
    assert (z.grad.abs().amax(0) > 0).all()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_siren_follows_its_initialisation():
    torch.manual_seed(0)
    net = Siren(5, 16, 8, 25, width=60, layers=3, omega=10.0)
    assert len(net.hidden) == 3
    assert net.hidden[0].weight.abs().max() <= 1 / 5
    assert net.hidden[1].weight.abs().max() <= math.sqrt(6 / 60) / 10
    assert net.hidden[1].bias.eq(0).all() and net.out.bias.eq(0).all()
    bound = math.sqrt(6 / 60) / math.sqrt(8 * 25)
    assert 0.95 * bound < net.out.weight.abs().max() <= bound


def test_bspline_is_linear_in_its_coefficients_and_compact():
    module = BSpline(2, 1, 1, 9, centers=16, extent=1.0, spacing=0.3)
    far = module(torch.tensor([[5.0, 0.0]]))
    assert far.eq(0).all()
    x = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    b = cubic_bspline(x)
    assert b[50] == 1 and b[x.abs() >= 2].eq(0).all() and (b >= 0).all()
    # integer translates of the cardinal spline sum to 3/2 when the peak is one
    total = sum(cubic_bspline(torch.linspace(0, 1, 11, dtype=torch.float64) - k) for k in range(-3, 5))
    torch.testing.assert_close(total, torch.full_like(total, 1.5))


@pytest.mark.parametrize("rank", [1, 3])
def test_separable_factors_multiply_to_the_dense_kernel(rank):
    torch.manual_seed(0)
    z = torch.rand(10, 6)
    separable = SeparableKernel(2, 4, 5, 3, 9, MLP, rank)
    expected = torch.einsum("tor,tori->toi", separable.spatial(z[:, :2]), separable.group(z[:, 2:]))
    torch.testing.assert_close(separable(z), expected)
    depthwise = DepthwiseKernel(2, 4, 5, 3, 9, partial(Siren, width=16), rank)
    expected = torch.einsum("tori,tri->toi", depthwise.spatial(z[:, :2]), depthwise.group(z[:, 2:]))
    torch.testing.assert_close(depthwise(z), expected)


def test_polar_spline_is_periodic_local_and_smooth_over_the_cut():
    torch.manual_seed(0)
    module = PolarSpline(5, 2, 3, 1, angles=8, spacing=0.3).double()

    def at(angle, x=(0.0, 0.0, 0.0)):
        return module(torch.tensor([*x, math.cos(angle), math.sin(angle)], dtype=torch.float64))

    assert at(0.0).shape == (2, 3)
    torch.testing.assert_close(at(math.pi - 1e-9), at(-math.pi + 1e-9), rtol=0, atol=1e-7)
    assert at(0.3, (0.0, 1.5, 0.0)).eq(0).all(), "no support far from every node"
    module.coefficients.data[1:] = 0
    assert at(math.pi / 4 * 2.001).eq(0).all() and at(math.pi / 4).abs().sum() > 0
    assert PolarSpline(2, 1, 1, 1).coefficients.shape == (8, 1, 1, 1)


def test_product_kernel_is_separable_with_the_plane_first():
    torch.manual_seed(0)
    kernel = product_kernel(6, 2, 3, 9, centers=9)
    z = 0.2 * torch.rand(4, 6) + 0.1
    expected = torch.einsum("tor,tori->toi", kernel.spatial(z[:, :2]), kernel.group(z[:, 2:]))
    torch.testing.assert_close(kernel(z), expected)
    assert isinstance(product_kernel(2, 2, 1, 9), BSpline)


def test_bad_arguments_are_named():
    for build, message in [
        (lambda: Siren(2, 1, 1, 9, layers=0), "layers=0"),
        (lambda: MLP(2, 1, 1, 9, width=0), "width=0"),
        (lambda: BSpline(2, 1, 1, 9, centers=0), "centers=0"),
        (lambda: PolarSpline(1, 1, 1, 1), "features=1"),
        (lambda: PolarSpline(5, 1, 1, 1, angles=2), "angles=2"),
        (lambda: SeparableKernel(2, 2, 1, 1, 9, rank=0), "rank=0"),
        (lambda: DepthwiseKernel(2, 2, 1, 1, 9, rank=0), "rank=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
