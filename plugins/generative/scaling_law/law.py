"""The scaling law of floating-point quantized training and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plugins.generative.quantization.floating_point import FPFormat

__all__ = ["CHANNEL_BLOCK_SIZE", "PUBLISHED", "ScalingLaw"]

CHANNEL_BLOCK_SIZE = 2.0**13.1567
"""Block size that stands for one scale a channel (Sun et al. 2025, section 3.6)."""


def _positive(**values: ArrayLike) -> list[NDArray[np.float64]]:
    arrays = []
    for name, value in values.items():
        array = np.asarray(value, dtype=np.float64)
        if not np.all(np.isfinite(array) & (array > 0)):
            raise ValueError(f"{name} must be finite and positive, got {value}")
        arrays.append(array)
    return arrays


def _bits(**values: ArrayLike) -> list[NDArray[np.float64]]:
    arrays = []
    for name, value in values.items():
        array = np.asarray(value, dtype=np.float64)
        if not np.all(np.isfinite(array) & (array >= 0)):
            raise ValueError(f"{name} must be finite and not negative, got {value}")
        arrays.append(array)
    return arrays


def _blocks(block_size: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(block_size, dtype=np.float64)
    if not np.all(np.isfinite(array) & (array >= 1)):
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    return array


@dataclass(frozen=True)
class ScalingLaw:
    """L(N, D, E, M, B) = n/N^α + d/D^β + ε + (D^β/N^α)·log2(B) / (γ (E+½)^δ (M+½)^ν).

    N parameters, D training samples (tokens), E exponent and M mantissa bits of the quantized matrix products, one
    scale for every block of B elements. The last term is what low precision costs: the "knowledge intensity" D^β/N^α
    times the information lost. B = 1 means full precision (every element has its own scale), and the law becomes
    Chinchilla's; γ may be infinite, when precision costs nothing. All methods broadcast over array arguments and work
    in float64.

    Source: Sun et al., "Scaling Laws for Floating-Point Quantization Training", ICML 2025, arXiv:2501.02423v3, eq. 26.
    The constants of :data:`PUBLISHED` are those of its Table 2, fitted to 358 language-model runs with 41 to 679
    million parameters and 10 to 100 billion tokens.
    """

    n: float
    alpha: float
    d: float
    beta: float
    epsilon: float
    gamma: float
    delta: float
    nu: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            finite = np.isfinite(value) or (field.name == "gamma" and value == np.inf)
            if not finite or value < 0 or (value == 0 and field.name in ("alpha", "beta", "gamma")):
                raise ValueError(
                    f"{field.name}={value}: constants must be finite and not negative, alpha, beta and gamma positive"
                )

    def information_loss(
        self, exponent_bits: ArrayLike, mantissa_bits: ArrayLike, block_size: ArrayLike
    ) -> NDArray[np.float64]:
        """log2(B) / (γ (E+½)^δ (M+½)^ν): what multiplies the knowledge intensity."""
        e, m = _bits(exponent_bits=exponent_bits, mantissa_bits=mantissa_bits)
        return np.log2(_blocks(block_size)) / (self.gamma * (e + 0.5) ** self.delta * (m + 0.5) ** self.nu)

    def precision_penalty(
        self,
        parameters: ArrayLike,
        tokens: ArrayLike,
        exponent_bits: ArrayLike,
        mantissa_bits: ArrayLike,
        block_size: ArrayLike,
    ) -> NDArray[np.float64]:
        """The last term of the law, ρ."""
        big_n, big_d = _positive(parameters=parameters, tokens=tokens)
        loss = self.information_loss(exponent_bits, mantissa_bits, block_size)
        return big_d**self.beta / big_n**self.alpha * loss

    def loss(
        self,
        parameters: ArrayLike,
        tokens: ArrayLike,
        exponent_bits: ArrayLike,
        mantissa_bits: ArrayLike,
        block_size: ArrayLike,
    ) -> NDArray[np.float64]:
        """L(N, D, E, M, B); every argument may be an array.

        Raises:
            ValueError: for N or D not positive, negative bits, or a block size below 1.
        """
        big_n, big_d = _positive(parameters=parameters, tokens=tokens)
        penalty = self.precision_penalty(parameters, tokens, exponent_bits, mantissa_bits, block_size)
        return self.n / big_n**self.alpha + self.d / big_d**self.beta + self.epsilon + penalty

    def loss_gradient_in_tokens(
        self,
        parameters: ArrayLike,
        tokens: ArrayLike,
        exponent_bits: ArrayLike,
        mantissa_bits: ArrayLike,
        block_size: ArrayLike,
    ) -> NDArray[np.float64]:
        """∂L/∂D: negative below the critical data size, positive above."""
        (big_d,) = _positive(tokens=tokens)
        penalty = self.precision_penalty(parameters, tokens, exponent_bits, mantissa_bits, block_size)
        return self.beta / big_d * (penalty - self.d / big_d**self.beta)

    def critical_tokens(
        self, parameters: ArrayLike, exponent_bits: ArrayLike, mantissa_bits: ArrayLike, block_size: ArrayLike
    ) -> NDArray[np.float64]:
        """D beyond which more data raises the loss, [d γ N^α (E+½)^δ (M+½)^ν / log2 B]^(1/2β); infinite at B = 1."""
        (big_n,) = _positive(parameters=parameters)
        loss = self.information_loss(exponent_bits, mantissa_bits, block_size)
        with np.errstate(divide="ignore"):
            return (self.d * big_n**self.alpha / loss) ** (1 / (2 * self.beta))

    def optimal_layout(self, bits: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Real-valued (E, M) of least loss at P = E + M + 1 bits: δP/(δ+ν) - ½ and νP/(δ+ν) - ½ (their eq. 19).

        Not below zero bits: where the formula leaves that range, all bits go to the other field.
        """
        p = np.asarray(bits, dtype=np.float64)
        if not np.all(p >= 1):
            raise ValueError(f"bits must be at least 1 (the sign), got {bits}")
        mantissa = np.clip(self.nu * p / (self.delta + self.nu) - 0.5, 0, p - 1)
        return p - 1 - mantissa, mantissa

    def optimal_format(self, bits: int) -> FPFormat:
        """The split of ``bits`` (2 to 16) with the least loss among all whole ones of at most 8 exponent bits."""
        if not 2 <= bits <= 16:
            raise ValueError(f"bits={bits}: it must lie between 2 and 16")
        exponent = np.arange(0, min(bits - 1, 8) + 1)
        best = int(exponent[np.argmin(self.information_loss(exponent, bits - 1 - exponent, 2.0))])
        return FPFormat(best, bits - 1 - best)

    def optimal_precision(self, tokens: ArrayLike, block_size: ArrayLike) -> NDArray[np.float64]:
        """Bits P of least loss for a fixed compute budget C ∝ P·N·D and data size, N following from both (eq. 47).

        P^(δ+ν) = D^β log2(B) (δ+ν-α) / (n α γ_ρ), with γ_ρ = γ δ^δ ν^ν / (δ+ν)^(δ+ν) and the optimal layout.
        """
        (big_d,) = _positive(tokens=tokens)
        total = self.delta + self.nu
        if total <= self.alpha:
            raise ValueError(
                f"delta + nu = {total} must exceed alpha = {self.alpha}: else fewer bits are always better"
            )
        gamma_rho = self.gamma * self.delta**self.delta * self.nu**self.nu / total**total
        ratio = (
            big_d**self.beta * np.log2(_blocks(block_size)) * (total - self.alpha) / (self.n * self.alpha * gamma_rho)
        )
        return ratio ** (1 / total)


PUBLISHED = ScalingLaw(
    n=69.2343,
    alpha=0.2368,
    d=68973.0621,
    beta=0.5162,
    epsilon=1.9061,
    gamma=11334.5197,
    delta=3.1926,
    nu=2.9543,
)
"""The constants of arXiv:2501.02423v3, Table 2, checked against the paper's text.

They give back the paper's own consequences: the layouts of its Figure 5 (E2M1, E4M3, E8M7 at 4, 8, 16 bits), and
critical data sizes of 1730, 27 and 0.4 trillion tokens for one billion parameters at B = 128 in E8M7, E4M3, E2M1."""
