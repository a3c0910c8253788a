"""Scans, Vandermonde and Cauchy sums, convolution: against plain sums, and by gradcheck."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from plugins.state_space.discretization import bilinear, discretize, log_steps, zoh
from plugins.state_space.hippo import hippo, legs_impulse_response, legs_resolvent, nplr
from plugins.state_space.kernels import (
    associative_scan,
    cauchy,
    chunked_powers_state,
    fast_length,
    fft_convolve,
    hop_available,
    powers,
    vandermonde_kernel,
)
from plugins.state_space.layers import S4, S4D, S4PTD
from plugins.state_space.ptd import PTDSolver

C = torch.complex128


def random_exponents(*shape: int) -> torch.Tensor:
    return torch.complex(-torch.rand(shape, dtype=torch.float64), 3 * torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 33])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("constant", [True, False])
def test_scan_is_the_recurrence(length: int, reverse: bool, constant: bool) -> None:
    a = torch.randn(*(() if constant else (2, length)), 3, dtype=C) / 2
    b, initial = torch.randn(2, length, 3, dtype=C), torch.randn(2, 3, dtype=C)
    state, expected = initial, torch.empty_like(b)
    for k in reversed(range(length)) if reverse else range(length):
        state = (a if constant else a[:, k]) * state + b[:, k]
        expected[:, k] = state
    for backend in ("tree", "loop", *(["hop"] if hop_available() else [])):
        assert torch.allclose(associative_scan(a, b, initial, reverse, backend), expected, atol=1e-12)


def test_the_prototype_operator_is_there() -> None:
    assert hop_available(), "this PyTorch lost its associative_scan operator: the backend 'hop' needs attention"


@pytest.mark.parametrize("length", [1, 2, 5, 8])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("constant", [True, False])
def test_gradcheck_of_the_scan(length: int, reverse: bool, constant: bool) -> None:
    a = (torch.randn(*(() if constant else (2, length)), 3, dtype=C) / 2).requires_grad_()
    b = torch.randn(2, length, 3, dtype=C, requires_grad=True)
    initial = torch.randn(2, 3, dtype=C, requires_grad=True)
    assert gradcheck(lambda *x: associative_scan(*x, reverse=reverse), (a, b, initial))


def test_gradcheck_of_the_scan_of_real_numbers() -> None:
    a = torch.rand(3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(associative_scan, (a, b))


def test_precise_coefficients_keep_the_phase_of_a_long_scan() -> None:
    length, lam = 16384, torch.tensor([torch.exp(torch.tensor(-1e-4 + 2.7j, dtype=C)).item()], dtype=C)
    b = torch.zeros(1, length, 1, dtype=torch.complex64)
    b[:, 0] = 1
    exact = lam.item() ** (length - 1)
    assert abs(associative_scan(lam, b)[0, -1, 0].item() - exact) < 1e-5 * abs(exact)


def test_scan_of_nothing_and_of_bad_shapes() -> None:
    assert associative_scan(torch.ones(3), torch.ones(2, 0, 3)).shape == (2, 0, 3)
    assert associative_scan(torch.ones(3), torch.ones(0, 4, 3)).shape == (0, 4, 3)
    with pytest.raises(ValueError, match="backend"):
        associative_scan(torch.ones(3), torch.ones(2, 4, 3), backend="fast")
    with pytest.raises(ValueError, match="shape"):
        associative_scan(torch.ones(2), torch.ones(2, 4, 3))
    with pytest.raises(ValueError, match="fit"):
        associative_scan(torch.ones(5, 3), torch.ones(2, 4, 3))


@pytest.mark.parametrize("length", [1, 2, 3, 10, 1000])
def test_vandermonde_is_the_sum(length: int) -> None:
    w, z = torch.randn(2, 3, 4, dtype=C), random_exponents(3, 4)
    expected = (w[..., None] * torch.exp(z[..., None] * torch.arange(length))).sum(2).real
    assert torch.allclose(vandermonde_kernel(w, z, length), expected, atol=1e-10)
    assert torch.allclose(vandermonde_kernel(w[0], z, length), expected[0], atol=1e-10)


@pytest.mark.parametrize("length", [1, 2, 5, 12])
def test_gradcheck_of_vandermonde(length: int) -> None:
    w, z = torch.randn(2, 3, 4, dtype=C, requires_grad=True), random_exponents(3, 4).requires_grad_()
    assert gradcheck(lambda w, z: vandermonde_kernel(w, z, length), (w, z))


def test_float32_kernel_of_a_long_fast_mode() -> None:
    # Im(z)·length = 1e5 radians: 6e-8 relative in the phase would be 6e-3 absolute
    z = torch.tensor([[-1e-5 + 6.1j]], dtype=C)
    w = torch.ones(1, 1, dtype=torch.complex64)
    length = 16384
    expected = torch.exp(z[0, 0] * torch.arange(length)).real
    assert (vandermonde_kernel(w, z, length)[0] - expected).abs().max() < 2e-5


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_powers(count: int) -> None:
    base = torch.randn(2, 3, dtype=C)
    assert torch.allclose(powers(base, count), base[..., None] ** torch.arange(count), atol=1e-10)


@pytest.mark.parametrize("length", [1, 2, 10, 100])
def test_final_state(length: int) -> None:
    u, z = torch.randn(2, 3, length, dtype=torch.float64), random_exponents(3, 4)
    weights = torch.exp(z[..., None] * torch.arange(length - 1, -1, -1))
    assert torch.allclose(chunked_powers_state(u, z), torch.einsum("bhl,hnl->bhn", u + 0j, weights), atol=1e-10)


def test_cauchy_is_the_sum_and_its_gradient() -> None:
    v = torch.randn(2, 3, 4, dtype=C, requires_grad=True)
    mu = random_exponents(3, 4).requires_grad_()
    alpha, beta = torch.randn(70, dtype=C), torch.randn(70, dtype=C)
    expected = (v[..., None] / (alpha - beta * mu[..., None])).sum(2)
    assert torch.allclose(cauchy(v, alpha, beta, mu), expected)
    assert gradcheck(lambda v, mu: cauchy(v, alpha, beta, mu), (v, mu))


@pytest.mark.parametrize("length", [1, 2, 9])
def test_convolution_is_the_sum_and_its_gradient(length: int) -> None:
    u = torch.randn(2, 3, length, dtype=torch.float64, requires_grad=True)
    k = torch.randn(3, length, dtype=torch.float64, requires_grad=True)
    ahead = torch.randn(3, length, dtype=torch.float64, requires_grad=True)
    expected = torch.zeros_like(u)
    for i in range(length):
        for j in range(length):
            tap = k[:, i - j] if i > j else ahead[:, j - i] if j > i else k[:, 0] + ahead[:, 0]
            expected = expected + torch.nn.functional.one_hot(torch.tensor(i), length) * (tap * u[:, :, j])[..., None]
    assert torch.allclose(fft_convolve(u, k, ahead), expected, atol=1e-12)
    assert gradcheck(fft_convolve, (u, k)) and gradcheck(fft_convolve, (u, k, ahead))


def test_fast_lengths() -> None:
    assert [fast_length(n) for n in (1, 2, 13, 2000, 2046)] == [2, 2, 16, 2000, 2048]


def test_discretisation_at_and_near_zero() -> None:
    step = torch.tensor(0.1, dtype=torch.float64)
    for rule in (zoh, bilinear):
        lam = torch.zeros(1, dtype=C, requires_grad=True)
        lam_bar, gamma = rule(lam, step)
        assert lam_bar.item() == 1 and gamma.item() == pytest.approx(0.1)
        (gradient,) = torch.autograd.grad(gamma.real.sum(), lam)
        assert gradient.item() == pytest.approx(0.005)  # Δ²/2
    for magnitude in (1e-8, 1e-4, 0.9e-3, 1.1e-3, 0.5):
        z = magnitude * torch.tensor([-0.6 + 0.8j], dtype=C)
        exact = sum(z.item() ** k / math.factorial(k + 1) for k in range(25))
        assert abs(zoh(z, torch.ones((), dtype=torch.float64))[1].item() - exact) < 2e-15 * (1 + abs(exact))


def test_discretisation_gradcheck_and_names() -> None:
    lam, step = random_exponents(3).requires_grad_(), torch.rand(3, dtype=torch.float64, requires_grad=True)
    for kind in ("zoh", "bilinear"):
        assert gradcheck(lambda a, b, kind=kind: discretize(kind, a, b), (lam, step))
    with pytest.raises(ValueError, match="discretization"):
        discretize("euler", lam, step)
    with pytest.raises(ValueError, match="dt_min"):
        log_steps((2,), 0.1, 0.01)
    drawn = log_steps((1000,), 1e-3, 1e-1)
    assert math.log(1e-3) <= drawn.min() and drawn.max() <= math.log(1e-1)


def response(lam: complex, steps: int, kind: str, total: float = 1.0) -> complex:
    """State at ``total`` of x' = λx + sin t by ``steps`` steps, inputs at midpoints (bilinear) or left ends (zoh)."""
    step = torch.tensor(total / steps, dtype=torch.float64)
    lam_bar, gamma = discretize(kind, torch.tensor(lam, dtype=C), step)
    times = (np.arange(steps) + (0.5 if kind == "bilinear" else 0.0)) * total / steps
    x = associative_scan(lam_bar[None], (gamma * torch.from_numpy(np.sin(times)))[:, None])
    return x[-1, 0].item()


