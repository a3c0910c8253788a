"""Rotations against scipy's, and where they degenerate."""

import itertools
import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from plugins.motion.rotations import (
    axis_quaternion,
    euler_to_quaternion,
    identity_quaternion,
    matrix_to_euler,
    matrix_to_quaternion,
    matrix_to_sixd,
    normalize,
    quaternion_between,
    quaternion_conjugate,
    quaternion_multiply,
    quaternion_rotate,
    quaternion_to_matrix,
    sixd_to_matrix,
)


def quaternions(n, seed=0, dtype=torch.float64):
    return normalize(torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype))


def scipy_rotation(q):
    return Rotation.from_quat(q[:, [1, 2, 3, 0]].numpy())


def same_rotation(a, b, tolerance=1e-12):
    return bool(((a * b).sum(-1).abs() > 1 - tolerance).all())


def test_products_matrices_and_vectors_agree_with_scipy():
    a, b, v = quaternions(50), quaternions(50, 1), torch.randn(50, 3, dtype=torch.float64)
    product = quaternion_multiply(a, b)
    expected = torch.from_numpy((scipy_rotation(a) * scipy_rotation(b)).as_matrix())
    assert torch.allclose(quaternion_to_matrix(product), expected, atol=1e-13)
    assert torch.allclose(quaternion_rotate(a, v), torch.from_numpy(scipy_rotation(a).apply(v.numpy())), atol=1e-13)
    assert torch.allclose(quaternion_rotate(quaternion_conjugate(a), quaternion_rotate(a, v)), v, atol=1e-13)


@pytest.mark.parametrize("order", ["".join(p) for p in itertools.permutations("XYZ")])
def test_euler_angles_of_every_order(order):
    angles = torch.rand(50, 3, dtype=torch.float64) * 2.8 - 1.4
    q = euler_to_quaternion(angles, order)
    assert same_rotation(
        q, torch.from_numpy(Rotation.from_euler(order, angles.numpy()).as_quat())[:, [3, 0, 1, 2]].double()
    )
    assert torch.allclose(matrix_to_euler(quaternion_to_matrix(q), order), angles, atol=1e-9)
    wild = quaternions(200, 5)
    assert same_rotation(euler_to_quaternion(matrix_to_euler(quaternion_to_matrix(wild), order), order), wild)


@pytest.mark.parametrize("order", ["XYZ", "ZXY", "YXZ", "XZY"])
@pytest.mark.parametrize("middle", [math.pi / 2, -math.pi / 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gimbal_lock_gives_the_same_rotation(order, middle, dtype):
    angles = torch.tensor([[0.3, middle, -0.8], [-2.0, middle, 0.0]], dtype=dtype)
    m = quaternion_to_matrix(euler_to_quaternion(angles, order))
    again = quaternion_to_matrix(euler_to_quaternion(matrix_to_euler(m, order), order))
    assert torch.allclose(again, m, atol=1e-12 if dtype == torch.float64 else 1e-3)


def test_an_order_must_name_three_axes():
    with pytest.raises(ValueError, match="order 'zxz'"):
        euler_to_quaternion(torch.zeros(1, 3), "zxz")


def test_matrices_to_quaternions_also_at_half_turns():
    axes = torch.eye(3, dtype=torch.float64)
    half_turns = torch.cat([torch.zeros(3, 1, dtype=torch.float64), axes], -1)
    q = torch.cat([quaternions(100), half_turns, identity_quaternion(1, dtype=torch.float64)])
    back = matrix_to_quaternion(quaternion_to_matrix(q))
    assert same_rotation(back, q) and bool((back[:, 0] >= 0).all())


def test_six_numbers_are_two_columns():
    m = quaternion_to_matrix(quaternions(20))
    d = matrix_to_sixd(m)
    assert torch.equal(d[:, :3], m[:, :, 0]) and torch.equal(d[:, 3:], m[:, :, 1])
    assert torch.allclose(sixd_to_matrix(d), m, atol=1e-13)
    any_two = sixd_to_matrix(torch.randn(20, 6, dtype=torch.float64))
    assert torch.allclose(any_two @ any_two.mT, torch.eye(3, dtype=torch.float64).expand(20, 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(any_two), torch.ones(20, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shortest_rotation_between_directions(dtype):
    u, v = torch.randn(50, 3, dtype=dtype), torch.randn(50, 3, dtype=dtype)
    q = quaternion_between(u, v)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert torch.allclose(quaternion_rotate(q, normalize(u)), normalize(v), atol=tolerance)
    angle = 2 * q[:, 0].clamp(-1, 1).acos()
    assert torch.allclose(angle.cos(), (normalize(u) * normalize(v)).sum(-1), atol=10 * tolerance)
    opposite = quaternion_between(u, -u)
    assert torch.allclose(quaternion_rotate(opposite, normalize(u)), -normalize(u), atol=10 * tolerance)
    flat = u * torch.tensor([1.0, 0.0, 1.0], dtype=dtype)
    assert torch.allclose(quaternion_between(flat, -flat)[:, 2].abs(), torch.ones(50, dtype=dtype), atol=tolerance)
    zero = torch.zeros(1, 3, dtype=dtype)
    assert torch.equal(quaternion_between(zero, u[:1]), identity_quaternion(1, dtype=dtype))


def test_normalize_has_a_finite_gradient_at_zero():
    v = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    normalize(v).sum().backward()
    assert bool(torch.isfinite(v.grad).all())
    w = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalize, w)


def test_axis_quaternions_turn_about_their_axis():
    quarter = torch.tensor(math.pi / 2, dtype=torch.float64)
    z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert torch.allclose(
        quaternion_rotate(axis_quaternion("y", quarter), z), torch.tensor([1.0, 0, 0], dtype=torch.float64), atol=1e-15
    )
    assert torch.equal(axis_quaternion(1, quarter), axis_quaternion("y", quarter))
