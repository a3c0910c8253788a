"""Denoising of molecules with the preconditioning of Karras et al. 2022, in the subspace without centre of mass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.equivariant.graphs import Graph
from plugins.generative.parameterizations import EDMDenoiser

from .noise import centre, noise_like


class MoleculeDenoiser(nn.Module):
    """The raw network F of EDM: a scaled state and a noise level → a direction in the state's space.

    Positions are the graph's, types and noise level its scalars; the network's vector answers for positions, its
    scalars for types. The position part is centred, so that a state without centre of mass keeps none.

    Args:
        network: takes S + 1 scalars and gives S scalars and one vector.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def inputs(self, graph: Graph) -> Graph:
        """What the network sees of a state (``pos`` and ``x`` of the graph) at noise level 1, for calibration."""
        return graph.replace(x=torch.cat([graph.x, graph.x.new_zeros(len(graph.x), 1)], dim=1), y={})

    def forward(self, graph: Graph, state: Tensor, c_noise: Tensor) -> Tensor:
        """(N, 3 + S).

        Args:
            graph: which atoms interact; its positions and features are not looked at.
            state: (N, 3 + S), scaled by c_in.
            c_noise: (N,) log(sigma) / 4 of each atom.
        """
        pos = state[:, :3]
        scalars, vectors = self.network(
            graph.replace(pos=pos, x=torch.cat([state[:, 3:], c_noise[:, None]], dim=1), y={})
        )
        return torch.cat([centre(vectors[:, 0], graph.batch, graph.num_graphs), scalars], dim=1)


def denoising_loss(
    denoiser: MoleculeDenoiser,
    graph: Graph,
    state: Tensor,
    sigma: Tensor,
    sigma_data: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The weighted squared error of the denoised state, a mean over atoms and coordinates.

    With weight (sigma^2 + s^2) / (sigma s)^2 it is the unweighted error of the raw network's target
    (x0 - c_skip x) / c_out, in which form it is computed.

    Args:
        denoiser: the raw network.
        graph: batch of G molecules.
        state: (N, 3 + S) clean, without centre of mass.
        sigma: (G,) noise levels, positive.
        sigma_data: s, standard deviation of the states.
        generator: of the noise.
    """
    level = sigma[graph.batch]
    noisy = state + level[:, None] * noise_like(state, graph.batch, graph.num_graphs, generator)
    c_skip, c_out, c_in, c_noise = EDMDenoiser(denoiser, sigma_data).coefficients(level)  # type: ignore[arg-type]
    target = (state - c_skip[:, None] * noisy) / c_out[:, None]
    return (denoiser(graph, c_in[:, None] * noisy, c_noise) - target).square().mean()
