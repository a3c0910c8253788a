"""S4: one diagonal-plus-low-rank system for each channel (Gu, Goel & Ré 2022, arXiv 2111.00396)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from plugins.state_space.discretization import log_steps
from plugins.state_space.hippo import nplr
from plugins.state_space.kernels import cauchy, fft_convolve
from plugins.state_space.layers.base import Eigenvalues, StateSpaceLayer, as_pairs


class S4(StateSpaceLayer):
    """Single-input single-output layer whose A = Λ − PP* keeps HiPPO's low-rank part; the baseline of the others.

    The bilinear rule; the kernel comes from its generating function at the roots of unity through Cauchy sums and
    Woodbury's identity. The parameter C is the readout itself: (I − Āᴸ) is applied for each length asked for.

    Args:
        d_model: channels H.
        d_state: real state size n, even; kept as n/2 conjugate pairs.
        measure: ``legs``, ``legt`` or ``fout``.
        n_ssm: independent copies of (Λ, P, B); one per channel when omitted.
        dt_min, dt_max: range of the initial step sizes.
        bidirectional: a second readout looks ahead.
        feedthrough: with the D term.
        guard: how Re λ stays negative.
        mode: ``convolution`` or ``recurrence``. A carried state is always followed step by step.

    The state has shape (B, H, n), real: real parts, then imaginary parts of the kept modes.
    """

    roles = {
        "eigenvalues.decay": "dynamics",
        "eigenvalues.frequency": "dynamics",
        "P": "dynamics",
        "log_dt": "timescale",
        "B": "input",
        "C": "readout",
        "D": "feedthrough",
    }
    modes = ("convolution", "recurrence")

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        measure: str = "legs",
        n_ssm: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
        feedthrough: bool = True,
        guard: str = "exp",
        mode: str = "convolution",
    ) -> None:
        super().__init__(d_model, mode, bidirectional)
        if d_state < 2 or d_state % 2:
            raise ValueError(f"d_state of S4 must be even and at least 2, not {d_state}")
        copies = d_model if n_ssm is None else n_ssm
        if copies < 1 or d_model % copies:
            raise ValueError(f"n_ssm must divide d_model={d_model}, not {n_ssm}")
        parts = nplr(measure, d_state)
        lam, p, b = parts.dplr()
        half = d_state // 2
        readout = torch.randn(2 if bidirectional else 1, d_model, d_state, dtype=torch.float64)
        self.eigenvalues = Eigenvalues(lam[:half].expand(copies, -1), guard)
        self.P = as_pairs(p[:, None, :half].expand(-1, copies, -1))
        self.B = as_pairs(b[:half].expand(copies, -1))
        self.C = as_pairs(readout.to(parts.V.dtype) @ parts.V[:, :half])
        self.log_dt = nn.Parameter(log_steps((d_model,), dt_min, dt_max))
        self.D = nn.Parameter(torch.randn(d_model)) if feedthrough else None

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """λ (H, N), P (r, H, N), B (H, N), C (R, H, N), all complex128, and Δ (H, 1)."""
        share = self.d_model // self.B.shape[0]
        step = self.step_rescale * torch.exp(self.log_dt.double())[:, None]
        p, b, c = (torch.view_as_complex(value.double()) for value in (self.P, self.B, self.C))
        lam = self.eigenvalues().repeat_interleave(share, dim=0)
        return lam, p.repeat_interleave(share, dim=1), b.repeat_interleave(share, dim=0), c, step

    def _dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ā (H, n, n), B̄ (H, n) and C (R, H, n) in real coordinates (Re x, Im x), float64."""
        lam, p, b, c, step = self._parts()
        # Woodbury on real coordinates: P* x over both members of every pair is the real number 2 Re Σ conj(p) x
        d = 1 / (2 / step - lam)
        left = _stacked(d * p)
        right = 2 * torch.cat([(p.conj() * d).real, -(p.conj() * d).imag], dim=-1)
        core = 2 * torch.einsum("qhn,hn,rhn->hqr", p.conj(), d, p).real
        core = core + torch.eye(core.shape[-1], dtype=core.dtype, device=core.device)
        weights = _solve_small(core, right.permute(1, 0, 2))
        inverse = _real_diagonal(d) - torch.einsum("rhm,hrn->hmn", left, weights)
        # (2/Δ − A)^{-1}(2/Δ + A) = −I + 4/Δ (2/Δ − A)^{-1}
        eye = torch.eye(inverse.shape[-1], dtype=inverse.dtype, device=inverse.device)
        a_bar = 4 / step[..., None] * inverse - eye
        b_bar = 2 * torch.einsum("hmn,hn->hm", inverse, _stacked(b))
        return a_bar, b_bar, 2 * torch.cat([c.real, -c.imag], dim=-1)

    def kernel(self, length: int) -> Tensor:
        """Impulse responses C Āˡ B̄, (R, H, length) real."""
        lam, p, b, _, step = self._parts()
        a_bar, _, c_real = self._dense()
        # K truncated to `length` steps has the readout C(I − Āᴸ)
        c_real = c_real - torch.einsum("rhm,hmn->rhn", c_real, torch.linalg.matrix_power(a_bar, length))
        states = lam.shape[-1]
        c = torch.complex(c_real[..., :states], -c_real[..., states:]) / 2
        angle = torch.arange(length // 2 + 1, dtype=torch.float64, device=lam.device) * (-2 * math.pi / length)
        zeta = torch.polar(torch.ones_like(angle), angle)
        kernel_hat = self._generating_function(lam, p, step * b, c, step, zeta)
        return torch.fft.irfft(kernel_hat, n=length)

    def _generating_function(self, lam: Tensor, p: Tensor, b: Tensor, c: Tensor, step: Tensor, zeta: Tensor) -> Tensor:
        """C (I − ζĀ)^{-1} B̄ at each ζ, (R, H, M), from sums over poles and an r × r solve."""
        rank, rows = p.shape[0], c.shape[0]
        left = torch.cat([c, p.conj()])  # rows: C, then P*
        right = torch.cat([b[None], p])
        numerators = (left[:, None] * right[None]).flatten(0, 1)
        dtype = torch.view_as_complex(self.B).dtype
        # both members of every pair: the conjugate numerators over the conjugate poles
        poles = torch.cat([lam, lam.conj()], dim=-1) * (step / 2)
        numerators = torch.cat([numerators, numerators.conj()], dim=-1)
        alpha, beta = 1 - zeta, 1 + zeta
        sums = cauchy(numerators.to(dtype), alpha.to(dtype), beta.to(dtype), poles.to(dtype))
        sums = sums.unflatten(0, (rows + rank, 1 + rank)).permute(2, 3, 0, 1)  # (H, M, R + r, 1 + r)
        scale = (step / 2 * beta).to(dtype)[..., None, None]
        eye = torch.eye(rank, dtype=dtype, device=lam.device)
        core = _solve_small(eye + scale * sums[..., rows:, 1:], sums[..., rows:, :1])
        value = sums[..., :rows, :1] - scale * (sums[..., :rows, 1:] @ core)
        return value.squeeze(-1).permute(2, 0, 1)

    def default_state(self, batch: int) -> Tensor:
        return self.C.new_zeros(batch, self.d_model, 2 * self.C.shape[-2])

    def discrete_system(self) -> tuple[Tensor, ...]:
        a_bar, b_bar, c = self._dense()
        dtype = self.C.dtype
        return a_bar.to(dtype), b_bar.to(dtype), c[0].to(dtype)

    def step(self, u: Tensor, state: Tensor, system: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
        a_bar, b_bar, c = self.discrete_system() if system is None else system
        state = torch.einsum("hmn,bhn->bhm", a_bar, state) + b_bar * u[..., None]
        y = (c * state).sum(-1)
        return (y if self.D is None else y + self.D * u), state

    def _sequence(
        self, u: Tensor, lengths: Tensor | None, state: Tensor | None, return_state: bool
    ) -> tuple[Tensor, Tensor]:
        if self.mode == "recurrence" or state is not None or return_state:
            y, last = self._recur(u, lengths, state)
            return (y + self._ahead_by_steps(u), last) if self.bidirectional else (y, last)
        kernels = self.kernel(u.shape[1])
        y = fft_convolve(u.transpose(1, 2), kernels[0], kernels[1] if self.bidirectional else None).transpose(1, 2)
        return (y if self.D is None else y + self.D * u), u.new_empty(0)

    def _ahead_by_steps(self, u: Tensor) -> Tensor:
        a_bar, b_bar, c = self._dense()
        a_bar, b_bar, c = a_bar.to(u.dtype), b_bar.to(u.dtype), c[1].to(u.dtype)
        state, outputs = self.default_state(u.shape[0]), []
        for k in reversed(range(u.shape[1])):
            state = torch.einsum("hmn,bhn->bhm", a_bar, state) + b_bar * u[:, k, :, None]
            outputs.append((c * state).sum(-1))
        return torch.stack(outputs[::-1], dim=1)


def _stacked(x: Tensor) -> Tensor:
    """Real coordinates (Re x, Im x) of complex modes."""
    return torch.cat([x.real, x.imag], dim=-1)


def _real_diagonal(d: Tensor) -> Tensor:
    """diag(d) (H, N) complex as a real (H, 2N, 2N) matrix on (Re x, Im x)."""
    real, imaginary = torch.diag_embed(d.real), torch.diag_embed(d.imag)
    return torch.cat([torch.cat([real, -imaginary], dim=-1), torch.cat([imaginary, real], dim=-1)], dim=-2)


def _solve_small(m: Tensor, right: Tensor) -> Tensor:
    """m^{-1} right for 1×1 and 2×2 matrices by Cramer's rule: a LAPACK call for each would cost far more."""
    if m.shape[-1] == 1:
        return right / m
    (a, b), (c, d) = (m[..., i, :, None].unbind(-2) for i in range(2))
    first, second = right[..., 0, :], right[..., 1, :]
    determinant = a * d - b * c
    return torch.stack([d * first - b * second, a * second - c * first], dim=-2) / determinant[..., None]
