"""Several learners in one run, each given the same training time, or the same number of steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from torch import Tensor, nn


class Budget(nn.Module):
    """Who trains next, for how long each has trained, and when all are done. Its state travels in checkpoints.

    With ``seconds`` each batch goes to the learner that has trained least long so far: all have then trained equally
    long at any moment, and the machine's load falls on all alike. Only what happens inside :meth:`spend` counts, by
    the wall clock; under DDP the processes agree on the mean. With ``steps`` every learner takes every batch, and the
    run is reproducible to the last bit.

    Args:
        names: the learners.
        seconds, steps: the budget of each; exactly one of the two.
        fast: two steps of each in its place, once it is found to be sound.

    Attributes:
        seconds, taken: name → training seconds, and steps, so far.

    Raises:
        ValueError: no learner, both or neither of the budgets, or one that is not positive.
    """

    def __init__(
        self, names: Sequence[str], seconds: float | None = None, steps: int | None = None, fast: bool = False
    ) -> None:
        super().__init__()
        if not names:
            raise ValueError("a budget needs at least one learner")
        if (seconds is None) == (steps is None):
            raise ValueError(f"set one of seconds and steps, the budget of each learner; got {seconds} and {steps}")
        limit = float(seconds if steps is None else steps)  # type: ignore[arg-type]
        if not limit > 0:
            raise ValueError(f"the budget must be positive; got seconds = {seconds}, steps = {steps}")
        self.timed = steps is None and not fast
        self.limit = 2.0 if fast else limit
        self.seconds = dict.fromkeys(names, 0.0)
        self.taken = dict.fromkeys(names, 0)

    def turn(self) -> list[str]:
        """The learners that take the next batch."""
        return [min(self.seconds, key=self.seconds.__getitem__)] if self.timed else list(self.seconds)

    def share(self, name: str) -> float:
        """The used share of a learner's budget."""
        return (self.seconds[name] if self.timed else self.taken[name]) / self.limit

    @property
    def used(self) -> float:
        """The used share of the whole: that of the learner that lags most."""
        return min(map(self.share, self.seconds))

    def metrics(self, prefix: str) -> dict[str, float]:
        """``<prefix>seconds/<name>`` and ``<prefix>steps/<name>``: what each has used."""
        seconds = {f"{prefix}seconds/{name}": used for name, used in self.seconds.items()}
        return seconds | {f"{prefix}steps/{name}": float(taken) for name, taken in self.taken.items()}

    @contextmanager
    def spend(self, name: str, module: pl.LightningModule) -> Iterator[None]:
        """Around one training step of a learner; ``module`` knows the device and the other processes."""
        began = self._now(module)
        yield
        seconds = self._now(module) - began
        if module.trainer.world_size > 1:
            # all processes must agree on whose turn it is
            mean = module.trainer.strategy.reduce(torch.tensor(seconds, device=module.device), reduce_op="mean")
            seconds = float(mean)
        self.seconds[name] += seconds
        self.taken[name] += 1

    @staticmethod
    def _now(module: pl.LightningModule) -> float:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)  # launches return before the work is done
        return time.perf_counter()

    def get_extra_state(self) -> Tensor:
        return torch.tensor([list(self.seconds.values()), list(self.taken.values())], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        seconds, taken = state.tolist()
        self.seconds = dict(zip(self.seconds, seconds, strict=True))
        self.taken = {name: int(count) for name, count in zip(self.taken, taken, strict=True)}
