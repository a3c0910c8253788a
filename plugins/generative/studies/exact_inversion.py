"""Exact inversion: BDIA's round trip against naive DDIM inversion on the digits mixture."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from framework.study import Study
from plugins.generative.figures_inversion import exact_inversion_figure
from plugins.generative.grids import karras
from plugins.generative.mixtures import GaussianMixture, digits_mixture
from plugins.generative.solvers import BDIA, BDIAWarning, Euler, ddim_invert

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002
DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class RoundTrip:
    """Largest error of the recovered noise (entries of it have standard deviation 80), and whether a warning said so.

    Attributes:
        error: max over all entries of |recovered - start|.
        warned: Whether BDIA warned that rounding destroys the round trip.
    """

    error: float
    warned: bool


def ddim_round_trip(denoiser: Callable[[Tensor, Tensor], Tensor], y: Tensor, sigmas: Tensor) -> RoundTrip:
    """Noise to sample by DDIM and back by naive inversion."""
    recovered = ddim_invert(denoiser, Euler().sample(denoiser, y, sigmas), sigmas)
    return RoundTrip((recovered - y).abs().max().item(), False)


def bdia_round_trip(
    sampler: BDIA, denoiser: Callable[[Tensor, Tensor], Tensor], y: Tensor, sigmas: Tensor
) -> RoundTrip:
    """Noise to the last pair of states and back."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BDIAWarning)
        pair = sampler.sample_pair(denoiser, y, sigmas)
        recovered = sampler.invert(denoiser, pair, sigmas)
    lost = any("round trip is lost" in str(warning.message) for warning in caught)
    return RoundTrip((recovered - y).abs().max().item(), lost)


class ExactInversion(Study):
    """Noise -> sample -> noise, and image -> latent -> image, by BDIA and by naive DDIM inversion.

    Metrics, for each number of steps n: `round_trip/ddim/n<n>`, `round_trip/bdia_<gamma>/<dtype>/n<n>` and
    `round_trip/bdia_heun/float64/n<n>` (largest error of the recovered noise, whose standard deviation is 80);
    `warned/bdia_<gamma>/<dtype>/n<n>` (1 where BDIA warned that rounding destroys it); `reconstruction/ddim|bdia/n<n>`
    (RMS error of real digits taken to noise and back, pixels in [-1, 1]).

    Args:
        steps: Numbers of steps on the Karras grid from 80 to 0.002.
        gammas: Of BDIA; the first one also with Heun increments and for the reconstructions.
        batch: Trajectories, and real images.
        s0: Standard deviation of the mixture's components.
        seed: Of the noise and of the choice of images.
        fast: Few trajectories, two numbers of steps.
    """

    def __init__(
        self,
        steps: Sequence[int] = (10, 20, 40, 80),
        gammas: Sequence[float] = (1.0, 0.9, 0.75, 0.5),
        batch: int = 64,
        s0: float = 0.3,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if min(steps) < 2:
            raise ValueError(f"an inversion needs at least 2 steps; got {list(steps)}")
        if any(gamma == 0 for gamma in gammas):
            raise ValueError("gamma = 0 is DDIM and has no exact inverse; leave it out of gammas")
        self.samplers = {f"bdia_{gamma:g}": BDIA(gamma) for gamma in gammas}
        self.steps = tuple(steps)[:2] if fast else tuple(steps)
        self.first = gammas[0]
        self.batch = 4 if fast else batch
        self.s0, self.seed = s0, seed

    @torch.no_grad()
    def study(self) -> dict[str, float]:
        mixtures = {name: digits_mixture(self.s0, dtype).to(self.device) for name, dtype in DTYPES.items()}
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.batch, mixtures["float64"].dim)
        noise = SIGMA_MAX * torch.randn(shape, dtype=torch.float64, generator=generator).to(self.device)
        trips: dict[str, dict[int, RoundTrip]] = {}
        for n in tqdm(self.steps, "round trips"):
            sigmas = karras(n, SIGMA_MAX, SIGMA_MIN)
            trips.setdefault("ddim", {})[n] = ddim_round_trip(mixtures["float64"], noise, sigmas)
            for name, sampler in self.samplers.items():
                for dtype, mixture in mixtures.items():
                    trip = bdia_round_trip(sampler, mixture, noise.to(DTYPES[dtype]), sigmas)
                    trips.setdefault(f"{name}/{dtype}", {})[n] = trip
            heun = BDIA(self.first, "heun")
            trips.setdefault("bdia_heun/float64", {})[n] = bdia_round_trip(heun, mixtures["float64"], noise, sigmas)
        images, rebuilt = self._reconstruct(mixtures["float64"], generator)

        metrics: dict[str, float] = {}
        for name, by_steps in trips.items():
            for n, trip in by_steps.items():
                metrics[f"round_trip/{name}/n{n}"] = trip.error
                if name != "ddim":
                    metrics[f"warned/{name}/n{n}"] = float(trip.warned)
        for (name, n), result in rebuilt.items():
            metrics[f"reconstruction/{name}/n{n}"] = (result - images).square().mean().sqrt().item()
        errors = {name: {n: trip.error for n, trip in by_steps.items()} for name, by_steps in trips.items()}
        shown = {key: result[:10].reshape(-1, 8, 8).cpu() for key, result in rebuilt.items()}
        figure = exact_inversion_figure(errors, images[:10].reshape(-1, 8, 8).cpu(), shown)
        self.save_figure("exact_inversion", figure)
        return metrics

    def _reconstruct(
        self, mixture: GaussianMixture, generator: torch.Generator
    ) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
        """Real digits, taken as states at the last level, to noise and back."""
        chosen = torch.randperm(len(mixture.means), generator=generator)[: self.batch]
        images = mixture.means[chosen.to(self.device)]
        sampler = BDIA(self.first)
        rebuilt = {}
        for n in self.steps:
            sigmas = karras(n, SIGMA_MAX, SIGMA_MIN)
            latent = ddim_invert(mixture, images, sigmas)
            rebuilt["ddim", n] = Euler().sample(mixture, latent, sigmas)
            pair = sampler.invert_pair(mixture, images, sigmas)
            rebuilt["bdia", n] = sampler.sample_from_pair(mixture, pair, sigmas)
        return images, rebuilt
