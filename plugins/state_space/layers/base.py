"""What every layer offers, and what they share: lengths, eigenvalues kept stable, complex numbers as real pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

GUARDS = ("exp", "clip", "abs")
HALVES = (torch.float16, torch.bfloat16)


class StateSpaceLayer(nn.Module):
    """A sequence layer with a state.

    Attributes:
        roles: parameter name → role, for ``parameter_groups``.
        modes: the ways in which ``forward`` can compute, all with the same result.
        step_rescale: factor on every step size Δ; 2 for data sampled at half the rate trained on.
    """

    roles: ClassVar[Mapping[str, str]] = {}
    modes: ClassVar[tuple[str, ...]] = ()
    step_rescale: float = 1.0

    def __init__(self, d_model: int, mode: str, bidirectional: bool) -> None:
        super().__init__()
        if d_model < 1:
            raise ValueError(f"d_model must be at least 1, not {d_model}")
        if mode not in self.modes:
            raise ValueError(f"mode of {type(self).__name__} must be one of {', '.join(self.modes)}, not {mode!r}")
        self.d_model = d_model
        self.mode = mode
        self.bidirectional = bidirectional

    def forward(
        self, u: Tensor, lengths: Tensor | None = None, state: Tensor | None = None, return_state: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Map a batch of sequences.

        Args:
            u: (B, L, d_model) real.
            lengths: (B,) valid lengths, 1 … L; what lies beyond is ignored, and zero in the result.
            state: carried in from an earlier chunk; not with a bidirectional layer.
            return_state: also return the state after the last valid step.

        Returns:
            (B, L, d_model), or that and the state.

        Raises:
            ValueError: wrong width, no steps, lengths out of range, or a state asked of a bidirectional layer.
        """
        if u.ndim != 3 or u.shape[-1] != self.d_model:
            raise ValueError(f"u must have shape (batch, length, {self.d_model}), not {tuple(u.shape)}")
        if u.shape[1] == 0:
            raise ValueError("u must hold at least one step")
        if self.bidirectional and (state is not None or return_state):
            raise ValueError("a bidirectional layer sees the whole sequence at once: it carries no state")
        if u.shape[0] == 0:
            return (u, state if state is not None else self.default_state(0)) if return_state else u
        mask = None
        if lengths is not None:
            mask = length_mask(lengths, u.shape[1])
            u = u * mask[..., None]
        # complex and Fourier arithmetic has no half precision: mixed-precision training resumes behind the layer
        with torch.autocast(u.device.type, enabled=False):
            y, last = self._sequence(u.float() if u.dtype in HALVES else u, lengths, state, return_state)
        y = y.to(u.dtype)
        if mask is not None:
            y = y * mask[..., None]
        return (y, last) if return_state else y

    def _sequence(
        self, u: Tensor, lengths: Tensor | None, state: Tensor | None, return_state: bool
    ) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def default_state(self, batch: int) -> Tensor:
        """The state before anything was seen."""
        raise NotImplementedError

    def step(self, u: Tensor, state: Tensor, system: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
        """One step of the recurrence.

        Args:
            u: (B, d_model).
            state: from ``default_state``, ``step`` or ``forward(return_state=True)``.
            system: ``discrete_system()``, computed once for a long run of steps.

        Returns:
            Output (B, d_model) and the new state.
        """
        raise NotImplementedError

    def discrete_system(self) -> tuple[Tensor, ...]:
        """The discretised system that ``step`` applies."""
        raise NotImplementedError

    def _recur(self, u: Tensor, lengths: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """``step`` after ``step``; states freeze past their sequence's length."""
        system = self.discrete_system()
        state = self.default_state(u.shape[0]) if state is None else state
        outputs = []
        for k in range(u.shape[1]):
            y, following = self.step(u[:, k], state, system)
            if lengths is not None:
                running = (k < lengths).view(-1, *[1] * (state.ndim - 1))
                following = torch.where(running, following, state)
            outputs.append(y)
            state = following
        return torch.stack(outputs, dim=1), state


def length_mask(lengths: Tensor, length: int) -> Tensor:
    """(B, L) booleans, true on the first ``lengths`` steps.

    Raises:
        ValueError: a length beyond L or below 1 (checked on CPU tensors only: no device is waited for).
    """
    if lengths.device.type == "cpu" and len(lengths) and not (1 <= int(lengths.min()) <= int(lengths.max()) <= length):
        raise ValueError(f"lengths must lie in 1 … {length}, not {int(lengths.min())} … {int(lengths.max())}")
    return torch.arange(length, device=lengths.device) < lengths[:, None]


class Eigenvalues(nn.Module):
    """Trainable eigenvalues whose real parts stay negative.

    Args:
        lam: initial values, complex.
        guard: ``exp``: Re λ = −exp(·), S4D's; ``clip``: at most −1e-4, S5's clip_eigs; ``abs``: −|·|, S5's force_neg.
    """

    floor = 1e-4

    def __init__(self, lam: Tensor, guard: str = "exp") -> None:
        super().__init__()
        if guard not in GUARDS:
            raise ValueError(f"guard must be one of {', '.join(GUARDS)}, not {guard!r}")
        self.guard = guard
        decay = (-lam.real).clamp_min(self.floor)
        start = torch.log(decay) if guard == "exp" else decay
        dtype = torch.get_default_dtype()
        self.decay = nn.Parameter(start.to(dtype))
        self.frequency = nn.Parameter(lam.imag.to(dtype))

    def forward(self) -> Tensor:
        """The eigenvalues, complex128 whatever the parameters' type: phases are multiplied by long times."""
        decay = self.decay.double()
        if self.guard == "exp":
            decay = torch.exp(decay)
        elif self.guard == "clip":
            decay = decay.clamp_min(self.floor)
        else:
            decay = decay.abs()
        return torch.complex(-decay, self.frequency.double())


def as_pairs(value: Tensor) -> nn.Parameter:
    """A complex tensor as a real parameter with a last dimension of 2, which every optimiser and sharder accepts."""
    dtype = torch.promote_types(torch.get_default_dtype(), torch.complex64)
    return nn.Parameter(torch.view_as_real(value.to(dtype).contiguous()).clone())
