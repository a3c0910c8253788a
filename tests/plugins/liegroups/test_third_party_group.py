"""A group that the package does not know, SO(2) x R+, written here in one class, runs in every layer and sampler."""

import math
from functools import cached_property

import pytest
import torch

from plugins.liegroups.equivariance import equivariance_error
from plugins.liegroups.groups import LieGroup
from plugins.liegroups.haar import CoordinateBox, CoordinateGrid, CoordinateNormal, SamplePlan, StarGrid, integrate
from plugins.liegroups.kernels import MLP
from plugins.liegroups.layers import DepthwiseGroupConv, GroupConv, LiftingConv, ProjectionConv, SeparableGroupConv
from plugins.liegroups.networks import GroupClassifier


class RotationAndScale(LieGroup):
    """SO(2) x R+ as real matrices [[a, -b], [b, a]]; exponential coordinates (log scale, angle) cover it."""

    name = "rotation_and_scale"
    dim = 2
    rep_dim = 2
    space_dim = 2

    @cached_property
    def basis(self):
        return torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [1.0, 0.0]]], dtype=torch.float64)

    def project(self, m):
        a, b = (m[..., 0, 0] + m[..., 1, 1]) / 2, (m[..., 1, 0] - m[..., 0, 1]) / 2
        return torch.stack([a, -b, b, a], -1).reshape(m.shape)

    def log(self, g):
        return torch.stack([torch.log(g[..., :, 0].norm(dim=-1)), torch.atan2(g[..., 1, 0], g[..., 0, 0])], -1)


@pytest.fixture
def group():
    return RotationAndScale()


def test_inherited_mathematics(group):
    v = 0.5 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(group.log(group.exp(v)), v)
    assert group.belongs(group.exp(v)).all()
    assert not group.belongs(torch.diag(torch.tensor([1.0, 2.0])))
    torch.testing.assert_close(group.haar_log_density(v), torch.zeros(50, dtype=torch.float64))
    torch.testing.assert_close(group.modular_function(group.exp(v)), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(group.log_abs_det(group.exp(v)), 2 * v[:, 0])


def test_samplers_and_integrals(group):
    generator = torch.Generator().manual_seed(0)
    volume = integrate(lambda g: torch.ones(len(g)), CoordinateBox(group, [0.5, math.pi]), 100, generator)
    assert abs(volume.value - 2 * math.pi) < 1e-9
    assert len(StarGrid(group, 8, 0.3)()) == 24
    grid = CoordinateGrid(group, [3, 8], [0.4, math.pi], [False, True])()
    assert abs(float(grid.log_weight.exp().mean()) - 0.8 * 2 * math.pi) < 1e-9


@pytest.mark.parametrize("layer", [LiftingConv, GroupConv, SeparableGroupConv, DepthwiseGroupConv, ProjectionConv])
def test_layers(group, layer):
    """Equivariant up to the integral over the group, whose error shrinks with the samples."""
    torch.manual_seed(0)
    module = layer(group, 2, 2, 5, window="bump", unit=2.5, kernel_factory=MLP).double()

    def error(n):
        draws = [CoordinateNormal(group, 0.5)(n, torch.Generator().manual_seed(k)) for k in range(6)]
        return sum(equivariance_error(module, group, inp=draw, elements=2) ** 2 for draw in draws) ** 0.5

    few, many = error(8), error(200)
    assert many == few if layer is LiftingConv else many < 0.5 * few


def test_whole_network(group):
    plan = SamplePlan(StarGrid(group, 4, 0.2), sets=[0, 0, 0], offset=CoordinateNormal(group, 0.2))
    network = GroupClassifier(plan, channels=(4, 4, 8), kernel_sizes=(5, 3, 3))
    network(torch.rand(3, 1, 20, 20)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
