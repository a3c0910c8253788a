"""Every group by the same identities; then what is special to each."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.autograd.functional import jacobian

from plugins.liegroups.decompositions import KAK, QR, CartanPolar
from plugins.liegroups.groups import (
    BUILT_IN,
    CentredHomographies,
    GeneralLinear,
    Homographies,
    LieGroup,
    ScaledRotations,
    SemidirectProduct,
    SpecialLinear,
    SpecialOrthogonal,
    make_group,
    polar_log_density,
    random_elements,
    symmetric_basis,
)

F64 = torch.float64
CONTINUOUS = [name for name in BUILT_IN if name not in ("c4", "c8", "d4", "d8")]
FINITE = ["c4", "c8", "d4", "d8"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_group_axioms_and_coordinates(name):
    group = make_group(name)
    g, h = random_elements(group, 60, generator=rng(0)), random_elements(group, 60, generator=rng(1))
    identity = group.identity(60, dtype=F64)
    torch.testing.assert_close(group.compose(g, group.inverse(g)), identity, rtol=0, atol=1e-11)
    assert group.belongs(group.compose(g, h)).all()
    assert not group.belongs(g + 0.3 * torch.randn(g.shape, generator=rng(2), dtype=F64)).all() or name in (
        "gl2",
        "gl3",
    )
    torch.testing.assert_close(group.project(g), g, rtol=0, atol=1e-12)
    torch.testing.assert_close(group.from_coordinates(group.coordinates(g)), g, rtol=0, atol=1e-11)
    assert group.coordinates(g).shape == (60, group.dim) and group.features(g).shape == (60, group.feature_dim)
    g32 = g.float()
    torch.testing.assert_close(group.from_coordinates(group.coordinates(g32)), g32, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(group.coordinates(identity), torch.zeros(60, group.dim, dtype=F64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_algebra(name):
    group = make_group(name)
    v = 0.4 * torch.randn(60, group.dim, generator=rng(), dtype=F64)
    torch.testing.assert_close(group.vee(group.hat(v)), v, rtol=0, atol=1e-13)
    torch.testing.assert_close(group.exp(v), torch.linalg.matrix_exp(group.hat(v)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(group.log(group.exp(v)), v, rtol=0, atol=1e-11)
    torch.testing.assert_close(group.log(group.exp(v.float())).double(), v, rtol=0, atol=1e-5)
    g = random_elements(group, 60, 0.3, rng(3))
    conjugated = group.exp((group.adjoint(g) @ v.unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(conjugated, g @ group.exp(v) @ group.inverse(g), rtol=1e-9, atol=1e-10)
    with pytest.raises(ValueError, match="coordinates"):
        group.hat(v[:, :-1] if group.dim > 1 else torch.cat([v, v], -1))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_action_determinant_and_modular_function(name):
    group = make_group(name)
    g, h = random_elements(group, 20, 0.15, rng(0)), random_elements(group, 20, 0.15, rng(1))
    x = 0.2 * torch.randn(20, group.space_dim, generator=rng(2), dtype=F64)
    torch.testing.assert_close(group.act(g, group.act(h, x)), group.act(g @ h, x), rtol=0, atol=1e-12)
    for k in range(3):
        derivative = jacobian(lambda p: group.act(g[k], p), x[k])  # noqa: B023
        expected = torch.linalg.slogdet(derivative).logabsdet
        torch.testing.assert_close(group.log_jacobian(g[k], x[k]), expected, rtol=0, atol=1e-12)
        origin = jacobian(lambda p: group.act(g[k], p), torch.zeros_like(x[k]))  # noqa: B023
        expected = torch.linalg.slogdet(origin).logabsdet
        torch.testing.assert_close(group.log_abs_det(g[k]), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(group.log_modular(g), LieGroup.log_modular(group, g), rtol=0, atol=1e-11)
    torch.testing.assert_close(
        group.log_modular(g @ h), group.log_modular(g) + group.log_modular(h), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", CONTINUOUS)
def test_haar_density_is_left_invariant(name):
    """p(v) = p(w) |dw/dv| for w = coordinates(h g(v)), by automatic differentiation of the left translation."""
    group = make_group(name)
    h = random_elements(group, 3, 0.3, rng(5))
    v = 0.3 * torch.randn(3, group.dim, generator=rng(6), dtype=F64)
    for k in range(3):

        def translate(u, k=k):
            return group.coordinates(h[k] @ group.from_coordinates(u))

        log_det = torch.linalg.slogdet(jacobian(translate, v[k])).logabsdet
        moved = group.haar_log_density(translate(v[k]))
        torch.testing.assert_close(moved + log_det, group.haar_log_density(v[k]), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["so2", "so3", "se2", "se3", "sim2", "sl2"])
def test_default_density_in_exponential_coordinates_agrees(name):
    """Both densities describe one measure: they differ by the Jacobian between the charts and a constant."""
    group = make_group(name)

    def offset(v):
        chart = jacobian(lambda u: group.coordinates(group.exp(u)), v)
        own = group.haar_log_density(group.coordinates(group.exp(v))) + torch.linalg.slogdet(chart).logabsdet
        return float(own - LieGroup.haar_log_density(group, v))

    v = 0.4 * torch.randn(4, group.dim, generator=rng(7), dtype=F64)
    offsets = [offset(u) for u in v]
    assert max(offsets) - min(offsets) < 1e-9


@pytest.mark.parametrize("name", FINITE)
def test_finite_groups(name):
    group = make_group(name)
    elements = group.elements
    assert group.index(elements).tolist() == list(range(group.order))
    products = elements[:, None] @ elements[None]
    table = group.index(products)
    torch.testing.assert_close(elements[table], products, rtol=0, atol=1e-14)
    assert all(sorted(row.tolist()) == list(range(group.order)) for row in table)
    assert group.features(products).sum(-1).eq(1).all()
    assert abs(group.haar_log_density(torch.zeros(group.order, 0)).exp().sum() - 1) < 1e-6
    assert group.belongs(elements).all() and not group.belongs(1.1 * elements).any()


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("traceless", [False, True])
def test_symmetric_basis_is_orthonormal(n, traceless):
    basis = symmetric_basis(n, traceless).flatten(1)
    assert len(basis) == n * (n + 1) // 2 - int(traceless)
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=F64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_polar_jacobian_equals_the_haar_density(n):
    """|d vec(e^X R)| / |det g|^n against prod sinhc, X and R both in Frobenius-orthonormal coordinates."""
    basis = symmetric_basis(n)
    skew = SpecialOrthogonal(n).basis / math.sqrt(2)
    r = torch.linalg.qr(torch.randn(n, n, generator=rng(n), dtype=F64))[0]
    r[:, 0] *= torch.linalg.det(r).sign()
    v = 0.7 * torch.randn(len(basis), generator=rng(n + 1), dtype=F64)

    def chart(w):
        x = torch.einsum("d,dij->ij", w[: len(basis)], basis)
        rotation = r @ torch.linalg.matrix_exp(torch.einsum("d,dij->ij", w[len(basis) :], skew))
        return (torch.linalg.matrix_exp(x) @ rotation).flatten()

    w = torch.cat([v, torch.zeros(len(skew), dtype=F64)])
    log_det_g = torch.einsum("d,dii->", v, basis)
    expected = torch.linalg.slogdet(jacobian(chart, w)).logabsdet - n * log_det_g
    x = torch.einsum("d,dij->ij", v, basis)
    torch.testing.assert_close(polar_log_density(x), expected, rtol=0, atol=1e-7)


def test_general_linear_reaches_matrices_without_logarithm():
    group = GeneralLinear(2)
    g = torch.tensor([[[-1.0, 0], [0, -2]], [[-1, 0], [0, -1]], [[-1, 1], [0, -1]]], dtype=F64)
    torch.testing.assert_close(group.from_coordinates(group.coordinates(g)), g, rtol=0, atol=1e-12)
    x, r = group.split(g[0])
    torch.testing.assert_close(x, torch.diag(torch.tensor([0.0, math.log(2)], dtype=F64)), rtol=0, atol=1e-14)
    torch.testing.assert_close(r, -torch.eye(2, dtype=F64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["sl2", "gl2", "gl3", "sl3"])
def test_gradients_of_coordinates_at_the_identity(name):
    group = make_group(name)
    g = torch.eye(group.rep_dim, dtype=F64).requires_grad_()
    assert gradcheck(group.features, (g,))
    v = torch.zeros(group.dim, dtype=F64, requires_grad=True)
    assert gradcheck(group.from_coordinates, (v,))
    out = group.haar_log_density(v)
    assert torch.autograd.grad(out, v)[0].isfinite().all()


def test_features_have_no_cut_at_the_angle_pi():
    group = GeneralLinear(2)
    stretch = torch.diag(torch.tensor([1.2, 0.9], dtype=F64))
    near = [stretch @ SpecialOrthogonal(2).exp(torch.tensor([s * (math.pi - 1e-6)], dtype=F64)) for s in (1, -1)]
    torch.testing.assert_close(group.features(near[0]), group.features(near[1]), rtol=0, atol=1e-5)
    assert (group.coordinates(near[0]) - group.coordinates(near[1])).abs().max() > 6


def test_polar_exponential_is_not_the_matrix_exponential():
    group = SpecialLinear(2)
    v = torch.tensor([0.4, 0.3, 0.8], dtype=F64)
    assert (group.exp(v) - group.from_coordinates(v)).abs().max() > 1e-3
    commuting = torch.tensor([0.0, 0.0, 0.8], dtype=F64)
    torch.testing.assert_close(group.exp(commuting), group.from_coordinates(commuting))


def test_similarity_closed_form():
    group = make_group("sim2")
    v = torch.tensor([0.7, -0.4, 0.3, 0.9], dtype=F64)
    z = complex(v[2], v[3])
    t = (complex(math.e) ** z - 1) / z * complex(v[0], v[1])
    g = group.exp(v)
    torch.testing.assert_close(g[:2, 2], torch.tensor([t.real, t.imag], dtype=F64), rtol=0, atol=1e-13)


def test_homography_projective_action_and_split():
    group, centred = Homographies(), CentredHomographies()
    g = random_elements(group, 10, 0.2, rng(0))
    b, h = group.split_translation(g)
    torch.testing.assert_close(group.act(g, torch.zeros(10, 2, dtype=F64)), b, rtol=0, atol=1e-13)
    assert centred.belongs(h).all()
    x = 0.1 * torch.randn(10, 2, generator=rng(1), dtype=F64)
    torch.testing.assert_close(centred.act(h, x) + b, group.act(g, x), rtol=0, atol=1e-12)


def test_local_element_of_centred_homographies():
    """(T_x g)^-1 T_{x+u} h = T_z k with z = g^-1 u, for any x."""
    group = CentredHomographies()
    g, h = random_elements(group, 20, 0.2, rng(0)), random_elements(group, 20, 0.2, rng(1))
    u = 0.3 * torch.randn(20, 2, generator=rng(2), dtype=F64)
    k = group.local_element(group.inverse(g), u, h)
    assert group.belongs(k).all()

    def shift(t):
        m = torch.eye(3, dtype=F64).repeat(len(t), 1, 1)
        m[:, :2, 2] = t
        return m

    left = group.inverse(g) @ shift(u) @ h
    right = shift(group.act(group.inverse(g), u)) @ k
    torch.testing.assert_close(left / left[:, 2:, 2:], right / right[:, 2:, 2:], rtol=0, atol=1e-11)


def test_points_beyond_the_vanishing_line_are_not_visible():
    group = CentredHomographies()
    g = group.from_coordinates(torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=F64))
    x = torch.tensor([[0.5, 0.0], [-2.0, 0.0]], dtype=F64)
    assert group.visible(g, x).tolist() == [True, False]


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("decomposition", [CartanPolar(), QR(), KAK()])
def test_decompositions_round_trip(n, decomposition):
    g = random_elements(GeneralLinear(3) if n == 3 else GeneralLinear(2), 40, generator=rng(n)) if n < 4 else None
    if g is None:
        g = torch.linalg.matrix_exp(0.5 * torch.randn(40, 4, 4, generator=rng(4), dtype=F64))
    factors = decomposition.split(g)
    torch.testing.assert_close(decomposition.join(*factors), g, rtol=0, atol=1e-11)
    rotations = {CartanPolar: [1], QR: [0], KAK: [0, 2]}[type(decomposition)]
    for k in rotations:
        torch.testing.assert_close(torch.linalg.det(factors[k]), torch.ones(40, dtype=F64), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="det"):
        decomposition.split(torch.diag(torch.tensor([-1.0] + [1.0] * (n - 1), dtype=F64)))


def test_decomposition_densities_by_jacobians():
    """QR and KAK densities agree with |dg| / |det g|^n up to a constant, at several points."""
    qr, kak = QR(), KAK()
    rotation = SpecialOrthogonal(2)

    def offsets(chart, density, points):
        out = []
        for w in points:
            g = chart(w)
            log_volume = torch.linalg.slogdet(jacobian(lambda u: chart(u).flatten(), w)).logabsdet
            out.append(float(log_volume - 2 * torch.linalg.slogdet(g).logabsdet - density(w)))
        return max(out) - min(out)

    def upper(w):
        zero = torch.zeros_like(w[0])
        return torch.stack([w[1], w[2], zero, w[3]]).reshape(2, 2)

    points = 0.5 + torch.rand(4, 4, generator=rng(0), dtype=F64)
    assert offsets(lambda w: rotation.exp(w[:1]) @ upper(w), lambda w: qr.log_density(upper(w)), points) < 1e-10
    points = torch.rand(4, 4, generator=rng(1), dtype=F64) + torch.tensor([0, 2.0, 0, 0], dtype=F64)
    assert (
        offsets(
            lambda w: kak.join(rotation.exp(w[:1]), w[1:3], rotation.exp(w[3:])),
            lambda w: kak.log_density(w[1:3]),
            points,
        )
        < 1e-10
    )


def test_scale_split():
    polar = CartanPolar()
    g = random_elements(GeneralLinear(3), 10, generator=rng())
    log_det, x, r = polar.split_scale(g)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(g).logabsdet, rtol=0, atol=1e-12)
    torch.testing.assert_close(x.diagonal(dim1=-2, dim2=-1).sum(-1), torch.zeros(10, dtype=F64), rtol=0, atol=1e-13)
    torch.testing.assert_close(polar.join_scale(log_det, x, r), g, rtol=0, atol=1e-11)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="so2"):
        make_group("u1")
    with pytest.raises(ValueError, match="n=1"):
        SpecialOrthogonal(1)
    with pytest.raises(ValueError, match="n=1"):
        GeneralLinear(1)
    with pytest.raises(ValueError, match="linear"):
        SemidirectProduct(make_group("se2"))
    assert ScaledRotations(3).dim == 4
