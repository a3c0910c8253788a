"""HiPPO systems against their closed forms and identities."""

import math

import pytest
import scipy.linalg
import torch

from plugins.state_space.hippo import MEASURES, hippo, legs_impulse_response, legs_resolvent, nplr, rank_correction


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("n", [2, 8, 64, 256])
def test_nplr_rebuilds_the_matrix(measure: str, n: int) -> None:
    a, _ = hippo(measure, n)
    error = torch.linalg.matrix_norm(a - nplr(measure, n).matrix()) / torch.linalg.matrix_norm(a)
    assert error < 1e-12


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("n", [1, 3, 6, 7])
def test_rank_correction_leaves_identity_plus_skew(measure: str, n: int) -> None:
    if measure == "fout" and n % 2:
        with pytest.raises(ValueError, match="even"):
            hippo(measure, n)
        return
    a, _ = hippo(measure, n)
    p = rank_correction(measure, n)
    rest = a + p.T @ p
    c = rest[0, 0]
    skew = rest - c * torch.eye(n)
    assert torch.allclose(skew, -skew.T, atol=1e-12)
    assert c == pytest.approx({"legs": -0.5, "legt": 0.0, "fout": 0.0}[measure], abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("n", [2, 6, 7])
def test_modes_are_unitary_and_paired(measure: str, n: int) -> None:
    if measure == "fout" and n % 2:
        n += 1
    parts = nplr(measure, n)
    assert torch.allclose(parts.V.mH @ parts.V, torch.eye(n, dtype=torch.complex128), atol=1e-12)
    assert torch.equal(parts.lam, parts.lam.flip(0).conj())
    half = n // 2
    assert torch.equal(parts.V[:, :half], parts.V[:, n - half :].flip(1).conj())
    if n % 2:
        assert parts.V[:, half].imag.abs().max() < 1e-12


def test_largest_frequency_of_legs_at_64() -> None:
    assert nplr("legs", 64).lam.imag.max().item() == pytest.approx(1303.27, abs=0.01)
    assert nplr("legs", 32).lam.imag.max().item() == pytest.approx(325.4, abs=0.05)


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_impulse_response_is_the_matrix_exponential(n: int) -> None:
    a, b = hippo("legs", n)
    times = torch.tensor([0.0, 0.01, 0.3, 1.0, 4.0], dtype=torch.float64)
    expected = torch.stack([torch.from_numpy(scipy.linalg.expm(a.numpy() * t.item()) @ b.numpy()) for t in times])
    assert torch.allclose(legs_impulse_response(times, n), expected, atol=1e-9)


def test_resolvent_is_the_laplace_transform() -> None:
    n = 16
    a, b = hippo("legs", n)
    omega = torch.tensor([0.0, 0.1, 3.0, 50.0, 4000.0], dtype=torch.float64)
    eye = torch.eye(n, dtype=torch.complex128)
    expected = torch.stack([torch.linalg.solve(1j * w * eye - a, b + 0j) for w in omega])
    assert torch.allclose(legs_resolvent(omega, n), expected, atol=1e-12)
    assert torch.linalg.vector_norm(legs_resolvent(omega, n), dim=1).max() == pytest.approx(1.0)


@pytest.mark.parametrize("measure,late,floor", [("legt", 2.5, 0.03), ("fout", 2.5, 0.25)])
def test_windowed_measures_forget_after_the_window(measure: str, late: float, floor: float) -> None:
    a, b = hippo(measure, 64)
    inside, outside = (
        torch.from_numpy(scipy.linalg.expm(a.numpy() * t) @ b.numpy()).abs().mean().item() for t in (1.0, late)
    )
    assert outside < floor * inside


def test_legs_dissipates() -> None:
    a, b = hippo("legs", 32)
    assert torch.allclose(a + a.T, -torch.eye(32, dtype=a.dtype) - torch.outer(b, b), atol=1e-10)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="measure must be one of"):
        hippo("legz", 4)
    with pytest.raises(ValueError, match="at least 1"):
        hippo("legs", 0)
    assert math.isclose(hippo("legs", 1)[0].item(), -1.0)
