"""MARDM as a method: the autoencoder first, then the masked transformer with its diffusion head."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from plugins.generative.rates import warm_cosine

from ..guidance import drop_condition
from ..methods import Averaged, Method, Noise, Update
from ..networks import computed_frames, length_mask, pad_frames, token_lengths
from .autoencoder import MotionAutoencoder, latent_statistics, reconstruction_loss
from .head import Head
from .masking import corrupt, random_mask, ranks, unmasking_counts
from .transformer import MaskedTransformer


class MaskedGenerator(nn.Module):
    """The transformer and its head, which train and are averaged together."""

    def __init__(self, transformer: MaskedTransformer, head: Head) -> None:
        super().__init__()
        self.transformer, self.head = transformer, head


class MARDM(Method):
    """Masked Autoregressive Diffusion of Motion (Meng et al. 2025, arXiv:2411.16575).

    The first ``autoencoder_share`` of the budget trains the autoencoder, the rest the generator on its frozen latents.

    Args:
        autoencoder, transformer, head: the three networks.
        frames: longest clip.
        autoencoder_optimizer, optimizer: called with the parameters of the autoencoder, and of the other two.
        autoencoder_share: of the budget, in (0, 1).
        positions: first and last + 1 of the features that are joint positions, which count twice in reconstruction;
            every feature from the fifth on when omitted.
        repeats: draws of time and noise for each masked latent and step.
        noised, hidden: of :func:`~plugins.motion.mardm.corrupt`.
        standardise: bring latents to mean 0 and deviation 1 for the generator, by statistics gathered in the
            autoencoder's training; the paper leaves them as they are.
        dropped: share of the texts replaced by none in training.
        guidance: scale inside the head; 4.5 for HumanML3D and 2.5 for KIT.
        generation_steps: of the unmasking.
        ema: decay of the averaged generator.
        warmup, final_rate: of :class:`Method`, in each of the two stages.
    """

    quick = {"steps": 4}

    def __init__(
        self,
        autoencoder: MotionAutoencoder,
        transformer: MaskedTransformer,
        head: Head,
        frames: int,
        autoencoder_optimizer: Callable[..., torch.optim.Optimizer],
        optimizer: Callable[..., torch.optim.Optimizer],
        autoencoder_share: float = 0.2,
        positions: tuple[int, int] | None = None,
        repeats: int = 4,
        noised: float = 0.1,
        hidden: float = 0.88,
        standardise: bool = False,
        dropped: float = 0.1,
        guidance: float = 4.5,
        generation_steps: int = 18,
        ema: float = 0.9999,
        warmup: float = 0.02,
        final_rate: float = 0.0,
    ) -> None:
        super().__init__(autoencoder.features, frames, warmup, final_rate)
        if not 0 < autoencoder_share < 1:
            raise ValueError(f"autoencoder_share = {autoencoder_share} must lie strictly between 0 and 1")
        if frames % autoencoder.unit:
            raise ValueError(f"frames = {frames} must be a multiple of the latents' {autoencoder.unit} frames")
        if guidance not in (0, 1) and dropped == 0:
            raise ValueError(f"guidance = {guidance} needs a transformer that knows no text: set dropped above 0")
        if repeats < 1:
            raise ValueError(f"repeats = {repeats} must be at least 1")
        self.autoencoder = autoencoder
        self.maker = MaskedGenerator(transformer, head)
        self.averaged = Averaged(self.maker, ema)
        self.autoencoder_optimizer, self.optimizer = autoencoder_optimizer, optimizer
        self.autoencoder_share = autoencoder_share
        self.positions = tuple(positions) if positions is not None else (4, autoencoder.features)
        self.repeats, self.noised, self.hidden, self.standardise = repeats, noised, hidden, standardise
        self.dropped, self.guidance, self.generation_steps = dropped, guidance, generation_steps
        self.register_buffer("latent_mean", torch.zeros(autoencoder.latent))
        self.register_buffer("latent_std", torch.ones(autoencoder.latent))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "autoencoder": self.autoencoder_optimizer(self.autoencoder.parameters()),
            "generator": self.optimizer(self.maker.parameters()),
        }

    def rate(self, optimizer: str, progress: float) -> float:
        share = self.autoencoder_share
        stage = progress / share if optimizer == "autoencoder" else (progress - share) / (1 - share)
        return warm_cosine(stage, self.warmup, self.final_rate)

    def updates(self, batch: dict, progress: float) -> Iterator[Update]:
        self.check_batch(batch)
        motion, mask, lengths = batch["motion"], batch["mask"], batch["lengths"]
        if progress < self.autoencoder_share:
            yield self._reconstruct(motion, mask, lengths)
        else:
            yield self._predict(motion, lengths, batch["text_emb"])

    def _reconstruct(self, motion: Tensor, mask: Tensor, lengths: Tensor) -> Update:
        latents = self.autoencoder.encode(motion, lengths)
        loss = reconstruction_loss(self.autoencoder.decode(latents, lengths), motion, mask, self.positions)
        if self.standardise:
            seen = length_mask(token_lengths(lengths, self.autoencoder.unit), latents.shape[1])
            mean, std = latent_statistics(latents.detach(), seen)
            self.latent_mean.lerp_(mean.to(self.latent_mean), 0.02)
            self.latent_std.lerp_(std.clamp_min(1e-4).to(self.latent_std), 0.02)
        return Update("autoencoder", loss, {"autoencoder": loss.detach()})

    def _predict(self, motion: Tensor, lengths: Tensor, text: Tensor) -> Update:
        latents = self._encode(motion, lengths)
        tokens = token_lengths(lengths, self.autoencoder.unit)
        masked = random_mask(tokens, latents.shape[1], torch.rand(len(tokens), device=tokens.device))
        transformer, head = self.maker.transformer, self.maker.head
        shown = corrupt(latents, masked, transformer.mask_latent, self.noised, self.hidden)
        z = transformer(shown, length_mask(tokens, latents.shape[1]), drop_condition(text, self.dropped))
        loss = head.loss(latents[masked].repeat(self.repeats, 1), z[masked].repeat(self.repeats, 1))
        return Update("generator", loss, {"generator": loss.detach()})

    @torch.no_grad()
    def _encode(self, motion: Tensor, lengths: Tensor) -> Tensor:
        """Latents as the generator sees them, from the autoencoder at rest."""
        training = self.autoencoder.training
        self.autoencoder.eval()
        latents = self.autoencoder.encode(motion, lengths)
        self.autoencoder.train(training)
        return (latents - self.latent_mean) / self.latent_std

    def stepped(self, optimizer: str) -> None:
        if optimizer == "generator":
            self.averaged.update(self.maker)

    @torch.no_grad()
    def generate(
        self,
        text_emb: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        noise: Noise | None = None,
        known: Tensor | None = None,
        motion: Tensor | None = None,
    ) -> Tensor:
        """:meth:`Method.generate`; a token keeps the given motion's latent if all its frames are known.

        Every token has one random score; at each step the ones that are no longer among the masked are drawn and
        never change again.

        Args:
            steps: of the unmasking, in place of the method's own.
            guidance: in place of the method's own.
        """
        source, edit = self.open_request(text_emb, lengths, generator, noise, known, motion)
        clips, unit = len(text_emb), self.autoencoder.unit
        frames = computed_frames(lengths, unit)
        tokens = token_lengths(lengths, unit)
        seen = length_mask(tokens, frames // unit)
        scale = self.guidance if guidance is None else guidance
        transformer, head = self.averaged.module.transformer, self.averaged.module.head

        latents = transformer.mask_latent.to(text_emb.dtype).expand(clips, frames // unit, -1)
        shape, asked = tuple(latents.shape), seen
        if edit is not None:
            stays = edit[0][:, :frames].all(-1)
            given = self._encode(nearest_known(edit[1][:, :frames], stays & length_mask(lengths, frames)), lengths)
            whole = (stays | ~length_mask(lengths, frames)).view(clips, -1, unit).all(-1) & seen
            latents, asked = torch.where(whole[..., None], given, latents), seen & ~whole
        order = ranks(source((clips, frames // unit)), asked)
        counts = unmasking_counts(asked.sum(1), self.generation_steps if steps is None else steps)
        texts = torch.cat([text_emb, torch.zeros_like(text_emb)]) if scale not in (0, 1) else text_emb * scale
        for before, after in zip(counts, counts[1:], strict=False):
            drawn = asked & (order < before[:, None]) & (order >= after[:, None])
            doubled = len(texts) // max(clips, 1)
            z = transformer(latents.repeat(doubled, 1, 1), seen.repeat(doubled, 1), texts).view(
                doubled, clips, *latents.shape[1:2], -1
            )
            z, null = z[0][drawn], z[1][drawn] if doubled == 2 else None
            made = head.sample(z, null, scale, lambda drawn=drawn: source(shape)[drawn])
            latents = latents.masked_scatter(drawn[..., None], made.to(latents.dtype))
        latents = (latents * self.latent_std + self.latent_mean) * seen[..., None]
        result = pad_frames(self.autoencoder.decode(latents, lengths), self.frames, lengths)
        if edit is not None:
            result = torch.where(edit[0] & length_mask(lengths, self.frames)[..., None], edit[1], result)
        return result


def nearest_known(motion: Tensor, known: Tensor) -> Tensor:
    """Motion (B, T, D) whose unknown frames repeat the nearest known one; zero in a clip without any.

    So nothing of what is to be generated reaches the latents of what is given. known (B, T) bool.
    """
    frames = torch.arange(motion.shape[1], device=motion.device)
    distance = (frames[:, None] - frames).abs().expand(len(motion), -1, -1)
    nearest = distance.masked_fill(~known[:, None], motion.shape[1]).argmin(-1)
    filled = motion.gather(1, nearest[..., None].expand_as(motion))
    return filled * known.any(1)[:, None, None]
