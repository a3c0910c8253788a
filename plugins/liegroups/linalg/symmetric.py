"""Exponential, logarithm and square root of symmetric matrices, differentiable at repeated eigenvalues.

``torch.linalg.eigh`` divides by eigenvalue gaps in its backward pass and gives NaN at the identity. Here the backward
pass is the Daleckii-Krein formula ``dF = V (L * (V^T dA V)) V^T`` with the divided differences ``L`` of f evaluated
without cancellation (Higham, Functions of Matrices, 2008, theorem 3.11).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plugins.liegroups.linalg.scalar import atanhc_of_square, stumpff


def exp_divided_differences(x: Tensor) -> Tensor:
    """[..., n] -> [..., n, n]: ``(e^a - e^b) / (a - b)`` as ``e^{(a+b)/2} sinhc((a-b)/2)``, exact at a = b."""
    a, b = x.unsqueeze(-1), x.unsqueeze(-2)
    return torch.exp((a + b) / 2) * stumpff(1, -(((a - b) / 2) ** 2))


def log_divided_differences(x: Tensor) -> Tensor:
    """[..., n] of positive values -> [..., n, n]: ``(log a - log b) / (a - b)``, exact at a = b."""
    a, b = x.unsqueeze(-1), x.unsqueeze(-2)
    ratio = (a - b) / (a + b)
    return 2 / (a + b) * atanhc_of_square(ratio * ratio)


def sqrt_divided_differences(x: Tensor) -> Tensor:
    """[..., n] of positive values -> [..., n, n]: ``(sqrt a - sqrt b) / (a - b) = 1 / (sqrt a + sqrt b)``."""
    root = x.sqrt()
    return 1 / (root.unsqueeze(-1) + root.unsqueeze(-2))


_FUNCTIONS = {
    "exp": (torch.exp, exp_divided_differences),
    "log": (torch.log, log_divided_differences),
    "sqrt": (torch.sqrt, sqrt_divided_differences),
}


class _SpectralFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, matrix: Tensor, name: str) -> Tensor:
        # float64 whatever the input: these matrices are tiny, and float32 would lose half the digits
        values, vectors = torch.linalg.eigh((matrix + matrix.mT).to(torch.float64) / 2)
        if name != "exp" and values.numel() and bool((values[..., 0] <= 0).any()):
            smallest = float(values[..., 0].min())
            raise ValueError(
                f"sym_{name}: the matrix is not positive definite (smallest eigenvalue {smallest:.3g}); "
                "pass g g^T of an invertible g, or clamp the eigenvalues first"
            )
        ctx.name = name
        ctx.save_for_backward(values, vectors)
        applied = _FUNCTIONS[name][0](values)
        return ((vectors * applied.unsqueeze(-2)) @ vectors.mT).to(matrix.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        values, vectors = ctx.saved_tensors
        differences = _FUNCTIONS[ctx.name][1](values)
        g = grad.to(values.dtype)
        g = (g + g.mT) / 2
        out = vectors @ (differences * (vectors.mT @ g @ vectors)) @ vectors.mT
        return out.to(grad.dtype), None


def sym_exp(matrix: Tensor) -> Tensor:
    """Exponential of symmetric ``matrix`` [..., n, n]; the result is symmetric positive definite."""
    return _SpectralFunction.apply(matrix, "exp")


def sym_log(matrix: Tensor) -> Tensor:
    """Logarithm of symmetric positive definite ``matrix`` [..., n, n]. Raises ValueError where it is not definite."""
    return _SpectralFunction.apply(matrix, "log")


def sym_sqrt(matrix: Tensor) -> Tensor:
    """Square root of symmetric positive definite ``matrix`` [..., n, n]. Raises ValueError where not definite."""
    return _SpectralFunction.apply(matrix, "sqrt")
