"""One diagonal system with many inputs and outputs: S5 and S5-PTD."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from plugins.state_space.discretization import discretize, log_steps
from plugins.state_space.initialization import initial_modes
from plugins.state_space.kernels import associative_scan, fast_length
from plugins.state_space.layers.base import Eigenvalues, StateSpaceLayer, as_pairs
from plugins.state_space.ptd import PTDSolver

B_INITS = ("lecun_normal", "hippo")
C_INITS = ("lecun_normal", "truncated_normal", "complex_normal")


class S5(StateSpaceLayer):
    """Multi-input multi-output diagonal layer (Smith, Warrington & Linderman 2023, arXiv 2208.04933).

    y = Re(weight·C x) + D u with x' = Λx + Bu, one state of size P shared by all channels.

    Args:
        d_model: channels H.
        d_state: real state size P.
        blocks: HiPPO blocks of size P/blocks along the diagonal.
        init: of ``INITIALIZATIONS``.
        dt_min, dt_max: range of the initial step sizes, one for each state.
        discretization: ``zoh`` or ``bilinear``.
        bidirectional: a second readout of the reversed scan.
        feedthrough: with the D term.
        conj_sym: keep one of each conjugate pair.
        guard: how Re λ stays negative.
        b_init: ``lecun_normal``: real, mapped by V^{-1}; ``hippo``: HiPPO's B in every column.
        c_init: ``lecun_normal`` or ``truncated_normal``, mapped by V; ``complex_normal``: N(0, ½) in modal coordinates.
        gamma: of the perturbation, for ``ptd-*``.
        mode: ``scan`` (default), ``convolution`` (FFT over the states) or ``recurrence``; may be set later.

    The state has shape (B, N), complex.
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
    modes = ("scan", "convolution", "recurrence")

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        blocks: int = 1,
        init: str = "s4d-legs",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        discretization: str = "zoh",
        bidirectional: bool = False,
        feedthrough: bool = True,
        conj_sym: bool = True,
        guard: str = "clip",
        b_init: str = "lecun_normal",
        c_init: str = "lecun_normal",
        gamma: float = 100.0,
        mode: str = "scan",
    ) -> None:
        super().__init__(d_model, mode, bidirectional)
        if blocks < 1 or d_state % blocks:
            raise ValueError(f"blocks must divide d_state={d_state}, not {blocks}")
        if b_init not in B_INITS:
            raise ValueError(f"b_init must be one of {', '.join(B_INITS)}, not {b_init!r}")
        if c_init not in C_INITS:
            raise ValueError(f"c_init must be one of {', '.join(C_INITS)}, not {c_init!r}")
        solver = PTDSolver(gamma=gamma) if init == "ptd-legs" else PTDSolver(gamma=gamma, start="random")
        start = initial_modes(init, d_state // blocks, conj_sym, solver).repeated(blocks)
        discretize(discretization, start.lam, torch.ones(()))
        states = len(start.lam)
        self.discretization = discretization
        self.eigenvalues = Eigenvalues(start.lam, guard)
        self.log_dt = nn.Parameter(log_steps((states,), dt_min, dt_max))
        if b_init == "hippo":
            b = start.B[:, None].expand(-1, d_model)
        else:
            random = torch.randn(d_state, d_model, dtype=torch.float64) / math.sqrt(d_model)
            b = random[:states] + 0j if start.V_inverse is None else start.V_inverse @ random.to(start.lam.dtype)
        self.B = as_pairs(b)
        c = [_readout(c_init, d_model, d_state, start.V, states) for _ in range(2 if bidirectional else 1)]
        self.C = as_pairs(torch.stack(c))
        self.D = nn.Parameter(torch.randn(d_model)) if feedthrough else None
        self.register_buffer("weight", start.weight.to(torch.get_default_dtype()), persistent=True)

    def _discrete(self) -> tuple[Tensor, Tensor]:
        """Λ̄ (N,) complex128 and B̄ (N, H) of the parameters' type."""
        step = self.step_rescale * torch.exp(self.log_dt.double())
        lam_bar, gamma = discretize(self.discretization, self.eigenvalues(), step)
        b = torch.view_as_complex(self.B)
        return lam_bar, gamma.to(b.dtype)[:, None] * b

    def default_state(self, batch: int) -> Tensor:
        return torch.view_as_complex(self.B).new_zeros(batch, self.B.shape[0])

    def discrete_system(self) -> tuple[Tensor, ...]:
        lam_bar, b_bar = self._discrete()
        return lam_bar.to(b_bar.dtype), _columns(b_bar), _rows(torch.view_as_complex(self.C)[0] * self.weight)

    def step(self, u: Tensor, state: Tensor, system: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
        lam_bar, columns, rows = self.discrete_system() if system is None else system
        state = lam_bar * state + _complex_product(u, columns)
        y = torch.view_as_real(state).flatten(-2) @ rows
        return (y if self.D is None else y + self.D * u), state

    def _sequence(
        self, u: Tensor, lengths: Tensor | None, state: Tensor | None, return_state: bool
    ) -> tuple[Tensor, Tensor]:
        lam_bar, b_bar = self._discrete()
        inputs = _complex_product(u, _columns(b_bar))
        readout = torch.view_as_complex(self.C) * self.weight
        states = self._states(lam_bar, inputs, state, reverse=False)
        y = _real_product(states, readout[0])
        if self.bidirectional:
            y = y + _real_product(self._states(lam_bar, inputs, None, reverse=True), readout[1])
        if self.D is not None:
            y = torch.addcmul(y, self.D, u)
        if lengths is None:
            return y, states[:, -1]
        return y, states[torch.arange(len(states), device=u.device), lengths.to(u.device) - 1]

    def _states(self, lam_bar: Tensor, inputs: Tensor, state: Tensor | None, reverse: bool) -> Tensor:
        if self.mode != "convolution":
            backend = "loop" if self.mode == "recurrence" else "auto"
            return associative_scan(lam_bar, inputs, state, reverse, backend)
        length = inputs.shape[1]
        size = fast_length(2 * length)
        if state is not None:
            first = inputs[:, :1] + (lam_bar.to(state.dtype) * state)[:, None]
            inputs = torch.cat([first, inputs[:, 1:]], dim=1)
        taps = torch.exp(torch.log(lam_bar)[:, None] * torch.arange(length, device=lam_bar.device)).to(inputs.dtype).T
        spectrum = torch.fft.fft(taps, n=size, dim=0)
        source = inputs.flip(1) if reverse else inputs
        states = torch.fft.ifft(torch.fft.fft(source, n=size, dim=1) * spectrum, dim=1)[:, :length]
        return states.flip(1) if reverse else states


class S5PTD(S5):
    """S5 started from blocks of the perturbed HiPPO-LegS system (Yu et al. 2024); arguments as ``S5``."""

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        blocks: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        discretization: str = "zoh",
        bidirectional: bool = False,
        feedthrough: bool = True,
        conj_sym: bool = True,
        guard: str = "clip",
        b_init: str = "lecun_normal",
        c_init: str = "lecun_normal",
        gamma: float = 100.0,
        mode: str = "scan",
    ) -> None:
        super().__init__(
            d_model,
            d_state,
            blocks,
            "ptd-legs",
            dt_min,
            dt_max,
            discretization,
            bidirectional,
            feedthrough,
            conj_sym,
            guard,
            b_init,
            c_init,
            gamma,
            mode,
        )


def _readout(kind: str, d_model: int, d_state: int, v: Tensor | None, states: int) -> Tensor:
    if kind == "complex_normal" or v is None:
        return torch.randn(d_model, states, dtype=torch.complex128)
    pairs = torch.randn(d_model, d_state, 2, dtype=torch.float64)
    if kind == "truncated_normal":
        nn.init.trunc_normal_(pairs, std=1.0, a=-2.0, b=2.0)
    return torch.view_as_complex(pairs) / math.sqrt(d_state) @ v


def _columns(b: Tensor) -> Tensor:
    """(N, H) complex → (H, 2N) real, so that a real u needs one real product to reach complex states."""
    return torch.view_as_real(b).permute(1, 0, 2).flatten(1)


def _rows(c: Tensor) -> Tensor:
    """(H, N) complex → (2N, H) real, so that Re(C x) is one real product with the interleaved parts of x."""
    return torch.view_as_real(c.conj().resolve_conj()).flatten(1).T


def _complex_product(u: Tensor, columns: Tensor) -> Tensor:
    return torch.view_as_complex((u @ columns).unflatten(-1, (-1, 2)))


def _real_product(states: Tensor, c: Tensor) -> Tensor:
    return torch.view_as_real(states).flatten(-2) @ _rows(c)