@pytest.mark.parametrize("kind,order", [("bilinear", 2), ("zoh", 1)])
def test_convergence_orders(kind: str, order: int) -> None:
    lam = -0.7 + 2j
    exact = np.exp(lam) * (1 - np.exp(-lam) * (lam * np.sin(1) + np.cos(1))) / (lam**2 + 1)
    errors = [abs(response(lam, n, kind) - exact) for n in (64, 128, 256)]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([order, order], abs=0.05)


def test_zoh_is_exact_for_piecewise_constant_input() -> None:
    lam, step, u = -0.3 + 5j, 0.2, [1.0, -2.0, 0.5]
    lam_bar, gamma = zoh(torch.tensor(lam, dtype=C), torch.tensor(step, dtype=torch.float64))
    x = associative_scan(lam_bar[None], (gamma * torch.tensor(u, dtype=torch.float64))[:, None])[-1, 0].item()
    exact = 0j
    for value in u:
        exact = exact * np.exp(lam * step) + value * (np.exp(lam * step) - 1) / lam
    assert abs(x - exact) < 1e-11


def test_legs_kernel_of_the_exact_modes() -> None:
    """The impulse response of A_D − PPᵀ, from its parts, against the Legendre closed form."""
    n = 32
    parts = nplr("legs", n)
    times = torch.linspace(0, 3, 50, dtype=torch.float64)
    a, b = hippo("legs", n)
    assert torch.allclose(parts.matrix().real, a, atol=1e-9)
    step = torch.linalg.matrix_exp(parts.matrix() * (times[1] - times[0]))
    x = [b.to(C)]
    for _ in times[1:]:
        x.append(step @ x[-1])
    assert (torch.stack(x) - legs_impulse_response(times, n)).abs().max() < 1e-10


