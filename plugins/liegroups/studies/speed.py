"""``liegroups/speed``: the cost of a training step against the straightforward layer."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from tqdm import tqdm

from framework.study import Study
from plugins.liegroups.figures import cost_figure
from plugins.liegroups.groups import LieGroup, make_group
from plugins.liegroups.haar import CoordinateNormal, Samples
from plugins.liegroups.layers import DepthwiseGroupConv, GroupConv, SeparableGroupConv

LAYERS = ("dense", "separable", "depthwise")


def make_layer(name: str, group: LieGroup, channels: int, kernel_size: int) -> nn.Module:
    """The layer timed under ``name``. "dense" is the straightforward one: a kernel network evaluated for every pair of
    samples and every pixel, one dense convolution. "separable_dense" and "depthwise_dense" give the straightforward
    layer the separable kernels, so that it computes the same function as the fast ones."""
    classes = {"separable": SeparableGroupConv, "depthwise": DepthwiseGroupConv}
    base = name.removesuffix("_dense")
    if name == "dense":
        return GroupConv(group, channels, channels, kernel_size)
    fast = classes[base](group, channels, channels, kernel_size)
    if name == base:
        return fast
    return GroupConv(group, channels, channels, kernel_size, kernel=fast.kernel)


def training_step(layer: nn.Module, field: Tensor, samples: Samples) -> None:
    """Forward and backward, gradients of the input included, as in the middle of a network."""
    layer.zero_grad(set_to_none=True)
    layer(field, samples, samples).square().mean().backward()


def seconds_per_step(layer: nn.Module, field: Tensor, samples: Samples, repeats: int) -> float:
    """Fastest of ``repeats`` steps after one to warm up, which is least disturbed by other load."""
    best = float("inf")
    for k in range(repeats + 1):
        _synchronize(field)
        start = time.perf_counter()
        training_step(layer, field, samples)
        _synchronize(field)
        if k:
            best = min(best, time.perf_counter() - start)
    return best


def _synchronize(t: Tensor) -> None:
    if t.is_cuda:
        torch.cuda.synchronize(t.device)


def saved_mebibytes(layer: nn.Module, field: Tensor, samples: Samples) -> float:
    """Memory that the forward pass keeps for the backward pass, in MiB, each storage counted once."""
    sizes: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = layer(field, samples, samples)
    del out
    return sum(sizes.values()) / 2**20


class SpeedStudy(Study):
    """Times one layer's training step, C = C' and N = N'.

    Metrics: ``seconds/<layer>/samples<n>`` and ``mebibytes/<layer>/samples<n>`` for the dense SIREN layer and the two
    fast ones. At ``samples``: ``step_ratio/<layer>``, the time of the straightforward layer with the very kernel of the
    fast one (the same function: ``difference/<layer>`` is the relative difference of their outputs) over that of the
    fast one; ``step_ratio/<layer>_to_siren`` against a dense SIREN; ``memory_ratio/<layer>``. ``step_ratio`` repeats
    ``step_ratio/depthwise``.
    """

    def __init__(
        self, group: str = "gl2", channels: int = 40, samples: int = 10, sweep: tuple[int, ...] = (4, 8, 16),
        kernel_size: int = 5, side: int = 18, batch: int = 4, repeats: int = 3, seed: int = 0, fast: bool = False,
    ):  # fmt: skip
        super().__init__()
        if min(channels, samples, side, batch, repeats, *sweep) < 1:
            raise ValueError("channels, samples, sweep, side, batch and repeats must all be positive")
        self.group = make_group(group)
        if fast:
            channels, samples, sweep, side, batch, repeats = 2, 3, (2, 3), 8, 2, 1
        self.channels, self.samples, self.sweep, self.kernel_size = channels, samples, tuple(sweep), kernel_size
        self.side, self.batch, self.repeats, self.seed = side, batch, repeats, seed

    def _inputs(self, n: int) -> tuple[Tensor, Samples]:
        generator = torch.Generator().manual_seed(self.seed)
        field = torch.randn(self.batch, self.channels, n, self.side, self.side, generator=generator)
        samples = CoordinateNormal(self.group, 0.3)(n, generator).normalized()
        placed = samples.to(dtype=torch.float32, device=self.device)
        return field.to(self.device).requires_grad_(), placed

    def _measure(self, name: str, n: int) -> tuple[float, float]:
        torch.manual_seed(self.seed)
        layer = make_layer(name, self.group, self.channels, self.kernel_size).to(self.device)
        field, samples = self._inputs(n)
        return seconds_per_step(layer, field, samples, self.repeats), saved_mebibytes(layer, field, samples)

    def _difference(self, name: str) -> float:
        """Relative difference of the fast layer's output from the dense layer with the same kernel."""
        torch.manual_seed(self.seed)
        fast = make_layer(name, self.group, self.channels, self.kernel_size).to(self.device)
        dense = GroupConv(self.group, self.channels, self.channels, self.kernel_size, kernel=fast.kernel)
        field, samples = self._inputs(self.samples)
        a, b = fast(field, samples, samples), dense.to(self.device)(field, samples, samples)
        return float(((a - b).norm() / b.norm()).detach())

    # the trainer tests in inference mode, where no gradient exists
    @torch.inference_mode(False)
    @torch.enable_grad()
    def study(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        rows: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "mebibytes": []} for name in LAYERS}
        for n in tqdm(self.sweep, desc="samples", unit="size"):
            for name in LAYERS:
                seconds, memory = self._measure(name, n)
                rows[name]["seconds"].append(seconds)
                rows[name]["mebibytes"].append(memory)
                metrics[f"seconds/{name}/samples{n}"] = seconds
                metrics[f"mebibytes/{name}/samples{n}"] = memory
        at = {name: self._measure(name, self.samples) for name in (*LAYERS, "separable_dense", "depthwise_dense")}
        for name in ("separable", "depthwise"):
            metrics[f"step_ratio/{name}"] = at[f"{name}_dense"][0] / at[name][0]
            metrics[f"step_ratio/{name}_to_siren"] = at["dense"][0] / at[name][0]
            metrics[f"memory_ratio/{name}"] = at[f"{name}_dense"][1] / at[name][1]
            metrics[f"difference/{name}"] = self._difference(name)
        metrics["step_ratio"] = metrics["step_ratio/depthwise"]
        self.save_figure("cost", cost_figure(self.sweep, rows))
        return metrics
