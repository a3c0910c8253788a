"""Encoder propagation: run a U-Net's encoder at a few key steps, its decoder at all.

Faster Diffusion (Li et al. 2023, arXiv 2312.09608): along a sampling trajectory the encoder's features change little
and the decoder's change much. At a key step the network runs whole; at the steps up to the next key only the decoder
does, on the key's bottleneck and skips with the current time. What such a step returns does not depend on its state,
so all decoder calls between two keys can run as one batch (`parallel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from plugins.generative.grids import check_grid
from plugins.generative.schedules import NoiseSchedule
from plugins.generative.solvers import Denoiser, Solver


class SplitFeatures(Protocol):
    """Features that `SplitNetwork.encode` returns, such as `plugins.generative.networks.Features`."""

    def detach(self) -> SplitFeatures: ...

    def repeat(self, times: int) -> SplitFeatures: ...


class SplitNetwork(Protocol):
    """A network in two halves, such as `plugins.generative.networks.UNet`."""

    def encode(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Any: ...

    def decode(self, features: Any, t: Tensor, c: Tensor | None = None) -> Tensor: ...


class KeyStepPolicy:
    """Which steps of a trajectory run the encoder. A step is one evaluation of the network, counted from 0.

    Args:
        every: Steps 0, every, 2 * every, ...: 1 is the plain sampler, 4 the published choice for 20 steps.
        steps: Or the key steps themselves, ascending from 0; give one of the two.
    """

    def __init__(self, every: int | None = None, steps: Sequence[int] | None = None) -> None:
        if (every is None) == (steps is None):
            raise ValueError(f"give either every or steps; got every={every} and steps={steps}")
        if every is not None and every < 1:
            raise ValueError(f"every must be at least 1; got {every}")
        if steps is not None:
            steps = tuple(steps)
            if not steps or steps[0] != 0:
                raise ValueError(f"step 0 has no features to reuse and must be a key step; got steps {list(steps)}")
            if any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
                raise ValueError(f"steps must ascend without repetition; got {list(steps)}")
        self.every = every
        self.steps = steps

    def keys(self, total: int) -> tuple[int, ...]:
        """The key steps of a trajectory of `total` steps."""
        if self.every is not None:
            return tuple(range(0, total, self.every))
        assert self.steps is not None
        if self.steps[-1] >= total:
            raise ValueError(f"key step {self.steps[-1]} lies outside a trajectory of {total} steps (0..{total - 1})")
        return self.steps


PUBLISHED_50 = (0, 1, 2, 3, 5, 10, 15, 25, 35)
"""Key steps the authors publish for 50 steps of DDIM."""


class EncoderPropagation(nn.Module):
    """Stands in for `network` along one trajectory at a time: `begin(times)` before it, then one call a step.

    The counts `encoder_calls` and `decoder_calls` grow by one for every call of a half, whatever its batch.
    Reused features are detached: gradients reach x through the key steps only, and in parallel mode not at all.

    Args:
        network: With `encode(x, t, c)` and `decode(features, t, c)`.
        policy: Which steps run the encoder.
        parallel: Whether the decoder calls of a key step and of those that reuse it run as one batch. Faster where a
            small batch leaves the device idle; needs the memory of the larger batch.
    """

    def __init__(self, network: nn.Module, policy: KeyStepPolicy, parallel: bool = False) -> None:
        super().__init__()
        for half in ("encode", "decode"):
            if not callable(getattr(network, half, None)):
                raise ValueError(f"{type(network).__name__} has no {half}(): encoder propagation needs both halves")
        self.network = network
        self.policy = policy
        self.parallel = parallel
        self.encoder_calls = 0
        self.decoder_calls = 0
        self._times: Tensor | None = None

    def begin(self, times: Tensor | Sequence[float]) -> None:
        """Start a trajectory whose step i is at the network time `times[i]`, and forget the one before.

        Args:
            times: (steps,) what `t` of the calls will be, in their order, the same for the whole batch.
        """
        times = torch.as_tensor(times, dtype=torch.float64)
        if times.ndim != 1 or len(times) == 0:
            raise ValueError(f"times must list the network time of each step; got shape {tuple(times.shape)}")
        self._times = times
        self._keys = self.policy.keys(len(times))
        self._step = 0
        self._features: Any = None
        self._signature: tuple[object, ...] | None = None
        self._outputs: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """What the network returns at the next step: x (B, C, H, W), t (B,), c (B,) or None -> (B, C, H, W)."""
        if self._times is None:
            raise ValueError("no trajectory: call begin(times) before its first step")
        step = self._step
        if step >= len(self._times):
            raise ValueError(f"the trajectory's {len(self._times)} steps are used up: call begin(times) for another")
        if t.device.type == "cpu" and not torch.allclose(t[:1].double(), self._times[step], rtol=1e-5, atol=1e-7):
            raise ValueError(f"step {step} was announced at time {self._times[step]:.6g} and called at {t[0]:.6g}")
        key = step in self._keys
        signature = (x.shape, x.dtype, x.device)
        if not key and signature != self._signature:
            raise ValueError(
                f"step {step} reuses features of {self._signature} for {signature}: call begin(times) when the "
                "batch changes"
            )
        self._step += 1
        if key:
            features = self.network.encode(x, t, c)
            self.encoder_calls += 1
            self._features, self._signature = features.detach(), signature
            if self.parallel:
                self._outputs = self._decode_ahead(step, t, c)
            else:
                self.decoder_calls += 1
                return self.network.decode(features, t, c)
        if self.parallel:
            return self._outputs.pop(0)
        self.decoder_calls += 1
        return self.network.decode(self._features, t, c)

    def _decode_ahead(self, step: int, t: Tensor, c: Tensor | None) -> list[Tensor]:
        """The outputs of the key `step` and of all steps before the next key, from one decoder call."""
        assert self._times is not None
        end = next((key for key in self._keys if key > step), len(self._times))
        count = end - step
        later = self._times[step + 1 : end].to(t).repeat_interleave(len(t))
        labels = None if c is None else c.repeat(count)
        self.decoder_calls += 1
        return list(self.network.decode(self._features.repeat(count), torch.cat([t, later]), labels).chunk(count))


def network_times(solver: Solver, sigmas: Tensor | Sequence[float], schedule: NoiseSchedule) -> Tensor:
    """The time of every evaluation that `solver` makes on a grid of noise levels, in order: float64 (evaluations,)."""
    stages = solver.stages(check_grid(sigmas))
    levels = torch.tensor([level for stage in stages for level in stage], dtype=torch.float64)
    return schedule.inverse_sigma_tilde(levels)


def sample_with_prior_noise(
    solver: Solver,
    denoiser: Denoiser,
    y: Tensor,
    sigmas: Tensor | Sequence[float],
    schedule: NoiseSchedule,
    strength: float = 0.003,
    below: float = 0.5,
) -> Tensor:
    """`solver.sample` with a little of the starting noise added to the state before every step at a late time.

    x_t <- x_t + strength * x_T wherever t / t_max < below (Faster Diffusion, section 3.3): it restores the texture
    that reused features smooth away.

    Args:
        solver: A one-step solver: a multistep one would extrapolate across the jumps.
        denoiser: denoiser(y, sigma) -> E[x0 | y].
        y: (B, ...) state at sigmas[0].
        sigmas: (N + 1,) decreasing noise levels.
        schedule: Gives the time, and the scale alpha between y and x.
        strength: 0.003 in the paper.
        below: Share of the schedule's time in which noise is injected.
    """
    if solver.history_length:
        raise ValueError(f"prior noise needs a one-step solver, and {type(solver).__name__} keeps a history")
    levels = torch.tensor(check_grid(sigmas), dtype=torch.float64)
    times = schedule.inverse_sigma_tilde(levels)
    prior = y * float(schedule.alpha(times[0]))
    for i, time in enumerate(times[:-1]):
        if time / schedule.t_max < below:
            y = y + (strength / float(schedule.alpha(time))) * prior
        y = solver.sample(denoiser, y, levels[i : i + 2])
    return y
