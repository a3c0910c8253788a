"""Exact resume and graceful stops: what a training run must carry besides Lightning's own state."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback, Checkpoint

from framework import loading
from framework.errors import Interrupted


class Signals:
    """SIGTERM and Ctrl-C as requests: at once, or after the current training step where that is safe."""

    def __init__(self) -> None:
        self.received = 0
        self.deferred = False

    def handle(self, signum: int, frame: Any) -> None:
        if self.received or not self.deferred:
            raise Interrupted(signum)
        self.received = signum
        print("\nStopping after this training step, with a checkpoint. Once more to stop at once.", file=sys.stderr)

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handle)
            signal.signal(signal.SIGINT, self.handle)

    @contextmanager
    def installed(self) -> Iterator[Signals]:
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
        self.install()
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


class ExactResume(Callback):
    """Makes a resumed run end with the same weights, bit for bit, as one that was never stopped.

    The random numbers of a training step depend on (seed, batches consumed, process) alone, as those of its samples
    do, so that the number of batches is all that a checkpoint must add. No step is shifted by what a validation, a
    data set or an earlier step has drawn, and processes draw different noise.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.position = loading.Position()

    def wrap(self, source: Any, trainer: Any) -> None:
        """Replace the loaders that a data module or a model offers by resumable, distributed ones."""

        def train(original: Callable[[], Any]) -> Callable[[], Any]:
            return lambda: loading.resumable(
                original(),
                self.seed,
                self.position,
                trainer.global_rank,
                trainer.world_size,
                trainer.limit_train_batches,
                sequential=trainer.overfit_batches > 0,
            )

        def evaluate(original: Callable[[], Any]) -> Callable[[], Any]:
            return lambda: loading.share(original(), trainer.global_rank, trainer.world_size)

        source.train_dataloader = train(source.train_dataloader)
        for name in ("val_dataloader", "test_dataloader", "predict_dataloader"):
            setattr(source, name, evaluate(getattr(source, name)))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        loading.seed_everything(loading.mix(self.seed, self.position.batches, trainer.global_rank))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.position.batches += 1

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        # the same draws in every validation: its curve shows the model, not the dice
        loading.seed_everything(loading.mix(self.seed, -1, trainer.global_rank))

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.position.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position.batches = state_dict["batches"]


class GracefulStop(Checkpoint):
    """Writes ``last.ckpt`` and ends the run when a signal asked for it; all processes agree on the step.

    A Checkpoint, so that Lightning calls it after every other callback has seen the step.
    """

    def __init__(self, signals: Signals, path: Path) -> None:
        self.signals, self.path = signals, path
        self._group: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # on the CPU, so that asking never waits for a GPU
        self.signals.install()  # Lightning has put its own handler there, which ends the run without a checkpoint
        self.signals.deferred = True

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        signum = self.signals.received
        if self._group is not None:
            flag = torch.tensor([signum])
            dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
            signum = int(flag)
        if signum and not trainer.fit_loop._should_accumulate():
            trainer.save_checkpoint(self.path)
            self.signals.deferred = False
            raise Interrupted(signum)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.signals.deferred = False
        if self.signals.received:
            raise Interrupted(self.signals.received)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.signals.deferred = False


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint with the most steps that can be read; one that a kill left half written is passed over."""
    best: tuple[int, float, Path] | None = None
    for path in (run_dir / "checkpoints").glob("*.ckpt"):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if "loops" not in content:
                continue
            found = (int(content["global_step"]), path.stat().st_mtime, path)
        except Exception:  # every way in which a file can be broken means the same here
            continue
        best = max(best, found) if best else found
    return best[2] if best else None
