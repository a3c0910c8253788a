"""Matrix functions: accuracy, gradients at repeated eigenvalues, and behaviour outside their domain."""

import math

import pytest
import torch
from scipy.linalg import logm
from torch.autograd import gradcheck

from plugins.liegroups.linalg import (
    exp_2x2,
    log_2x2,
    log_sinhc,
    matrix_log,
    no_real_log_2x2,
    phi1,
    polar_log,
    polar_log_2x2,
    rotation_2x2,
    so3_exp,
    so3_log,
    stumpff,
    sym_exp,
    sym_log,
    sym_sqrt,
)

F64 = torch.float64


def conditioned(n_matrices: int, n: int, condition: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices e^X R with det 1 and the given condition number, and their X."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(n_matrices, n, n, generator=generator, dtype=F64))[0]
    spread = torch.linspace(-0.5, 0.5, n, dtype=F64) * math.log(condition)
    x = (q * spread) @ q.mT
    r = torch.linalg.qr(torch.randn(n_matrices, n, n, generator=generator, dtype=F64))[0]
    r[:, :, 0] *= torch.linalg.det(r).sign()[:, None]
    return torch.linalg.matrix_exp(x) @ r, x


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_stumpff_matches_its_closed_forms(order):
    t = torch.cat([torch.logspace(-4, 1.2, 60, dtype=F64)])
    trig = [t.cos(), t.sin() / t, (1 - t.cos()) / t**2, (t - t.sin()) / t**3][order]
    hyper = [t.cosh(), t.sinh() / t, (t.cosh() - 1) / t**2, (t.sinh() - t) / t**3][order]
    # the closed forms cancel near zero: compare where they do not
    clean = t > 0.3
    torch.testing.assert_close(stumpff(order, t**2)[clean], trig[clean], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(stumpff(order, -(t**2))[clean], hyper[clean], rtol=1e-12, atol=1e-14)
    limit = 1 / math.factorial(order)
    torch.testing.assert_close(stumpff(order, t[:10] ** 2), torch.full_like(t[:10], limit), rtol=1e-3, atol=0)
    q = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0], dtype=F64, requires_grad=True)
    assert gradcheck(lambda z: stumpff(order, z), (q,))


def test_stumpff_refuses_other_orders():
    with pytest.raises(ValueError, match="order=4"):
        stumpff(4, torch.zeros(1))


def test_log_sinhc_for_small_and_huge_arguments():
    x = torch.tensor([0.0, 1e-8, 0.5, 2.0, -2.0, 400.0, 1e4], dtype=F64)
    expected = [0.0, 0.0, math.log(math.sinh(0.5) / 0.5), math.log(math.sinh(2) / 2), math.log(math.sinh(2) / 2)]
    expected += [400 - math.log(800), 1e4 - math.log(2e4)]
    torch.testing.assert_close(log_sinhc(x), torch.tensor(expected, dtype=F64), rtol=1e-13, atol=1e-15)
    assert gradcheck(log_sinhc, (torch.tensor([0.0, 0.3, 1.5, -3.0], dtype=F64, requires_grad=True),))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_symmetric_functions_invert_each_other(n):
    s = torch.randn(40, n, n, dtype=F64, generator=torch.Generator().manual_seed(n))
    s = s + s.mT
    torch.testing.assert_close(sym_log(sym_exp(s)), s, rtol=0, atol=1e-11)
    p = sym_exp(s)
    root = sym_sqrt(p)
    torch.testing.assert_close(root @ root, p, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p, torch.linalg.matrix_exp(s), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("function", [sym_exp, sym_log, sym_sqrt])
def test_symmetric_gradients_at_repeated_eigenvalues(n, function):
    centre = torch.eye(n, dtype=F64) * (0.0 if function is sym_exp else 1.0)
    split = centre + torch.diag(torch.arange(n, dtype=F64) * 1e-9)
    for matrix in (centre, split, centre + torch.diag(torch.arange(n, dtype=F64))):
        assert gradcheck(lambda m: function((m + m.mT) / 2), (matrix.clone().requires_grad_(),))


@pytest.mark.parametrize("function", [sym_log, sym_sqrt])
def test_symmetric_functions_refuse_indefinite_matrices(function):
    with pytest.raises(ValueError, match="not positive definite"):
        function(torch.diag(torch.tensor([1.0, -1.0])))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_polar_round_trip(n):
    for condition in (1.0, 10.0, 100.0):
        g, x_true = conditioned(100, n, condition)
        x, r = polar_log(g)
        torch.testing.assert_close(torch.linalg.matrix_exp(x) @ r, g, rtol=0, atol=1e-11)
        torch.testing.assert_close(x, x_true, rtol=0, atol=1e-11)
        torch.testing.assert_close(r @ r.mT, torch.eye(n, dtype=F64).expand_as(r), rtol=0, atol=1e-13)
        x32, r32 = polar_log(g.float())
        torch.testing.assert_close((torch.linalg.matrix_exp(x32.double()) @ r32.double()), g, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("condition", "tolerance"), [(10.0, 4.7e-7), (100.0, 4.5e-6), (1000.0, 3.1e-5)])
def test_planar_closed_form_in_float32(condition, tolerance):
    """No worse than the errors known for the closed form, in pure float32 arithmetic."""
    g, _ = conditioned(2000, 2, condition)
    g = g.float()
    exact, _ = polar_log_2x2(g.double())
    x, theta = polar_log_2x2(g)
    assert (x.double() - exact).abs().max() < 1.5 * tolerance
    rounded, _ = polar_log(g)
    assert (rounded.double() - exact).abs().max() < 5e-7, "the float64 route leaves rounding of the result only"


def test_general_polar_in_float32_at_condition_1000():
    g, _ = conditioned(500, 3, 1000.0)
    exact, _ = polar_log(g.float().double())
    x, _ = polar_log(g.float())
    assert (x.double() - exact).abs().max() < 5e-7


@pytest.mark.parametrize("n", [2, 3])
def test_polar_gradients_at_identity_similarities_and_elsewhere(n):
    generator = torch.Generator().manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=F64))[0]
    rotation[:, 0] *= torch.linalg.det(rotation).sign()
    generic = torch.eye(n, dtype=F64) + 0.3 * torch.randn(n, n, generator=generator, dtype=F64)
    for g in (torch.eye(n, dtype=F64), 2.5 * rotation, generic):
        assert gradcheck(polar_log, (g.clone().requires_grad_(),))
    g = torch.eye(n, requires_grad=True)
    sum(t.sum() for t in polar_log(g)).backward()
    assert g.grad.isfinite().all()


