"""Time and memory of the layers, side by side in one process on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from framework.study import Study
from plugins.state_space import figures
from plugins.state_space.kernels import associative_scan, hop_available
from plugins.state_space.layers import S4D, S4PTD, S5, S5PTD, LSTMLayer
from plugins.state_space.networks import SequenceBlock
from plugins.state_space.studies.quality import single_thread
from plugins.state_space.studies.straightforward import StraightforwardS4D


class LayerSpeed(Study):
    """Forward and backward times, ratios to the plain S4D and to peers, and memory against length.

    Args:
        batch, length, d_model, d_state: of the timed sequences and layers.
        lengths: of the memory figure.
        repeats: rounds; every round times every candidate once, and the best time of each counts.
        peers: also time s5-pytorch and torch's LSTM.
        fast: tiny sizes.

    Logs ``milliseconds/<name>`` (forward plus backward), ``ratio/s4d_to_straightforward``,
    ``ratio/s4_ptd_to_straightforward``, ``scan_milliseconds/<backend>``, ``memory_mib/<name>/length<L>``; with peers
    ``ratio/s5_to_s5_pytorch`` (same arithmetic: all complex states), ``ratio/s5_ptd_to_s5_pytorch`` (conjugate halves,
    the layer's default) and ``ratio/s5_to_lstm``.
    """

    def __init__(
        self,
        batch: int = 8,
        length: int = 1024,
        d_model: int = 128,
        d_state: int = 64,
        lengths: tuple[int, ...] | list[int] = (256, 1024, 4096, 16384),
        repeats: int = 10,
        peers: bool = False,
        fast: bool = False,
    ) -> None:
        super().__init__()
        if fast:
            batch, length, d_model, d_state, lengths, repeats = 2, 64, 8, 8, (32, 64), 1
        self.batch, self.length, self.d_model, self.d_state = batch, length, d_model, d_state
        self.lengths, self.repeats, self.peers = list(lengths), repeats, peers

    def study(self) -> dict[str, float]:
        with single_thread(), torch.enable_grad(), torch.inference_mode(False):
            return {**self._layers(), **self._scans(), **self._memory()}

    def _layers(self) -> dict[str, float]:
        h, n = self.d_model, self.d_state
        candidates: dict[str, nn.Module] = {
            "straightforward_s4d": _ChannelsFirst(StraightforwardS4D(h, n)),
            "s4d": _gated(S4D(h, n)),
            "s4_ptd": _gated(S4PTD(h, n)),
            "s5_all_states": S5(h, n, conj_sym=False),
            "s5": S5(h, n),
            "s5_ptd": S5PTD(h, n),
        }
        if self.peers:
            candidates |= {"s5_pytorch": s5_pytorch(h, n), "lstm": LSTMLayer(h)}
        u = torch.randn(self.batch, self.length, h)
        times = best_times({name: _pass(layer, u) for name, layer in candidates.items()}, self.repeats)
        names = list(candidates)
        self.save_figure("times", figures.times(names, [times[x][0] for x in names], [times[x][1] for x in names]))
        total = {name: sum(pair) for name, pair in times.items()}
        metrics = {f"milliseconds/{name}": value for name, value in total.items()}
        for name in ("s4d", "s4_ptd"):
            metrics[f"ratio/{name}_to_straightforward"] = total[name] / total["straightforward_s4d"]
        if self.peers:
            metrics["ratio/s5_to_s5_pytorch"] = total["s5_all_states"] / total["s5_pytorch"]
            metrics["ratio/s5_ptd_to_s5_pytorch"] = total["s5_ptd"] / total["s5_pytorch"]
            metrics["ratio/s5_to_lstm"] = total["s5_all_states"] / total["lstm"]
        return metrics

    def _scans(self) -> dict[str, float]:
        lam = torch.exp(torch.complex(-torch.rand(self.d_state) / 10, torch.randn(self.d_state)))
        b = torch.randn(self.batch, self.length, self.d_state, dtype=torch.complex64)
        backends = ["tree", "loop", *(["hop"] if hop_available() else [])]
        passes = {name: _scan_pass(lam, b, name) for name in backends}
        passes["tree_varying"] = _scan_pass(lam.expand(self.length, -1), b, "tree")
        times = best_times(passes, max(1, self.repeats // 3))
        return {f"scan_milliseconds/{name}": sum(pair) for name, pair in times.items()}

    def _memory(self) -> dict[str, float]:
        h, n = self.d_model, self.d_state
        layers = {
            "straightforward_s4d": _ChannelsFirst(StraightforwardS4D(h, n)),
            "s4_ptd": _gated(S4PTD(h, n)),
            "s5_ptd": _gated(S5PTD(h, n)),
        }
        metrics: dict[str, float] = {}
        curves: dict[str, list[float]] = {name: [] for name in layers}
        for length in tqdm(self.lengths, desc="memory"):
            u = torch.randn(1, length, h)
            for name, layer in layers.items():
                mib = peak_bytes(lambda layer=layer, u=u: layer(u).sum().backward()) / 2**20
                curves[name].append(mib)
                metrics[f"memory_mib/{name}/length{length}"] = mib
        self.save_figure("memory_against_length", figures.memory(self.lengths, curves))
        return metrics


class _ChannelsFirst(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, u: Tensor) -> Tensor:
        return self.layer(u.transpose(1, 2))


def _gated(layer: S4D | S5) -> nn.Module:
    """The layer with the GELU and gate that the straightforward form includes."""
    return SequenceBlock(layer, norm="none", residual=False)


def s5_pytorch(d_model: int, d_state: int) -> nn.Module:
    """The s5-pytorch package's layer.

    Raises:
        ImportError: the package is missing; the message names what installs it.
    """
    try:
        from s5 import S5 as Peer
    except ImportError as error:
        raise ImportError("peers=true compares with s5-pytorch: pip install --no-deps s5-pytorch") from error
    return Peer(d_model, d_state)


Pass = Callable[[], tuple[float, float]]


def _pass(layer: nn.Module, u: Tensor) -> Pass:
    def run() -> tuple[float, float]:
        x = u.clone().requires_grad_()
        layer.zero_grad(set_to_none=True)
        started = time.perf_counter()
        y = layer(x)
        middle = time.perf_counter()
        y.sum().backward()
        return middle - started, time.perf_counter() - middle

    return run


def _scan_pass(lam: Tensor, b: Tensor, backend: str) -> Pass:
    def run() -> tuple[float, float]:
        a, x = lam.clone().requires_grad_(), b.clone().requires_grad_()
        started = time.perf_counter()
        y = associative_scan(a, x, backend=backend)
        middle = time.perf_counter()
        torch.view_as_real(y).sum().backward()
        return middle - started, time.perf_counter() - middle

    return run


def best_times(passes: dict[str, Pass], repeats: int) -> dict[str, tuple[float, float]]:
    """(forward, backward) in milliseconds of the fastest of ``repeats`` rounds, after one round to warm up.

    Rounds go through all candidates in turn, so that a busy moment of the machine hits all of them alike.
    """
    best = dict.fromkeys(passes, (float("inf"), float("inf")))
    for round_ in tqdm(range(repeats + 1), desc="timing"):
        for name, run in passes.items():
            forward, backward = (1e3 * seconds for seconds in run())
            if round_ and forward + backward < sum(best[name]):
                best[name] = (forward, backward)
    return best


def peak_bytes(work: Callable[[], object]) -> int:
    """Largest amount of CPU memory that tensors allocated by ``work`` held at one time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