def test_zoh_kernel_of_legs_sums_to_legendre_integrals() -> None:
    """Σ_{l<k} K_l = ∫₀^{kΔ} e^{At}B dt, in closed form: ∫ P_i = (P_{i+1} − P_{i−1})/(2i+1)."""
    n, steps, dt = 8, 300, 0.01
    a, b = hippo("legs", n)
    lam, v = torch.linalg.eig(a)  # κ(V) = 8e4 at n = 8: eleven digits are left
    lam_bar, gamma = zoh(lam, torch.tensor(dt, dtype=torch.float64))
    assert torch.allclose(lam_bar, torch.exp(lam * dt))
    w = v * (gamma * torch.linalg.solve(v, b + 0j))
    sums = torch.cumsum(vandermonde_kernel(w, (lam * dt).expand(n, -1), steps), 1)
    decay = torch.exp(-dt * torch.arange(steps + 1, dtype=torch.float64))
    # e^{-t}·P_i divided by e^{-t}: the polynomials themselves, up to degree n
    index = torch.arange(n + 1, dtype=torch.float64)
    polynomials = legs_impulse_response(-torch.log(decay), n + 1) / decay[:, None] / torch.sqrt(2 * index + 1)
    lower = torch.cat([-torch.ones(steps + 1, 1, dtype=torch.float64), polynomials], 1)[:, :n]
    lower[:, 0] = -1.0  # P_{-1}: the integral of P_0 = 1 from −1 is y + 1
    primitive = (polynomials[:, 1:] - lower) / (2 * index[:n] + 1)
    integral = torch.sqrt(2 * index[:n] + 1) / 2 * (primitive[0] - primitive[1:])
    assert (sums.T - integral).abs().max() < 1e-10


