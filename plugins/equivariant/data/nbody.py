"""Charged particles: where will they be one time unit from now?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from plugins.equivariant.data.loading import GraphData
from plugins.equivariant.graphs import Graph, fully_connected
from plugins.equivariant.nbody import ChargedParticles, Trajectories, simulate


class Windows(Dataset):
    """Pairs of frames (t, t + horizon) of trajectories as fully connected graphs.

    A graph has ``x`` (n, 1) charges, ``vec`` (n, 1, 3) velocities, ``pos`` (n, 3) and the target ``y["pos"]`` (n, 3).

    Args:
        trajectories: B trajectories.
        starts: the frames t.
        horizon: frames to the target.
        reversible: offer each window also backwards in time, velocities reversed: the forces conserve energy, so it
            is a solution as well (but for the clip at close encounters).
    """

    def __init__(self, trajectories: Trajectories, starts: Sequence[int], horizon: int, reversible: bool = False):
        frames = trajectories.pos.shape[1]
        for start in starts:
            if not 0 <= start < frames - horizon:
                raise ValueError(
                    f"start frame {start} with horizon {horizon} leaves the {frames} frames of a trajectory"
                )
        self.trajectories, self.horizon, self.reversible = trajectories, horizon, reversible
        self.starts = torch.as_tensor(list(starts))

    def __len__(self) -> int:
        return len(self.trajectories) * len(self.starts) * (1 + self.reversible)

    def __getitem__(self, index: int) -> Graph:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Graph:
        data = self.trajectories
        which = torch.as_tensor(indices)
        which, backwards = (which // 2, (which % 2)[:, None, None]) if self.reversible else (which, None)
        row, start = which // len(self.starts), self.starts[which % len(self.starts)]
        pos, vel, target = data.pos[row, start], data.vel[row, start], data.pos[row, start + self.horizon]
        if backwards is not None:
            later = data.vel[row, start + self.horizon]
            pos, target = torch.where(backwards == 1, target, pos), torch.where(backwards == 1, pos, target)
            vel = torch.where(backwards == 1, -later, vel)
        return particle_graph(pos, vel, data.charges[row], target)


def particle_graph(pos: Tensor, vel: Tensor, charges: Tensor, target: Tensor) -> Graph:
    """Equally sized systems as one batched graph.

    Args:
        pos, vel, target: (B, n, 3).
        charges: (B, n).
    """
    count, particles = charges.shape
    return Graph(
        pos=pos.reshape(-1, 3),
        x=charges.reshape(-1, 1),
        edge_index=fully_connected([particles] * count),
        batch=torch.arange(count).repeat_interleave(particles),
        num_graphs=count,
        vec=vel.reshape(-1, 1, 3),
        y={"pos": target.reshape(-1, 3)},
    )


class NBodyData(GraphData):
    """Training, validation and test trajectories from simulations with neighbouring seeds.

    Args:
        batch_size, eval_batch_size, workers: of the loaders.
        train, val, test: numbers of trajectories.
        start: frame from which the benchmark forecasts (validation and test).
        horizon: frames to the target; 10 frames are one time unit.
        train_starts: "benchmark" trains on the window at ``start`` alone, "all" on every window of the same
            trajectories.
        reversible: train on windows backwards in time as well.
        seed: of the simulations; validation and test take the next two.
        simulation: settings other than the benchmark's.
        fast: a few trajectories.
    """

    def __init__(
        self,
        batch_size: int = 100,
        eval_batch_size: int = 500,
        train: int = 3000,
        val: int = 2000,
        test: int = 2000,
        start: int = 30,
        horizon: int = 10,
        train_starts: str = "benchmark",
        reversible: bool = False,
        seed: int = 43,
        simulation: ChargedParticles | None = None,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, workers)
        self.counts = {"train": train, "val": val, "test": test}
        if fast:
            self.counts = {part: min(size, 16) for part, size in self.counts.items()}
        if train_starts not in ("benchmark", "all"):
            raise ValueError(f"train_starts must be 'benchmark' or 'all', not {train_starts!r}")
        self.simulation = simulation or ChargedParticles()
        if not 0 <= start < self.simulation.frames - horizon:
            raise ValueError(
                f"start = {start} and horizon = {horizon} need {start + horizon + 1} frames, "
                f"the simulation stores {self.simulation.frames}"
            )
        self.start, self.horizon, self.train_starts = start, horizon, train_starts
        self.reversible, self.seed, self.fast = reversible, seed, fast

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        for number, (part, count) in enumerate(self.counts.items()):
            starts = [self.start]
            if part == "train" and self.train_starts == "all":
                starts = list(range(self.simulation.frames - self.horizon))
            trajectories = simulate(count, self.seed + number, self.simulation, progress=not self.fast)
            self.sets[part] = Windows(trajectories, starts, self.horizon, self.reversible and part == "train")
