"""Generating molecules: diffusion over positions and types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from framework.figures import run_dir, save_figure
from plugins.equivariant import figures_molecules
from plugins.equivariant.diffusion import (
    MoleculeDenoiser,
    bond_orders,
    denoising_loss,
    encode,
    formula,
    fragments,
    graph_key,
    sample_molecules,
    stable_atoms,
)
from plugins.equivariant.graphs import Graph
from plugins.equivariant.modules.equal_time import EqualTime
from plugins.equivariant.molecules import Frame, write_xyz
from plugins.generative.solvers import Solver


class MoleculeDiffusion(EqualTime):
    """Denoisers side by side, and the molecules that solvers draw with them.

    Noise levels of training are log-normal. The test draws ``samples`` molecules with every solver from one noise;
    their sizes follow the training molecules'. A molecule is stable if each atom has the bonds of its valence, valid
    if it is also of one piece, novel if no training molecule has its graph (``diffusion.stability``).

    Args:
        networks, seconds, steps, lr, weight_decay, warmup, clip, ema_width, seed, fast: of ``EqualTime``. A
            network takes ``len(species) + 1`` scalars and gives ``len(species)`` scalars and one vector.
        species: atomic numbers that occur, of H, C, N, O, F.
        solvers: samplers by the name they have in metrics.
        grid: grid(steps) -> noise levels.
        sampling_steps: of every solver.
        samples: molecules to draw.
        length: angstrom of the state's unit.
        mean_log_sigma, std_log_sigma: of the training's noise levels.

    Logs ``<metric>/<network>/<solver>`` for ``atom_stability``, ``molecule_stability``, ``validity``, ``uniqueness``
    (share of distinct graphs among the valid) and ``novelty`` (share of unseen graphs among those), and the first two
    and ``validity`` of the training molecules under ``<metric>/data``. Writes ``molecules/<network>_<solver>.xyz``.
    """

    def __init__(
        self,
        networks: Any,
        species: list[int],
        solvers: Mapping[str, Solver],
        grid: Callable[[int], Tensor],
        sampling_steps: int = 40,
        samples: int = 200,
        length: float = 1.5,
        mean_log_sigma: float = -1.2,
        std_log_sigma: float = 1.2,
        seconds: float | None = None,
        steps: int | None = None,
        lr: Any = 5e-4,
        weight_decay: float = 0.0,
        warmup: float = 0.02,
        clip: float | None = 1.0,
        ema_width: float | None = 0.05,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(networks, seconds, steps, lr, weight_decay, warmup, clip, ema_width, seed, fast)
        for name, value in (("length", length), ("std_log_sigma", std_log_sigma), ("samples", samples)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, not {value}")
        self.sampling_steps = min(sampling_steps, 4) if fast else sampling_steps
        self.samples = min(samples, 4) if fast else samples
        self.solvers, self.sigmas = dict(solvers), grid(self.sampling_steps)
        self.length, self.noise_levels, self.sample_seed = length, (mean_log_sigma, std_log_sigma), seed
        self.register_buffer("table", torch.tensor(species))

    def wrap(self, network: nn.Module) -> nn.Module:
        return MoleculeDenoiser(network)

    def augment(self, batch: Graph) -> Graph:
        state = encode(batch.pos, batch.x, self.table, self.length, batch.batch, batch.num_graphs)
        return batch.replace(pos=state[:, :3], x=state[:, 3:])

    def loss(self, network: nn.Module, batch: Graph) -> Tensor:
        state = torch.cat([batch.pos, batch.x], dim=1)
        mean, std = self.noise_levels
        sigma = torch.exp(mean + std * torch.randn(batch.num_graphs, dtype=state.dtype, device=state.device))
        return denoising_loss(network, batch, state, sigma)

    def test_step(self, batch: Graph, batch_idx: int) -> None:
        """Sampling happens once, at the end."""

    def on_test_epoch_end(self) -> None:
        known = self.trainer.datamodule.train_frames  # type: ignore[attr-defined]
        keys = {graph_key(frame.numbers, bond_orders(frame.numbers, frame.pos)) for frame in known}
        self._log("data", known, None)
        generator = torch.Generator().manual_seed(self.sample_seed)
        chosen = torch.randint(len(known), (self.samples,), generator=generator).tolist()
        sizes = [len(known[i]) for i in chosen]
        for name in self.names:
            for solver_name, solver in self.solvers.items():
                start = torch.Generator().manual_seed(self.sample_seed)
                with torch.inference_mode(False):
                    frames = sample_molecules(
                        self.trained(name), sizes, self.table, self.length, solver, self.sigmas, generator=start
                    )
                self._log(f"{name}/{solver_name}", frames, keys)
                if self.trainer.is_global_zero:
                    write_xyz(run_dir(self) / "molecules" / f"{name}_{solver_name}.xyz", frames)
                titles = [
                    formula(f.numbers) + (", stable" if stable_atoms(f.numbers, f.pos).all() else "")
                    for f in frames[:12]
                ]
                save_figure(self, f"{name}_{solver_name}", figures_molecules.molecules(frames[:12], titles))

    def _log(self, suffix: str, frames: list[Frame], known: set[str] | None) -> None:
        stable = [stable_atoms(frame.numbers, frame.pos) for frame in frames]
        orders = [bond_orders(frame.numbers, frame.pos) for frame in frames]
        valid = [i for i, good in enumerate(stable) if good.all() and fragments(orders[i]) == 1]
        self.log(f"atom_stability/{suffix}", float(sum(s.sum() for s in stable) / sum(len(s) for s in stable)))
        self.log(f"molecule_stability/{suffix}", sum(bool(s.all()) for s in stable) / len(frames))
        self.log(f"validity/{suffix}", len(valid) / len(frames))
        if known is not None:
            distinct = {graph_key(frames[i].numbers, orders[i]) for i in valid}
            self.log(f"uniqueness/{suffix}", len(distinct) / max(1, len(valid)))
            self.log(f"novelty/{suffix}", len(distinct - known) / max(1, len(distinct)))
