"""EMDM as a method: adversarial training on pairs of neighbouring levels, sampling in as many steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..guidance import drop_condition, guided
from ..losses import GeometricLoss
from ..methods import Averaged, Method, Noise, Update, keep_known
from ..networks import computed_frames, length_mask, pad_frames
from .diffusion import DenoisingSteps
from .losses import adversarial_loss, discriminator_loss, r1_penalty


class EMDM(Method):
    """Efficient Motion Diffusion Model (Zhou et al. 2024, arXiv:2312.02256): a denoising-diffusion GAN.

    A training step updates the discriminator on real and drawn pairs, then the generator on the sum of two losses
    from independent times, noises and latents: the geometric error of its x0, and the discriminator's verdict on a
    posterior draw from its x0.

    Args:
        generator: ``(x_{t+1}, t, z, text, mask) -> x0``, e.g. :class:`EMDMGenerator`.
        discriminator: ``(x_t, t, x_{t+1}, text, mask) -> logits``.
        generator_optimizer, discriminator_optimizer: called with the parameters.
        diffusion: the steps; 10 of them when omitted.
        loss: geometric error; published weights are 100 for texts' features and 1 each for action sets.
        adversarial: weight of the adversarial loss; 0 leaves a few-step model of squared error.
        adversarial_share: share of each batch that the discriminator sees, in both updates; 1 in the paper. Half
            makes a step a third cheaper.
        adversarial_steps: the discriminator judges only the last so many denoising steps, and the generator's second
            pass draws its times from them; all, as in the paper, when omitted. Before them the noise of x_t hides what
            could be told, and a small discriminator learns nothing.
        gamma: of the R1 penalty on real x_t.
        penalty_every: the penalty is taken on every so many discriminator steps (and not scaled up for it).
        dropped: share of the texts replaced by none, in the generator alone.
        guidance: scale in sampling, with the same x and z in both branches; 2.5 for texts, 1 for actions.
        ema: decay of the averaged generator.
        warmup, final_rate: of :class:`Method`.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        generator_optimizer: Callable[..., torch.optim.Optimizer],
        discriminator_optimizer: Callable[..., torch.optim.Optimizer],
        diffusion: DenoisingSteps | None = None,
        loss: GeometricLoss | None = None,
        adversarial: float = 1.0,
        adversarial_share: float = 1.0,
        adversarial_steps: int | None = None,
        gamma: float = 0.02,
        penalty_every: int = 15,
        dropped: float = 0.1,
        guidance: float = 2.5,
        ema: float = 0.9999,
        warmup: float = 0.02,
        final_rate: float = 0.0,
    ) -> None:
        super().__init__(generator.features, generator.frames, warmup, final_rate)
        if guidance not in (0, 1) and dropped == 0:
            raise ValueError(f"guidance = {guidance} needs a generator that knows no text: set dropped above 0")
        if not 0 < adversarial_share <= 1:
            raise ValueError(f"adversarial_share = {adversarial_share} must lie in (0, 1]; for none, adversarial: 0")
        if penalty_every < 1:
            raise ValueError(f"penalty_every = {penalty_every} must be at least 1 step")
        self.generator, self.discriminator = generator, discriminator
        self.averaged = Averaged(generator, ema)
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self.diffusion = diffusion or DenoisingSteps()
        self.loss = loss or GeometricLoss(features=100.0)
        self.adversarial, self.adversarial_share = adversarial, adversarial_share
        self.adversarial_steps = self.diffusion.steps if adversarial_steps is None else adversarial_steps
        if not 1 <= self.adversarial_steps <= self.diffusion.steps:
            raise ValueError(f"adversarial_steps = {adversarial_steps} must lie in 1 … {self.diffusion.steps}")
        self.gamma, self.penalty_every = gamma, penalty_every
        self.dropped, self.guidance = dropped, guidance
        self.rounds = 0

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.rounds)

    def set_extra_state(self, state: Tensor) -> None:
        self.rounds = int(state)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "discriminator": self.discriminator_optimizer(self.discriminator.parameters()),
            "generator": self.generator_optimizer(self.generator.parameters()),
        }

    def updates(self, batch: dict, progress: float) -> Iterator[Update]:
        self.check_batch(batch)
        x0, mask, text = batch["motion"], batch["mask"], batch["text_emb"]
        judged = max(1, round(self.adversarial_share * len(x0)))
        if self.adversarial:
            yield self._judge(x0[:judged], mask[:judged], text[:judged])
        yield self._make(x0, mask, text, judged)

    def _judge(self, x0: Tensor, mask: Tensor, text: Tensor) -> Update:
        """The discriminator's loss on real and drawn x_t given the same x_{t+1}."""
        t, x_t, x_next = self._pair(x0, self.adversarial_steps)
        with torch.no_grad():
            made = self.generator(x_next, t, self._latent(x0), drop_condition(text, self.dropped), mask)
            fake = self.diffusion.posterior(made, x_next, t, torch.randn_like(x0))
        self.discriminator.requires_grad_(True)
        penalised = self.gamma > 0 and self.rounds % self.penalty_every == 0
        shown, unseen = x_t * mask[..., None], fake * mask[..., None]
        if not penalised:
            both = [torch.cat([a, b]) for a, b in ((shown, unseen), *((a, a) for a in (t, x_next, text, mask)))]
            real_logits, fake_logits = self.discriminator(*both).chunk(2)
            loss = discriminator_loss(real_logits, fake_logits)
            return Update("discriminator", loss, {"discriminator": loss.detach()})
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            real_logits = self.discriminator(shown.requires_grad_(), t, x_next, text, mask)
            penalty = r1_penalty(real_logits, shown, self.gamma)
        loss = discriminator_loss(real_logits, self.discriminator(unseen, t, x_next, text, mask))
        return Update("discriminator", loss + penalty, {"discriminator": loss.detach(), "r1": penalty.detach()})

    def _make(self, x0: Tensor, mask: Tensor, text: Tensor, judged: int) -> Update:
        """The generator's loss; the two passes share one call, the second over the first ``judged`` clips."""
        seen = drop_condition(text, self.dropped)
        t, _, x_next = self._pair(x0, self.diffusion.steps)
        if not self.adversarial:
            terms = self.loss(self.generator(x_next, t, self._latent(x0), seen, mask), x0, mask, self.decode)
        else:
            other, its_mask, its_text = x0[:judged], mask[:judged], text[:judged]
            its_t, _, its_next = self._pair(other, self.adversarial_steps)
            made, its_made = self.generator(
                torch.cat([x_next, its_next]),
                torch.cat([t, its_t]),
                torch.cat([self._latent(x0), self._latent(other)]),
                torch.cat([seen, drop_condition(its_text, self.dropped)]),
                torch.cat([mask, its_mask]),
            ).split([len(x0), judged])
            terms = self.loss(made, x0, mask, self.decode)
            self.discriminator.requires_grad_(False)
            draw = self.diffusion.posterior(its_made, its_next, its_t, torch.randn_like(other)) * its_mask[..., None]
            verdict = self.discriminator(draw, its_t, its_next, its_text, its_mask)
            terms["adversarial"] = self.adversarial * adversarial_loss(verdict)
        return Update("generator", torch.stack(list(terms.values())).sum(), {k: v.detach() for k, v in terms.items()})

    def _pair(self, x0: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.randint(steps, (len(x0),), device=x0.device)
        return t, *self.diffusion.pair(x0, t, torch.randn_like(x0), torch.randn_like(x0))

    def _latent(self, x0: Tensor) -> Tensor:
        return torch.randn(len(x0), self.generator.latent, dtype=x0.dtype, device=x0.device)

    def stepped(self, optimizer: str) -> None:
        if optimizer == "generator":
            self.averaged.update(self.generator)
            self.discriminator.requires_grad_(True)
        else:
            self.rounds += 1

    @torch.no_grad()
    def generate(
        self,
        text_emb: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        *,
        guidance: float | None = None,
        noise: Noise | None = None,
        known: Tensor | None = None,
        motion: Tensor | None = None,
    ) -> Tensor:
        """:meth:`Method.generate`; edits overwrite the known entries of x0 at every step.

        Args:
            guidance: in place of the method's own.
        """
        source, edit = self.open_request(text_emb, lengths, generator, noise, known, motion)
        frames = computed_frames(lengths, self.generator.patch)
        mask = length_mask(lengths, frames)
        scale = self.guidance if guidance is None else guidance
        shape = (len(text_emb), frames, self.features)

        def answer(x: Tensor, t: Tensor, z: Tensor, mask: Tensor, text: Tensor) -> Tensor:
            return self.averaged(x, t, z, text, mask)

        x = source(shape)
        for step in reversed(range(self.diffusion.steps)):
            t = torch.full((len(x),), step, device=x.device)
            z = source((len(x), self.generator.latent))
            x0 = keep_known(guided(answer, text_emb, scale, x, t, z, mask), edit)
            x = self.diffusion.posterior(x0, x, t, source(shape)) if step else x0
        return pad_frames(x, self.frames, lengths)
