"""Encoder propagation on digits: time saved against error, for each policy of key steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from framework import load_run
from framework.study import Study
from plugins.generative.acceleration import (
    EncoderPropagation,
    KeyStepPolicy,
    network_times,
    sample_with_prior_noise,
)
from plugins.generative.data import DigitsDataModule
from plugins.generative.figures import encoder_propagation_figure
from plugins.generative.grids import karras
from plugins.generative.metrics import sliced_wasserstein
from plugins.generative.objectives import fit_flow_matching
from plugins.generative.parameterizations import NetworkDenoiser
from plugins.generative.schedules import Flow
from plugins.generative.solvers import Euler, Solver


class Trajectories:
    """Samples from one starting noise with one solver and grid, by the network itself or by what stands in for it.

    Args:
        labels: (B,) classes of the samples.
        shape: (C, H, W).
        steps: Of the solver.
        solver: Euler, which is DDIM, is what the method was published for.
        seed: Of the noise.
    """

    def __init__(self, labels: Tensor, shape: tuple[int, ...], steps: int, solver: Solver, seed: int = 0) -> None:
        self.labels = labels
        self.solver = solver
        self.schedule = Flow()
        self.sigmas = karras(steps, sigma_max=80.0, sigma_min=0.01)
        self.times = network_times(solver, self.sigmas, self.schedule)
        noise = torch.randn((len(labels), *shape), generator=torch.Generator().manual_seed(seed))
        self.start = float(self.sigmas[0]) * noise.to(labels.device)

    def run(self, network: nn.Module, prior_noise: float = 0.0) -> Tensor:
        """Images (B, C, H, W), not clamped."""
        denoiser = NetworkDenoiser(
            lambda x, t: network(x, t, self.labels), self.schedule, "flow", dtype=self.start.dtype
        )
        if isinstance(network, EncoderPropagation):
            network.begin(self.times)
        if prior_noise:
            return sample_with_prior_noise(self.solver, denoiser, self.start, self.sigmas, self.schedule, prior_noise)
        return self.solver.sample(denoiser, self.start, self.sigmas)


class EncoderPropagationStudy(Study):
    """Measures `plugins.generative.acceleration.EncoderPropagation` on one network.

    Metrics for each policy, serial (`<policy>`) and parallel (`<policy>_parallel`): `encoder_calls`,
    `decoder_calls`, `seconds` for one trajectory, `time_saved` (1 - seconds / plain seconds). For these and for
    `<policy>_prior_noise`: `error` (RMS distance from the plain sampler's images, pixels in [-1, 1]) and
    `sliced_wasserstein` from held-out digits. `flops_saved/<policy>` is the share of the arithmetic saved, on any
    machine; `encoder_time_share` and `encoder_flop_share` the encoder's part of the network's time and arithmetic;
    `parallel_gap` the largest difference between serial and parallel images.

    Args:
        policies: Key-step policies by name.
        network: Trained here on the digits' training images when there is no `run`.
        run: Folder of a finished run of generative/digits whose network to use instead.
        train_steps: Optimizer steps of that training.
        steps: Of the solver, Euler (DDIM).
        samples: Images a trajectory, classes in turn.
        prior_noise: Strength of the prior-noise injection.
        repeats: Rounds of timings; the shortest of each trajectory counts.
        seed: Of the training and of the starting noise.
        fast: Few training steps, samples, repeats, and the first two policies.
    """

    def __init__(
        self,
        policies: Mapping[str, KeyStepPolicy],
        network: nn.Module | None = None,
        run: str | None = None,
        train_steps: int = 300,
        steps: int = 50,
        samples: int = 100,
        prior_noise: float = 0.003,
        repeats: int = 3,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if (network is None) == (run is None):
            raise ValueError("give either run, the folder of a generative/digits run, or network and no run")
        if samples < 10:
            raise ValueError(f"samples must be at least 10, one of each class; got {samples}")
        for policy in policies.values():
            policy.keys(steps)
        self.network = load_run(Path(run)).model.network.eval() if run is not None else network
        self.trained = run is not None
        self.policies = dict(list(policies.items())[: 2 if fast else None])
        self.train_steps = 5 if fast else train_steps
        self.steps = steps
        self.samples = 10 if fast else samples
        self.prior_noise = prior_noise
        self.repeats = 1 if fast else repeats
        self.seed = seed

    def study(self) -> dict[str, float]:
        data = DigitsDataModule()
        if not self.trained:
            images, labels = (tensor.to(self.device) for tensor in data.train_set.tensors)
            fit_flow_matching(self.network, images, labels, self.train_steps, seed=self.seed)
        heldout = data.heldout_set.tensors[0].to(self.device)
        labels = torch.arange(self.samples, device=self.device) % 10
        trajectories = Trajectories(labels, tuple(heldout.shape[1:]), self.steps, Euler(), self.seed)

        networks: dict[str, nn.Module] = {"plain": self.network}
        for name, policy in self.policies.items():
            networks[name] = EncoderPropagation(self.network, policy)
            networks[f"{name}_parallel"] = EncoderPropagation(self.network, policy, parallel=True)
        images, seconds = self._race({key: partial(trajectories.run, network) for key, network in networks.items()})
        plain = images["plain"]
        flops = self._flops(plain, labels)
        metrics = {"encoder_flop_share": flops[0] / sum(flops)}
        metrics["encoder_time_share"] = self._encoder_time_share(plain, labels)
        for key, network in networks.items():
            metrics[f"seconds/{key}"] = seconds[key]
            if key == "plain":
                continue
            metrics[f"encoder_calls/{key}"] = network.encoder_calls / self.repeats
            metrics[f"decoder_calls/{key}"] = network.decoder_calls / self.repeats
            metrics[f"time_saved/{key}"] = 1 - seconds[key] / seconds["plain"]
        for name, policy in self.policies.items():
            metrics[f"flops_saved/{name}"] = flops[0] / sum(flops) * (1 - len(policy.keys(self.steps)) / self.steps)
            with torch.no_grad():
                noisy = trajectories.run(EncoderPropagation(self.network, policy), self.prior_noise)
            images[f"{name}_prior_noise"] = noisy
        for key, result in images.items():
            metrics[f"error/{key}"] = (result - plain).square().mean().sqrt().item()
            metrics[f"sliced_wasserstein/{key}"] = sliced_wasserstein(result.clamp(-1, 1), heldout)
        gaps = [(images[f"{name}_parallel"] - images[name]).abs().max().item() for name in self.policies]
        metrics["parallel_gap"] = max(gaps)
        shown = {name: images[name][:10, 0].cpu() for name in ("plain", *self.policies)}
        self.save_figure("encoder_propagation", encoder_propagation_figure(metrics, shown))
        return metrics

    @torch.no_grad()
    def _race(self, work: Mapping[str, Callable[[], Tensor]]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What each entry returns and its shortest time; rounds interleave, so that all share a machine's moods."""
        results: dict[str, Tensor] = {}
        seconds = dict.fromkeys(work, float("inf"))
        for name in tqdm([*work] * self.repeats, "trajectories"):
            start = time.perf_counter()
            results[name] = work[name]()
            results[name].sum().item()  # waits for an accelerator
            seconds[name] = min(seconds[name], time.perf_counter() - start)
        return results, seconds

    @torch.no_grad()
    def _encoder_time_share(self, x: Tensor, labels: Tensor) -> float:
        """The encoder's part of the network's time."""
        t = torch.full((len(x),), 0.5, device=x.device)
        features = self.network.encode(x, t, labels)
        _, seconds = self._race(
            {
                "encode": lambda: self.network.encode(x, t, labels).hidden,
                "decode": lambda: self.network.decode(features, t, labels),
            }
        )
        return seconds["encode"] / sum(seconds.values())

    @torch.no_grad()
    def _flops(self, x: Tensor, labels: Tensor) -> tuple[int, int]:
        """Floating-point operations of the encoder and of the decoder for one batch."""
        t = torch.full((len(x),), 0.5, device=x.device)
        counts = []
        features = self.network.encode(x, t, labels)
        for work in (lambda: self.network.encode(x, t, labels), lambda: self.network.decode(features, t, labels)):
            with FlopCounterMode(display=False) as counter:
                work()
            counts.append(counter.get_total_flops())
        return counts[0], counts[1]
