"""MDM as a method: training on all noise levels, sampling with any solver on any subset of the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from plugins.generative.parameterizations import NetworkDenoiser
from plugins.generative.schedules import VPDiscrete
from plugins.generative.solvers import Ancestral, Solver

from ..guidance import drop_condition, guided
from ..losses import GeometricLoss
from ..methods import Averaged, Method, Noise, Update, keep_known
from ..networks import computed_frames, length_mask, pad_frames
from .schedule import cosine_betas, respaced


class MDM(Method):
    """The Motion Diffusion Model (Tevet et al. 2022, arXiv:2209.14916).

    Args:
        network: ``(x_t, t, text, mask) -> x0``, e.g. :class:`MDMNetwork`.
        optimizer: called with the network's parameters.
        diffusion_steps: of the cosine schedule.
        loss: of the predicted clip.
        dropped: share of the texts replaced by none in training.
        guidance: scale in sampling; 2.5 in the paper for texts, 1 for actions.
        ema: decay of the averaged weights.
        warmup, final_rate: of :class:`Method`.
    """

    quick = {"steps": 4}

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        diffusion_steps: int = 1000,
        loss: GeometricLoss | None = None,
        dropped: float = 0.1,
        guidance: float = 2.5,
        ema: float = 0.9999,
        warmup: float = 0.02,
        final_rate: float = 0.0,
    ) -> None:
        super().__init__(network.features, network.frames, warmup, final_rate)
        if guidance not in (0, 1) and dropped == 0:
            raise ValueError(f"guidance = {guidance} needs a network that knows no text: set dropped above 0")
        self.network, self.averaged = network, Averaged(network, ema)
        self.optimizer, self.loss = optimizer, loss or GeometricLoss()
        self.dropped, self.guidance = dropped, guidance
        self.schedule = VPDiscrete(cosine_betas(diffusion_steps))
        times = torch.arange(1, diffusion_steps + 1, dtype=torch.float64) / diffusion_steps
        self.register_buffer("alphas", self.schedule.alpha(times).float(), persistent=False)
        self.register_buffer("sigmas", self.schedule.sigma(times).float(), persistent=False)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"network": self.optimizer(self.network.parameters())}

    def updates(self, batch: dict, progress: float) -> Iterator[Update]:
        self.check_batch(batch)
        x0, mask = batch["motion"], batch["mask"]
        t = torch.randint(self.schedule.steps, (len(x0),), device=x0.device)
        x_t = self.alphas[t, None, None] * x0 + self.sigmas[t, None, None] * torch.randn_like(x0)
        made = self.network(x_t, t, drop_condition(batch["text_emb"], self.dropped), mask)
        terms = self.loss(made, x0, mask, self.decode)
        yield Update("network", torch.stack(list(terms.values())).sum(), {k: v.detach() for k, v in terms.items()})

    def stepped(self, optimizer: str) -> None:
        self.averaged.update(self.network)

    @torch.no_grad()
    def generate(
        self,
        text_emb: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        *,
        steps: int | None = None,
        solver: Solver | None = None,
        guidance: float | None = None,
        noise: Noise | None = None,
        known: Tensor | None = None,
        motion: Tensor | None = None,
    ) -> Tensor:
        """:meth:`Method.generate`; edits overwrite the known entries of x0 at every step.

        Args:
            steps: of the diffusion's steps, evenly spaced; all of them when omitted.
            solver: ancestral sampling when omitted; ``DDIM()`` or ``DPMSolverPP2M()`` are deterministic.
            guidance: in place of the method's own.
        """
        source, edit = self.open_request(text_emb, lengths, generator, noise, known, motion)
        frames = computed_frames(lengths, self.network.patch)
        mask = length_mask(lengths, frames)
        scale = self.guidance if guidance is None else guidance
        shape = (len(text_emb), frames, self.features)

        def answer(x: Tensor, t: Tensor, mask: Tensor, text: Tensor) -> Tensor:
            return self.averaged(x, t, text, mask)

        def network(x: Tensor, t: Tensor) -> Tensor:
            return keep_known(guided(answer, text_emb, scale, x, t, mask), edit)

        levels = respaced(self.schedule, steps)
        clips = (solver or Ancestral()).sample(
            NetworkDenoiser(network, self.schedule, "x0"),
            float(levels[0]) * source(shape),
            levels,
            noise=lambda sigma, sigma_next: source(shape),
        )
        return pad_frames(clips, self.frames, lengths)
