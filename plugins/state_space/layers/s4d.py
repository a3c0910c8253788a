"""One diagonal system for each channel: S4D and S4-PTD."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.state_space.discretization import discretize, log_steps
from plugins.state_space.initialization import initial_modes
from plugins.state_space.kernels import (
    associative_scan,
    chunked_powers_state,
    fft_convolve,
    vandermonde_kernel,
)
from plugins.state_space.layers.base import Eigenvalues, StateSpaceLayer, as_pairs
from plugins.state_space.ptd import PTDSolver

SCAN_CHUNK = 64  # steps at a time in scan mode, which bounds its states to (B, 64, H·N)


class S4D(StateSpaceLayer):
    """Single-input single-output diagonal layer (Gu et al. 2022, arXiv 2206.11893).

    y_h = Re Σ_n weight_n C_hn x_hn + D_h u_h with x' = Λx + Bu for each channel h.

    Args:
        d_model: channels H.
        d_state: real state size n of each channel (N ≈ n/2 complex ones with ``conj_sym``).
        init: of ``INITIALIZATIONS``.
        n_ssm: independent copies of (Λ, B), shared by d_model/n_ssm channels each; one per channel when omitted.
        dt_min, dt_max: range of the initial step sizes, one for each channel.
        discretization: ``zoh`` or ``bilinear``.
        bidirectional: a second readout looks ahead.
        feedthrough: with the D term.
        conj_sym: keep one of each conjugate pair.
        guard: how Re λ stays negative.
        gamma: of the perturbation, for ``ptd-*`` initialisations.
        mode: ``convolution`` (default), ``scan`` or ``recurrence``; may be set later.

    The state has shape (B, H, N), complex.
    """

    roles = {
        "eigenvalues.decay": "dynamics",
        "eigenvalues.frequency": "dynamics",
        "log_dt": "timescale",
        "B": "input",
        "C": "readout",
        "D": "feedthrough",
    }
    weight: Tensor
    modes = ("convolution", "scan", "recurrence")

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        init: str = "s4d-legs",
        n_ssm: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        discretization: str = "zoh",
        bidirectional: bool = False,
        feedthrough: bool = True,
        conj_sym: bool = True,
        guard: str = "exp",
        gamma: float = 100.0,
        mode: str = "convolution",
    ) -> None:
        super().__init__(d_model, mode, bidirectional)
        copies = d_model if n_ssm is None else n_ssm
        if copies < 1 or d_model % copies:
            raise ValueError(f"n_ssm must divide d_model={d_model}, not {n_ssm}")
        solver = PTDSolver(gamma=gamma) if init == "ptd-legs" else PTDSolver(gamma=gamma, start="random")
        start = initial_modes(init, d_state, conj_sym, solver)
        discretize(discretization, start.lam, torch.ones(()))
        self.discretization = discretization
        self.eigenvalues = Eigenvalues(start.lam.expand(copies, -1), guard)
        self.log_dt = nn.Parameter(log_steps((d_model,), dt_min, dt_max))
        self.B = as_pairs(start.B.expand(copies, -1))
        self.C = as_pairs(_readout(start.V, (2 if bidirectional else 1, d_model), len(start.lam)))
        self.D = nn.Parameter(torch.randn(d_model)) if feedthrough else None
        self.register_buffer("weight", start.weight.to(torch.get_default_dtype()), persistent=True)

    def _continuous(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (H, N) and steps (H, 1), both double."""
        lam = self.eigenvalues()
        lam = lam.repeat_interleave(self.d_model // lam.shape[0], dim=0)
        return lam, self.step_rescale * torch.exp(self.log_dt.double())[:, None]

    def exponents(self) -> tuple[Tensor, Tensor]:
        """(z, B̄): per-step exponents log Λ̄ (H, N) complex128, and discrete inputs (H, N) of the parameters' type."""
        lam, step = self._continuous()
        lam_bar, gamma = discretize(self.discretization, lam, step)
        z = lam * step if self.discretization == "zoh" else torch.log(lam_bar)
        b = torch.view_as_complex(self.B).repeat_interleave(self.d_model // self.B.shape[0], dim=0)
        return z, (gamma * b).to(b.dtype)

    def kernel(self, length: int) -> Tensor:
        """Impulse responses K, (R, H, length) real, R = 1 or 2 (the second looks ahead)."""
        z, b_bar = self.exponents()
        return vandermonde_kernel(self._weighted_readout() * b_bar, z, length)

    def _weighted_readout(self) -> Tensor:
        return torch.view_as_complex(self.C) * self.weight

    def default_state(self, batch: int) -> Tensor:
        return torch.view_as_complex(self.C).new_zeros(batch, self.d_model, self.C.shape[-2])

    def discrete_system(self) -> tuple[Tensor, ...]:
        z, b_bar = self.exponents()
        return torch.exp(z).to(b_bar.dtype), b_bar, self._weighted_readout()[0]

    def step(self, u: Tensor, state: Tensor, system: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
        lam_bar, b_bar, c = self.discrete_system() if system is None else system
        state = lam_bar * state + b_bar * u[..., None]
        y = (c * state).sum(-1).real
        return (y if self.D is None else y + self.D * u), state

    def _sequence(
        self, u: Tensor, lengths: Tensor | None, state: Tensor | None, return_state: bool
    ) -> tuple[Tensor, Tensor]:
        if self.mode == "convolution":
            return self._convolve(u, lengths, state, return_state)
        if self.mode == "recurrence":
            y, last = self._recur(u, lengths, state)
            return (y + self._ahead_by_steps(u), last) if self.bidirectional else (y, last)
        readout = self._weighted_readout()
        y, last = self._scan(u, lengths, state, readout[0])
        if self.bidirectional:
            y = y + self._scan(u.flip(1), None, None, readout[1])[0].flip(1)
        return (y if self.D is None else y + self.D * u), last

    def _convolve(
        self, u: Tensor, lengths: Tensor | None, state: Tensor | None, return_state: bool
    ) -> tuple[Tensor, Tensor]:
        length = u.shape[1]
        z, b_bar = self.exponents()
        readout = self._weighted_readout()
        kernels = vandermonde_kernel(readout * b_bar, z, length)
        if self.D is not None:
            # D u is one more tap
            kernels = torch.cat([kernels[..., :1] + self._first_tap(kernels), kernels[..., 1:]], dim=-1)
        by_channel = u.transpose(1, 2)
        y = fft_convolve(by_channel, kernels[0], kernels[1] if self.bidirectional else None)
        if state is not None:
            y = y + self._free_response(readout[0], z, state, length)
        last = self._final_state(by_channel, z, b_bar, lengths, state) if return_state else u.new_empty(0)
        return y.transpose(1, 2), last

    def _first_tap(self, kernels: Tensor) -> Tensor:
        assert self.D is not None
        tap = self.D[None, :, None]
        return torch.cat([tap, torch.zeros_like(tap)]) if kernels.shape[0] == 2 else tap

    @staticmethod
    def _free_response(readout: Tensor, z: Tensor, state: Tensor, length: int) -> Tensor:
        """Re Σ C Λ̄^{l+1} x₀, (B, H, L), as one more Vandermonde kernel for each sample."""
        return vandermonde_kernel(readout * state * torch.exp(z).to(state.dtype), z, length)

    @staticmethod
    def _final_state(u: Tensor, z: Tensor, b_bar: Tensor, lengths: Tensor | None, state: Tensor | None) -> Tensor:
        length = u.shape[-1]
        if lengths is not None:
            # shift every sequence to the right end, so that its last valid step is the last step
            place = torch.arange(length, device=u.device) - (length - lengths)[:, None]
            shifted = torch.gather(u, 2, place.clamp_min(0)[:, None].expand_as(u))
            u = shifted * (place >= 0)[:, None]
        last = b_bar * chunked_powers_state(u, z)
        if state is not None:
            steps = u.new_tensor(length) if lengths is None else lengths
            last = last + torch.exp(z * steps.view(-1, 1, 1)).to(state.dtype) * state
        return last

    def _scan(self, u: Tensor, lengths: Tensor | None, state: Tensor | None, c: Tensor) -> tuple[Tensor, Tensor]:
        """Re Σ c·x, and the last state, a chunk of steps at a time."""
        z, b_bar = self.exponents()
        lam_bar = torch.exp(z).flatten()
        state = self.default_state(u.shape[0]) if state is None else state
        last, outputs, seen = state, [], 0
        for chunk in u.split(SCAN_CHUNK, dim=1):
            inputs = (chunk[..., None] * b_bar).flatten(2)
            states = associative_scan(lam_bar, inputs, state.flatten(1)).unflatten(2, b_bar.shape)
            outputs.append(torch.einsum("blhn,hn->blh", states, c).real)
            state = states[:, -1]
            if lengths is None:
                last = state
            else:
                here = (lengths > seen) & (lengths <= seen + chunk.shape[1])
                index = (lengths - 1 - seen).clamp(0, chunk.shape[1] - 1)
                ending = states[torch.arange(len(states), device=u.device), index]
                last = torch.where(here[:, None, None], ending, last)
            seen += chunk.shape[1]
        return torch.cat(outputs, dim=1), last

    def _ahead_by_steps(self, u: Tensor) -> Tensor:
        """The looking-ahead half of a bidirectional layer, step by step from the end."""
        z, b_bar = self.exponents()
        inputs = (u[..., None] * b_bar).flatten(2)
        states = associative_scan(torch.exp(z).flatten(), inputs, reverse=True, backend="loop")
        return torch.einsum("blhn,hn->blh", states.unflatten(2, b_bar.shape), self._weighted_readout()[1]).real


class S4PTD(S4D):
    """S4D started from the perturbed HiPPO-LegS system (Yu et al. 2024, arXiv 2310.01698); arguments as ``S4D``."""

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        n_ssm: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        discretization: str = "zoh",
        bidirectional: bool = False,
        feedthrough: bool = True,
        conj_sym: bool = True,
        guard: str = "exp",
        gamma: float = 100.0,
        mode: str = "convolution",
    ) -> None:
        super().__init__(
            d_model,
            d_state,
            "ptd-legs",
            n_ssm,
            dt_min,
            dt_max,
            discretization,
            bidirectional,
            feedthrough,
            conj_sym,
            guard,
            gamma,
            mode,
        )


def _readout(v: Tensor | None, lead: tuple[int, ...], states: int) -> Tensor:
    """C̃ = C V for a standard normal real C, or standard complex normal where there are no modes to project on."""
    if v is None:
        return torch.randn(*lead, states, dtype=torch.complex128)
    return torch.randn(*lead, v.shape[0], dtype=torch.float64).to(v.dtype) @ v
