"""Layers against closed forms, co-transformed samples, exact finite groups, and one another."""

import math

import pytest
import torch
from torch import nn

from plugins.liegroups.equivariance import equivariance_error, random_moves, random_pattern
from plugins.liegroups.groups import BUILT_IN, make_group, random_elements
from plugins.liegroups.haar import CoordinateNormal, FiniteGroupRule, HaarUniformSO, PolarBall, StarGrid, samples_of
from plugins.liegroups.kernels import MLP, BSpline, DepthwiseKernel, SeparableKernel, Siren, Wire
from plugins.liegroups.layers import (
    DepthwiseGroupConv,
    FieldNorm,
    GroupConv,
    GroupPool,
    LiftingConv,
    ProjectionConv,
    SeparableGroupConv,
    kernel_offsets,
    window,
)
from plugins.liegroups.studies.equivariance import layer_errors

F64 = torch.float64
PLANAR = ["so2", "scaled_so2", "sl2", "gl2", "centred_homography", "c4", "c8", "d4"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_samples(group, n=6, std=0.2):
    if getattr(group, "elements", None) is not None:
        return FiniteGroupRule(group)()
    return CoordinateNormal(group, std)(n, rng(n)).normalized()


class GaussianKernel(nn.Module):
    """The density N(0, covariance) in pixels, for kernel coordinates in units of ``radius`` pixels."""

    def __init__(self, covariance: torch.Tensor, radius: float):
        super().__init__()
        self.precision = torch.linalg.inv(covariance)
        self.scale = 1 / (2 * math.pi * covariance.det().sqrt())
        self.radius = radius

    def forward(self, z):
        u = z * self.radius
        return (self.scale * torch.exp(-torch.einsum("...i,ij,...j->...", u, self.precision, u) / 2))[..., None, None]


def gaussian(x, mean, covariance):
    d = x - mean
    quadratic = torch.einsum("...i,ij,...j->...", d, torch.linalg.inv(covariance), d)
    return torch.exp(-quadratic / 2) / (2 * math.pi * covariance.det().sqrt())


def test_lifting_a_gaussian_image():
    """f = N(m, S) and k = N(0, K) give F(x, g) = N(x; m, S + g K g^T), determinant factor included."""
    group = make_group("gl2")
    size = 41
    grid = kernel_offsets(size, F64)
    s = torch.tensor([[6.0, 1.0], [1.0, 5.0]], dtype=F64)
    k = torch.tensor([[5.0, -0.5], [-0.5, 4.5]], dtype=F64)
    mean = torch.tensor([1.3, -0.7], dtype=F64)
    image = gaussian(grid, mean, s).reshape(1, 1, size, size)
    g = random_elements(group, 4, 0.15, rng())
    layer = LiftingConv(
        group, 1, 1, size, window="none", padding=size // 2, kernel=GaussianKernel(k, size / 2)
    ).double()
    field = layer(image, samples_of(group, g))
    centre = slice(size // 2 - 3, size // 2 + 4)
    for j in range(4):
        exact = gaussian(grid, mean, s + g[j] @ k @ g[j].T).reshape(size, size)
        torch.testing.assert_close(field[0, 0, j, centre, centre], exact[centre, centre], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PLANAR)
def test_co_transformed_samples_reproduce_every_layer(name):
    """(image o h^-1, samples h g_i) reproduces the field at every layer, up to the pixel grid, with few samples.

    A homography is no affine map: a pixel away from the fixed origin would need samples of its own, so for the centred
    homographies only the lifting layer, which sees the image exactly moved, is compared.

    Compared at the centre pixel, with smooth analytic images and wide smooth kernels, so that the grid resolves them.
    """
    group = make_group(name)
    torch.manual_seed(1)
    size, unit = 33, 8.0
    h = random_moves(group, 1, 0.1, rng(9))[0]
    stage = some_samples(group, 3, 0.1)
    moved = stage.left_translate(group, h)
    pattern = random_pattern(group, 2, 1, 0.4, 0.6, generator=rng(2))
    grid = kernel_offsets(2 * size - 1, F64) / unit

    class Bump(nn.Module):
        """A smooth kernel that has decayed at the window's rim, different for every channel pair."""

        def __init__(self, out_channels, in_channels):
            super().__init__()
            shift = torch.linspace(-0.15, 0.15, out_channels * in_channels * 2, dtype=F64)
            self.register_buffer("shift", shift.reshape(out_channels, in_channels, 2))

        def forward(self, z):
            d2 = (z[..., None, None, :2] - self.shift).square().sum(-1)
            slope = 1 + z[..., 2:].sum(-1)[..., None, None] * 0.3
            return torch.exp(-d2 / (2 * 0.15**2)) * slope

    options = {"kernel_size": size, "padding": 0, "window": "none", "unit": unit}
    lift = LiftingConv(group, 1, 2, kernel=Bump(2, 1), **options).double()
    conv = GroupConv(group, 2, 2, kernel=Bump(2, 2), **options).double()

    def centre_of(h, samples):
        image = pattern.image(group, h, grid).unflatten(-1, (2 * size - 1, 2 * size - 1))
        field = lift(image, samples)
        return field[..., size // 2, size // 2], conv(field, samples, samples)[..., 0, 0]

    first, second = centre_of(h, moved)
    lifted, convolved = centre_of(group.identity(dtype=F64), stage)
    # projective maps sharpen the image towards the vanishing line: the same grid resolves it a little less well
    assert (first - lifted).norm() < (1e-5 if name == "centred_homography" else 1e-6) * lifted.norm()
    if name == "centred_homography":
        return
    assert (second - convolved).norm() < 1e-5 * convolved.norm()
    assert (centre_of(h, stage)[1] - convolved).norm() > 5e-4 * convolved.norm() or not group.dim


@pytest.mark.parametrize(("name", "turns"), [("c4", 4), ("c8", 8), ("d4", 4)])
def test_regular_networks_turn_with_the_image(name, turns):
    """Rotating the image by 90 degrees rotates the field and permutes the group axis, exactly, on odd images."""
    group = make_group(name)
    torch.manual_seed(0)
    samples = FiniteGroupRule(group)().to(dtype=torch.float32)
    lift, conv = LiftingConv(group, 2, 3, 5), GroupConv(group, 3, 4, 5)
    project = ProjectionConv(group, 4, 2, 3)
    image = torch.rand(2, 2, 15, 15)
    turned = torch.rot90(image, -1, (2, 3))  # counter-clockwise in (x, y) with y downwards: x -> -y
    quarter = group.elements[turns // 4]
    torch.testing.assert_close(quarter, torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64))
    field, field_turned = conv(lift(image, samples), samples, samples), conv(lift(turned, samples), samples, samples)
    # (h F)(x, g) = F(h^-1 x, h^-1 g)
    source = group.index(quarter.T @ group.elements)
    expected = torch.rot90(field, -1, (3, 4))[:, :, source]
    assert expected.std() > 0.01
    torch.testing.assert_close(field_turned, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        project(field_turned, samples), torch.rot90(project(field, samples), -1, (2, 3)), rtol=0, atol=1e-5
    )
    pool = GroupPool("max")
    torch.testing.assert_close(pool(field_turned, samples), pool(field, samples), rtol=0, atol=1e-5)


def test_reflections_in_the_dihedral_group():
    group = make_group("d4")
    torch.manual_seed(0)
    samples = FiniteGroupRule(group)().to(dtype=torch.float32)
    lift, conv = LiftingConv(group, 1, 3, 5), GroupConv(group, 3, 4, 5)
    image = torch.rand(2, 1, 15, 15)
    flip = group.elements[4]
    torch.testing.assert_close(flip, torch.diag(torch.tensor([1.0, -1.0], dtype=F64)))
    field = conv(lift(image, samples), samples, samples)
    flipped = conv(lift(image.flip(2), samples), samples, samples)
    expected = field.flip(3)[:, :, group.index(flip @ group.elements)]
    torch.testing.assert_close(flipped, expected, rtol=0, atol=1e-5)


def test_asymmetric_kernel_lies_the_right_way_round():
    """A kernel that is one right of the origin (x = +1) moves an image to the left, and turns with the group."""
    group = make_group("c4")

    class RightNeighbour(nn.Module):
        def forward(self, z):
            hit = (z - torch.tensor([2 / 3, 0.0])).abs().amax(-1) < 1e-3
            return hit.float()[..., None, None]

    layer = LiftingConv(group, 1, 1, 3, window="none", kernel=RightNeighbour())
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 1
    field = layer(image, FiniteGroupRule(group)().to(dtype=torch.float32))
    places = [tuple(int(i) for i in field[0, 0, j].nonzero()[0]) for j in range(4)]
    # element j turns x = +1 by j quarter turns towards +y (downwards)
    assert places == [(2, 1), (1, 2), (2, 3), (3, 2)]


@pytest.mark.parametrize("name", ["so2", "sl2", "gl2", "c8"])
@pytest.mark.parametrize("rank", [1, 2])
def test_fast_layers_equal_the_straightforward_one(name, rank):
    group = make_group(name)
    torch.manual_seed(0)
    inp, out = some_samples(group, 6), some_samples(group, 4)
    field = torch.randn(2, 3, len(inp), 9, 9, dtype=F64)
    for layer_class, kernel_class in ((SeparableGroupConv, SeparableKernel), (DepthwiseGroupConv, DepthwiseKernel)):
        kernel = kernel_class(2, group.feature_dim, 4, 3, 25, MLP, rank).double()
        fast = layer_class(group, 3, 4, 5, kernel=kernel).double()
        dense = GroupConv(group, 3, 4, 5, kernel=kernel).double()
        a, b = fast(field, inp, out), dense(field, inp, out)
        assert a.shape == (2, 4, len(out), 9, 9) and b.std() > 1e-3
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        grads = [torch.autograd.grad(y.square().sum(), list(kernel.parameters())) for y in (a, b)]
        for g_fast, g_dense in zip(*grads, strict=True):
            torch.testing.assert_close(g_fast, g_dense, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("factory", [Siren, MLP, Wire, BSpline])
def test_every_kernel_runs_in_every_layer(factory):
    group = make_group("gl2")
    torch.manual_seed(0)
    samples = StarGrid(group, 4, 0.3)().normalized().to(dtype=torch.float32)
    field = LiftingConv(group, 1, 3, kernel_factory=factory)(torch.rand(2, 1, 9, 9), samples)
    for layer in (GroupConv, SeparableGroupConv, DepthwiseGroupConv):
        assert layer(group, 3, 2, kernel_factory=factory)(field, samples, samples).isfinite().all()
    assert ProjectionConv(group, 3, 2, kernel_factory=factory)(field, samples).shape == (2, 2, 9, 9)


@pytest.mark.parametrize(("name", "layer"), [("so2", "pooling"), ("sl2", "depthwise"), ("gl2", "separable")])
def test_group_integral_converges_to_equivariance(name, layer):
    """With 16 times the samples the error of a layer that integrates over the group falls by about four."""
    errors = layer_errors(make_group(name), layer, [16, 256], repeats=12, seed=0, elements=2)
    assert 1 / 8 < errors[256] / errors[16] < 1 / 2


def test_the_determinant_factors_matter():
    """Without |det g|^-1 the lifting layer of GL+(2) would be off by exactly that factor."""
    group = make_group("gl2")
    torch.manual_seed(0)
    layer = LiftingConv(group, 1, 2, 15, window="bump", kernel_factory=MLP, unit=7.5).double()
    near = CoordinateNormal(group, 0.15)(4, rng())
    assert equivariance_error(layer, group, out=near, generator=rng()) < 0.03
    doubled = samples_of(group, 2.0 * torch.eye(2, dtype=F64)[None])
    weight, plain = layer.weight(doubled), layer.kernel_points(doubled.g_inv)[0]
    unscaled = layer.kernel(plain) * window("bump", plain)[..., None, None]
    torch.testing.assert_close(weight.flatten(), (unscaled / 4).permute(2, 0, 3, 1).flatten())


@pytest.mark.parametrize("name", BUILT_IN)
def test_planar_groups_have_layers_and_others_say_no(name):
    group = make_group(name)
    if group.space_dim != 2:
        with pytest.raises(ValueError, match="images"):
            LiftingConv(group, 1, 1)
    elif name in PLANAR:
        samples = some_samples(group).to(dtype=torch.float32)
        assert LiftingConv(group, 1, 2, unit=8.0)(torch.rand(1, 1, 9, 9), samples).isfinite().all()


def test_windows():
    z = torch.tensor([[0.0, 0.0], [0.6, 0.0], [1.0, 0.0], [1.2, 0.0]])
    assert window("disc", z).tolist() == [1, 1, 1, 0]
    torch.testing.assert_close(window("bump", z), torch.tensor([1.0, 0.64**2, 0.0, 0.0]))
    torch.testing.assert_close(window("sigmoid", z, torch.full((4,), 9.0))[0], torch.sigmoid(torch.tensor(-4.0)))
    sigmoid = GroupConv(make_group("gl2"), 1, 1, window="sigmoid")
    samples = some_samples(make_group("gl2")).to(dtype=torch.float32)
    assert sigmoid(torch.rand(1, 1, len(samples), 7, 7), samples, samples).isfinite().all()


def test_normalisation_ignores_the_order_of_space_and_group():
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 6, 6)
    order = torch.randperm(5 * 36)
    shuffled = x.flatten(2)[..., order].reshape(x.shape)
    for mode in ("batch", "layer"):
        norm = FieldNorm(4, mode)
        a = norm(x).flatten(2)[..., order]
        torch.testing.assert_close(norm(shuffled).flatten(2), a, rtol=1e-4, atol=1e-5)
    assert abs(FieldNorm(4, "batch")(x).mean()) < 1e-6


def test_mean_pooling_is_the_weighted_integral():
    group = make_group("gl2")
    samples = PolarBall(group, 1.0)(12, rng())
    field = torch.randn(2, 3, 12, 4, 4, dtype=F64)
    weight = samples.normalized().log_weight.exp() / 12
    expected = (field * weight[:, None, None]).sum(2)
    torch.testing.assert_close(GroupPool("mean", space=False)(field, samples), expected)
    torch.testing.assert_close(GroupPool("mean")(field, samples), expected.mean((2, 3)))


def test_replicate_padding_hides_the_border_from_a_shifted_field():
    """A field with a constant background: shifting it shifts the output, up to the border itself."""
    group = make_group("gl2")
    torch.manual_seed(0)
    samples = some_samples(group).to(dtype=torch.float32)
    field = torch.full((1, 2, 6, 15, 15), 0.7)
    field[..., 5:9, 6:10] = torch.rand(1, 2, 6, 4, 4)
    shifted = torch.roll(field, (3, -3), (3, 4))
    for mode in ("replicate", "zeros"):
        torch.manual_seed(0)
        layer = DepthwiseGroupConv(group, 2, 3, 5, padding_mode=mode)
        gap = layer(shifted, samples, samples) - torch.roll(layer(field, samples, samples), (3, -3), (3, 4))
        assert (gap.abs().max() < 1e-5) == (mode == "replicate")


def test_empty_batches_and_both_precisions():
    group = make_group("gl2")
    for dtype in (torch.float32, F64):
        samples = some_samples(group).to(dtype=dtype)
        layers = [LiftingConv(group, 1, 2), GroupConv(group, 2, 2), DepthwiseGroupConv(group, 2, 2)]
        lift, dense, depthwise = (layer.to(dtype) for layer in layers)
        field = lift(torch.zeros(0, 1, 8, 8, dtype=dtype), samples)
        assert dense(field, samples, samples).shape == depthwise(field, samples, samples).shape == (0, 2, 6, 8, 8)


def test_bad_arguments_are_named():
    group = make_group("gl2")
    samples = some_samples(group).to(dtype=torch.float32)
    cases = [
        (lambda: LiftingConv(group, 1, 1, 4), "kernel_size=4"),
        (lambda: LiftingConv(group, 1, 1, window="square"), "window"),
        (lambda: LiftingConv(group, 1, 1, unit=0.0), "unit"),
        (lambda: LiftingConv(group, 1, 1, stride=0), "stride"),
        (lambda: LiftingConv(group, 1, 1, padding_mode="reflect"), "padding_mode"),
        (lambda: SeparableGroupConv(make_group("centred_homography"), 1, 1), "do not separate"),
        (lambda: DepthwiseGroupConv(group, 1, 1, window="sigmoid"), "sigmoid"),
        (lambda: GroupConv(group, 2, 1)(torch.zeros(1, 2, 3, 5, 5), samples, samples), "6 samples"),
        (lambda: FieldNorm(2, "instance"), "mode"),
        (lambda: GroupPool("median"), "mode"),
    ]
    for build, message in cases:
        with pytest.raises(ValueError, match=message):
            build()


def test_stratified_rotations_are_a_valid_plan_for_layers():
    group = make_group("so2")
    samples = HaarUniformSO(2, stratified=True)(8, rng()).to(dtype=torch.float32)
    field = LiftingConv(group, 1, 2)(torch.rand(1, 1, 9, 9), samples)
    assert GroupConv(group, 2, 3)(field, samples, samples).shape == (1, 3, 8, 9, 9)
