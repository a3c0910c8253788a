"""Molecules from noise with the solvers of the generative plugin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plugins.equivariant.graphs import Graph, fully_connected
from plugins.equivariant.molecules import Frame
from plugins.generative.parameterizations import EDMDenoiser
from plugins.generative.solvers import Solver

from .noise import decode, noise_like
from .objective import MoleculeDenoiser


@torch.no_grad()
def sample_molecules(
    denoiser: MoleculeDenoiser,
    sizes: Sequence[int],
    table: Tensor,
    length: float,
    solver: Solver,
    sigmas: Tensor,
    sigma_data: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[Frame]:
    """One molecule for each size, all integrated as one state.

    Args:
        denoiser: the trained raw network.
        sizes: numbers of atoms, each at least 1.
        table: (S,) atomic numbers of the types.
        length: angstrom of the state's unit.
        solver, sigmas: of ``plugins.generative``; a stochastic solver gets noise without centre of mass.
        sigma_data: of training.
        generator: of the initial noise, on the CPU.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes must be numbers of atoms, each at least 1, not {list(sizes)}")
    parameter = next(denoiser.parameters())
    device, dtype = parameter.device, parameter.dtype
    counts = torch.tensor(list(sizes))
    batch = torch.repeat_interleave(counts).to(device)
    edges = fully_connected(list(sizes)).to(device)
    state = torch.zeros(len(batch), 3 + len(table), dtype=dtype)
    graph = Graph(state[:, :3].to(device), state[:, :1].to(device), edges, batch, len(sizes))

    def noise(_: float = 0, __: float = 0) -> Tensor:
        return noise_like(state, batch.cpu(), len(sizes), generator).to(device)

    model = EDMDenoiser(lambda x, c_noise: denoiser(graph, x, c_noise), sigma_data)
    final = solver.sample(model, noise() * float(sigmas[0]), sigmas, noise=noise if solver.stochastic else None)
    pos, numbers = decode(final, table, length)
    pieces = zip(pos.double().cpu().split(counts.tolist()), numbers.cpu().split(counts.tolist()), strict=True)
    return [Frame(number.numpy(), piece.numpy()) for piece, number in pieces]