@pytest.mark.parametrize("measure", ["legs", "legt", "fout"])
def test_dplr_kernel_is_the_dense_bilinear_recurrence(measure: str) -> None:
    n, heads, length = 32, 2, 200
    layer = S4(heads, n, measure, feedthrough=False).double()
    a, b = hippo(measure, n)
    # the layer's eigenvalues are stored in float32: give it the exact ones, and a readout in the original coordinates
    parts = nplr(measure, n)
    half = n // 2
    c = torch.randn(heads, n, dtype=torch.float64)
    # the guard keeps Re λ at −1e-4 where theory has 0
    decay = 0.5 if measure == "legs" else 1e-4
    if measure != "legs":
        a = a - decay * torch.eye(n, dtype=a.dtype)
    lam, p, b_modal = parts.dplr()
    with torch.no_grad():
        layer.eigenvalues.decay.fill_(math.log(decay))
        layer.eigenvalues.frequency.copy_(lam.imag[:half].expand(heads, -1))
        layer.P.copy_(torch.view_as_real(p[:, None, :half].expand(-1, heads, -1).contiguous()))
        layer.B.copy_(torch.view_as_real(b_modal[:half].expand(heads, -1).contiguous()))
        layer.C.copy_(torch.view_as_real((c.to(C) @ parts.V)[None, :, :half].contiguous()))
        kernel = layer.kernel(length)[0]
        eye = torch.eye(n, dtype=a.dtype)
        for h in range(heads):
            step = torch.exp(layer.log_dt[h])
            left = torch.linalg.inv(eye - step / 2 * a)
            state, expected = left @ b * step, []
            for _ in range(length):
                expected.append(c[h] @ state)
                state = left @ (eye + step / 2 * a) @ state
            expected = torch.stack(expected)
            assert (kernel[h] - expected).abs().max() < 1e-10 * expected.abs().max()


def test_dplr_resolvent_of_legs_is_the_closed_form() -> None:
    n = 64
    lam, p, b = nplr("legs", n).dplr()
    omega = torch.tensor([0.0, 1.0, 30.0, 1303.27, 1e5], dtype=torch.float64)
    alpha, one = 1j * omega, torch.ones(len(omega), dtype=C)
    # Woodbury: X = D b − D p (1 + p* D p)^{-1} p* D b, D = 1/(iω − Λ)
    sums = cauchy(torch.stack([p[0].conj() * b, p[0].conj() * p[0]])[:, None], alpha, one, lam[None])[:, 0]
    d = 1 / (alpha[:, None] - lam)
    modal = d * b - d * p[0] * (sums[0] / (1 + sums[1]))[:, None]
    assert (modal @ nplr("legs", n).V.T - legs_resolvent(omega, n)).abs().max() < 1e-10


def test_legs_kernel_of_ptd_tends_to_the_closed_form() -> None:
    """Cumulative zero-order-hold responses of S4-PTD against the integral of LegS's impulse response."""
    n, steps, dt = 16, 400, 0.01
    errors = []
    for gamma in (10, 1000):
        result = PTDSolver(gamma=gamma).solve("legs", n)
        times = dt * torch.arange(1, steps + 1, dtype=torch.float64)
        w = result.V * ((torch.exp(result.lam * dt) - 1) / result.lam * result.B)
        kernel = vandermonde_kernel(w, (result.lam * dt).expand(n, -1), steps)
        truth = legs_impulse_response(times, n).T
        reference = torch.cumsum(kernel, 1)  # step response after each step
        a, b = hippo("legs", n)
        exact = torch.linalg.solve(a, torch.stack([torch.linalg.matrix_exp(a * t) @ b - b for t in times], 1))
        assert torch.allclose(a @ exact + b[:, None], truth, atol=1e-9)
        errors.append((reference - exact).abs().max().item())
    assert errors[1] < errors[0] / 5 and errors[1] < 5e-3


class Largest(TorchDispatchMode):
    """Number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("layer", [S4D, S4PTD])
def test_no_tensor_of_heads_states_and_length(layer: type[S4D]) -> None:
    heads, states, length = 16, 64, 4096
    model = layer(heads, states)
    kept = model.C.shape[-2]
    with Largest() as largest:
        model(torch.randn(1, length, heads)).sum().backward()
    # input, spectra and kernels are of size heads·length; powers of heads·states·√length
    assert largest.elements < heads * kept * length / 6
