"""Real runs for the law: small denoisers of several sizes, trained in several formats on several amounts of data."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from plugins.generative.mixtures import GaussianMixture
from plugins.generative.quantization.floating_point import FPFormat
from plugins.generative.scaling_law.fit import TrainingRun
from plugins.generative.scaling_law.quantized_training import PAPER_TARGETS, QuantizedLinear

__all__ = ["DenoiserEnsemble", "DenoisingTask", "train_runs"]


class DenoisingTask:
    """Endless fresh examples (y = x + σ ε, σ, x) of a mixture, and the loss of any denoiser up to the noise of testing.

    log σ is uniform between the two bounds. The loss is the mean squared error of the prediction of x, weighted by
    (σ² + 1)/σ² as in EDM (Karras et al. 2022) so that every noise level counts alike. Since the best prediction E[x|y]
    is known, it is measured as ``floor`` plus the weighted |prediction - E[x|y]|²: the same in expectation, with far
    less scatter. ``floor`` is the loss of the best denoiser, the constant ε of a scaling law.

    Args:
        mixture: of the data.
        sigmas: (least, largest) noise level.
        test_size: examples the loss is measured on, the same for every run.
        seed: of those examples.
    """

    def __init__(
        self, mixture: GaussianMixture, sigmas: tuple[float, float] = (0.1, 3.0), test_size: int = 4096, seed: int = 0
    ) -> None:
        if not 0 < sigmas[0] < sigmas[1]:
            raise ValueError(f"sigmas={sigmas}: need 0 < least < largest")
        self.mixture, self.sigmas = mixture, sigmas
        self.test_y, self.test_sigma, clean = self.draw(test_size, torch.Generator().manual_seed(seed))
        self.best = mixture(self.test_y, self.test_sigma)
        self.floor = float((self.weight(self.test_sigma) * (self.best - clean).square()).mean())

    @staticmethod
    def weight(sigma: Tensor) -> Tensor:
        """Loss weight (σ² + 1)/σ²."""
        return 1 + sigma.square().reciprocal()

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy y (count, dim), σ (count, 1) and clean x (count, dim)."""
        clean = self.mixture.sample(count, generator)
        low, high = (math.log(s) for s in self.sigmas)
        uniform = torch.rand(count, 1, generator=generator, dtype=clean.dtype, device=clean.device)
        sigma = torch.exp(low + (high - low) * uniform)
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype, device=clean.device)
        return clean + sigma * noise, sigma, clean

    def losses(self, prediction: Tensor) -> Tensor:
        """Loss of each member from its predictions (R, test_size, dim) of the test examples: (R,)."""
        return self.floor + (self.weight(self.test_sigma) * (prediction - self.best).square()).mean((1, 2))


class DenoiserEnsemble(nn.Module):
    """R residual perceptrons side by side, equal but for the number format of their inner products.

    Input and output layers stay in full precision, as embedding and classifier do in Sun et al. 2025. The prediction is
    preconditioned as in EDM (Karras et al. 2022) for data of unit scale: D = c_skip·y + c_out·F(c_in·y, log σ/4).

    Args:
        dim: of the data.
        width: of the hidden layers.
        blocks: residual blocks, each of two quantized layers.
        formats: one a member, or an integer: that many members in full precision.
        block_size: of the scales.
        targets: the quantized operands of the inner layers, from ``TARGETS``.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        blocks: int,
        formats: Sequence[FPFormat] | int,
        block_size: int = 128,
        targets: Collection[str] = PAPER_TARGETS,
    ) -> None:
        super().__init__()
        members = formats if isinstance(formats, int) else len(formats)
        self.first = QuantizedLinear(dim + 1, width, members)
        self.inner = nn.ModuleList(
            nn.ModuleList(QuantizedLinear(width, width, formats, block_size, targets) for _ in range(2))
            for _ in range(blocks)
        )
        self.last = QuantizedLinear(width, dim, members)
        self.members = members

    @property
    def parameters_each(self) -> int:
        """Parameters of one member."""
        return sum(p.numel() for p in self.parameters()) // self.members

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        """y (n, dim), sigma (n, 1) -> predictions (R, n, dim)."""
        scale = (1 + sigma.square()).rsqrt()
        h = torch.cat([y * scale, sigma.log() / 4], dim=1)
        h = self.first(h.expand(self.members, -1, -1))
        for one, two in self.inner:
            h = h + two(nn.functional.silu(one(nn.functional.layer_norm(h, h.shape[-1:]))))
        return y * scale.square() + sigma * scale * self.last(nn.functional.silu(h))


def train_runs(
    task: DenoisingTask,
    width: int,
    steps: int,
    formats: Sequence[FPFormat] | None,
    block_size: int = 1,
    targets: Collection[str] = PAPER_TARGETS,
    batch_size: int = 64,
    blocks: int = 2,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> list[TrainingRun]:
    """Train one member for each format on the same ``steps × batch_size`` fresh examples, and measure their losses.

    AdamW with a linear warm-up over a tenth of the steps and a cosine decay to zero; all start from the same weights.

    Args:
        formats: ``None`` trains one member in full precision.
        block_size: of the scales: from 2 to ``width`` and ``batch_size``, the axes the blocks run along.
        targets: the quantized operands of the inner layers, from ``TARGETS``; by default those of the published law.
        seed: of the weights and of the data.
    """
    if formats is not None and not 2 <= block_size <= min(width, batch_size):
        raise ValueError(
            f"block_size={block_size}: a quantized run needs at least 2 elements a scale (1 is exact) and at most "
            f"min(width, batch_size) = {min(width, batch_size)}, or the law's B is not the one in use"
        )
    if steps < 1:
        raise ValueError(f"steps={steps}: it must be at least 1")
    with torch.inference_mode(False), torch.enable_grad():
        return _train(task, width, steps, formats, block_size, targets, batch_size, blocks, learning_rate, seed)


def _train(
    task: DenoisingTask,
    width: int,
    steps: int,
    formats: Sequence[FPFormat] | None,
    block_size: int,
    targets: Collection[str],
    batch_size: int,
    blocks: int,
    learning_rate: float,
    seed: int,
) -> list[TrainingRun]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DenoiserEnsemble(
            task.mixture.dim, width, blocks, 1 if formats is None else formats, block_size, targets
        )
    model.to(task.mixture.means)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    warmup = max(steps // 10, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda i: min((i + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * max(i - warmup, 0) / max(steps - warmup, 1))),
    )
    for _ in range(steps):
        y, sigma, clean = task.draw(batch_size, generator)
        loss = (task.weight(sigma) * (model(y, sigma) - clean).square()).mean((1, 2)).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        losses = task.losses(model(task.test_y, task.test_sigma)).tolist()
    size, tokens = model.parameters_each, steps * batch_size
    if formats is None:
        return [TrainingRun(size, tokens, 8, 23, 1, losses[0])]
    return [
        TrainingRun(size, tokens, f.exponent_bits, f.mantissa_bits, block_size, loss)
        for f, loss in zip(formats, losses, strict=True)
    ]