def test_polar_needs_a_positive_determinant_and_square_matrices():
    with pytest.raises(ValueError, match="determinant"):
        polar_log(torch.diag(torch.tensor([1.0, -1.0])))
    with pytest.raises(ValueError, match="determinant"):
        polar_log(torch.diag(torch.tensor([1.0, -1.0, 1.0])))
    with pytest.raises(ValueError, match="square"):
        polar_log(torch.zeros(2, 3))
    assert polar_log(torch.zeros(0, 2, 2))[0].shape == (0, 2, 2)


def test_angles_lie_in_the_half_open_interval():
    angles = torch.tensor([-3.0, -1e-7, 0.0, 1e-7, 3.0, math.pi], dtype=F64)
    _, theta = polar_log_2x2(rotation_2x2(angles))
    torch.testing.assert_close(theta, angles, rtol=0, atol=1e-14)


@pytest.mark.parametrize("angle", [1e-9, 1e-4, 1.0, 3.0, math.pi - 1e-4, math.pi - 1e-8])
def test_so3_log_is_accurate_at_every_angle(angle):
    w = torch.randn(200, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    w = w / w.norm(dim=-1, keepdim=True) * angle
    torch.testing.assert_close(so3_log(so3_exp(w)), w, rtol=0, atol=2e-15 + 1e-14 * angle)
    if angle < math.pi - 1e-6:
        torch.testing.assert_close(so3_log(so3_exp(w.float())).double(), w, rtol=0, atol=1e-6)


def test_so3_gradients_at_zero_and_near_pi():
    for w in ([0.0, 0.0, 0.0], [0.3, -0.2, 1.0], [math.pi - 1e-3, 0.0, 0.0]):
        v = torch.tensor(w, dtype=F64, requires_grad=True)
        assert gradcheck(so3_exp, (v,))
        assert gradcheck(lambda u: so3_log(so3_exp(u)), (v,))


def test_planar_exp_and_log():
    a = torch.randn(500, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    g = torch.linalg.matrix_exp(a)
    torch.testing.assert_close(exp_2x2(a), g, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(exp_2x2(log_2x2(g)), g, rtol=1e-11, atol=1e-11)
    nearly = torch.linalg.matrix_exp(1e-6 * a)
    torch.testing.assert_close(log_2x2(nearly), 1e-6 * a, rtol=0, atol=1e-15)
    assert gradcheck(log_2x2, (torch.eye(2, dtype=F64).requires_grad_(),))
    assert gradcheck(log_2x2, (g[:3].clone().requires_grad_(),))


@pytest.mark.parametrize("delta", [0.0, 1e-9, 1e-5, 1e-2])
def test_planar_log_near_the_rotation_by_pi(delta):
    r = rotation_2x2(torch.tensor(math.pi - delta, dtype=F64))
    a = log_2x2(1.7 * r)
    torch.testing.assert_close(exp_2x2(a), 1.7 * r, rtol=0, atol=1e-12)
    assert abs(abs(float(a[1, 0])) - (math.pi - delta)) < 1e-7


def test_matrices_without_a_real_logarithm_are_named():
    bad = torch.tensor([[[-1.0, 0.0], [0.0, -2.0]], [[-1.0, 1.0], [0.0, -1.0]]], dtype=F64)
    assert no_real_log_2x2(bad).all()
    assert not no_real_log_2x2(torch.stack([-torch.eye(2), torch.eye(2)])).any()
    for g in bad:
        with pytest.raises(ValueError, match="no real logarithm"):
            log_2x2(g)
        x, r = polar_log(g)
        torch.testing.assert_close(torch.linalg.matrix_exp(x) @ r, g, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="negative real axis"):
        matrix_log(torch.diag(torch.tensor([-1.0, -2.0, 1.0], dtype=F64)))


@pytest.mark.parametrize("n", [3, 4])
def test_general_logarithm_against_scipy(n):
    a = 0.6 * torch.randn(20, n, n, dtype=F64, generator=torch.Generator().manual_seed(n))
    g = torch.linalg.matrix_exp(a)
    ours = matrix_log(g)
    for g_k, log_k in zip(g, ours, strict=True):
        torch.testing.assert_close(log_k, torch.from_numpy(logm(g_k.numpy()).real), rtol=0, atol=1e-11)
    assert gradcheck(matrix_log, (torch.eye(n, dtype=F64).requires_grad_(),))


def test_phi1_solves_its_definition():
    a = torch.randn(10, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    eye = torch.eye(3, dtype=F64)
    torch.testing.assert_close(phi1(a) @ a, torch.linalg.matrix_exp(a) - eye, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(phi1(torch.zeros(3, 3, dtype=F64)), eye)
