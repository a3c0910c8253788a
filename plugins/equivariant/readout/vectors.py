"""Vectors from features on R^n, which hold no directions: combinations of displacements and given vectors."""

from __future__ import annotations

from torch import Tensor, nn

from plugins.equivariant.layers.messages import Messages


class PairVectors(nn.Module):
    """v_i = sum_j A [k(|r_ij|) * P x_j * Q x_i] r_ij + sum_k (B x_i)_k w_ik, with r_ij = p_j - p_i and given w.

    Args:
        hidden: width of x.
        basis_dim: functions of the kernel basis.
        in_vectors, out_vectors: numbers of given and of wanted vectors.
    """

    def __init__(self, hidden: int, basis_dim: int, in_vectors: int, out_vectors: int) -> None:
        super().__init__()
        self.kernel = nn.Linear(basis_dim, hidden, bias=False)
        self.sender, self.receiver = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.combine = nn.Linear(hidden, out_vectors, bias=False)
        self.given = nn.Linear(hidden, out_vectors * in_vectors) if in_vectors else None

    def forward(self, x: Tensor, basis: Tensor, messages: Messages, vec: Tensor | None) -> Tensor:
        """Features (N, C), basis (K, B) and given vectors (N, W, n) → (N, V, n)."""
        kernel, sent, received = self.kernel(basis), self.sender(x), self.receiver(x)
        out = x.new_zeros(len(x), self.combine.out_features, messages.rel.shape[-1])
        for sender, receiver, sign in messages.directions():
            pair = kernel * sent.index_select(0, sender) * received.index_select(0, receiver)
            out = out.index_add(0, receiver, sign * self.combine(pair)[..., None] * messages.rel[:, None])
        if self.given is not None and vec is not None:
            out = out + self.given(x).view(len(x), -1, vec.shape[1]) @ vec
        return out
