"""Linear recurrences x_k = a_k x_{k−1} + b_k for all k at once.

The default is an odd-even reduction (pair neighbours, solve the half-length recurrence of the odd places, fill in the
even ones): linear work, logarithmic depth, whole-tensor operations only. Its gradient is the reversed recurrence with
conjugate coefficients, so nothing but the result has to be kept.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BACKENDS = ("auto", "tree", "loop", "hop")


def associative_scan(
    a: Tensor, b: Tensor, initial: Tensor | None = None, reverse: bool = False, backend: str = "auto"
) -> Tensor:
    """Solve x_k = a_k x_{k−1} + b_k (or x_k = a_k x_{k+1} + b_k) along the second to last dimension.

    Args:
        a: constant coefficients of shape (P,), or one for each step, broadcastable to b's shape with L steps. Real or
            complex; constant ones may be more precise than b (complex128 with complex64), which keeps the phases of
            their high powers right.
        b: inputs, shape (..., L, P).
        initial: state before the first step (after the last one if reversed), shape (..., P); zero when omitted.
        reverse: run from the end.
        backend: ``tree``; ``loop``, one step after the other; ``hop``, PyTorch's prototype operator; ``auto``: tree.

    Returns:
        x, shape and dtype of b.

    Raises:
        ValueError: unknown backend, shapes that do not fit, or ``hop`` where PyTorch lacks it.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
    if b.ndim < 2:
        raise ValueError(f"b must have shape (..., L, P), not {tuple(b.shape)}")
    constant = a.ndim == 1
    if constant and a.shape != b.shape[-1:]:
        raise ValueError(f"constant coefficients must have shape {tuple(b.shape[-1:])}, not {tuple(a.shape)}")
    if not constant and (a.ndim > b.ndim or a.shape[-2] != b.shape[-2]):
        raise ValueError(f"coefficients of shape {tuple(a.shape)} do not fit inputs of shape {tuple(b.shape)}")
    if a.is_complex() and not b.is_complex():
        b = b.to(a.dtype)
    if b.shape[-2] == 0:
        return b.clone()
    if initial is not None:
        end = b.shape[-2] - 1 if reverse else 0
        coefficient = a if constant else a[..., end, :]
        first = (b.select(-2, end) + coefficient.to(b.dtype) * initial.to(b.dtype)).unsqueeze(-2)
        b = torch.cat([b[..., :-1, :], first] if reverse else [first, b[..., 1:, :]], dim=-2)
    if backend == "loop":
        return _loop(a.to(b.dtype), b, reverse)
    if backend == "hop":
        return _hop(a.to(b.dtype), b, reverse)
    if constant:
        return _ConstantScan.apply(a, b, reverse)
    return _VaryingScan.apply(a.to(b.dtype).expand(b.shape), b, reverse)


class _ConstantScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, reverse: bool) -> Tensor:
        x = _tree_constant(a, b, reverse)
        ctx.save_for_backward(a, x)
        ctx.reverse = reverse
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        a, x = ctx.saved_tensors
        grad_b = _tree_constant(a.conj(), grad, not ctx.reverse)
        grad_a = None
        if ctx.needs_input_grad[0]:
            later, earlier = (
                (grad_b[..., :-1, :], x[..., 1:, :]) if ctx.reverse else (grad_b[..., 1:, :], x[..., :-1, :])
            )
            grad_a = _sum_to((later * earlier.conj()).to(x.dtype), a)
        return grad_a, grad_b, None


class _VaryingScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, reverse: bool) -> Tensor:
        x = _tree_varying(a, b, reverse)
        ctx.save_for_backward(a, x)
        ctx.reverse = reverse
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        a, x = ctx.saved_tensors
        zero = torch.zeros_like(x[..., :1, :])
        if ctx.reverse:
            shifted = torch.cat([zero, a[..., :-1, :]], dim=-2)
            before = torch.cat([x[..., 1:, :], zero], dim=-2)
        else:
            shifted = torch.cat([a[..., 1:, :], zero], dim=-2)
            before = torch.cat([zero, x[..., :-1, :]], dim=-2)
        grad_b = _tree_varying(shifted.conj().resolve_conj(), grad, not ctx.reverse)
        return grad_b * before.conj(), grad_b, None


def _sum_to(terms: Tensor, like: Tensor) -> Tensor:
    """Sum over everything but the last dimension, as the real or complex gradient of ``like``."""
    total = terms.reshape(-1, terms.shape[-1]).sum(0)
    return (total if like.is_complex() else total.real).to(like.dtype)


def _tree_constant(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
    length = b.shape[-2]
    if length == 1:
        return b.clone()
    factor = a.to(b.dtype)
    half, odd = divmod(length, 2)
    x = torch.empty_like(b)
    even, uneven = b[..., 0 : 2 * half : 2, :], b[..., 1::2, :]
    if reverse:
        solved = b.new_empty(*b.shape[:-2], half + odd, b.shape[-1])
        torch.addcmul(even, factor, uneven, out=solved[..., :half, :])
        if odd:
            solved[..., half, :] = b[..., -1, :]
        solved = _tree_constant(a * a, solved, reverse)
        x[..., 0::2, :] = solved
        following = solved[..., 1:, :]
        count = following.shape[-2]
        torch.addcmul(b[..., 1 : 2 * count : 2, :], factor, following, out=x[..., 1 : 2 * count : 2, :])
        if not odd:
            x[..., -1, :] = b[..., -1, :]
        return x
    solved = _tree_constant(a * a, torch.addcmul(uneven, factor, even), reverse)
    x[..., 1::2, :] = solved
    x[..., 0, :] = b[..., 0, :]
    count = half - 1 + odd
    torch.addcmul(b[..., 2::2, :], factor, solved[..., :count, :], out=x[..., 2::2, :])
    return x


def _tree_varying(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
    length = b.shape[-2]
    if length == 1:
        return b.clone()
    half, odd = divmod(length, 2)
    x = torch.empty_like(b)
    a_even, a_uneven = a[..., 0 : 2 * half : 2, :], a[..., 1::2, :]
    b_even, b_uneven = b[..., 0 : 2 * half : 2, :], b[..., 1::2, :]
    if reverse:
        short_a, short_b = a_even * a_uneven, torch.addcmul(b_even, a_even, b_uneven)
        if odd:
            short_a = torch.cat([short_a, a[..., -1:, :]], dim=-2)
            short_b = torch.cat([short_b, b[..., -1:, :]], dim=-2)
        solved = _tree_varying(short_a, short_b, reverse)
        x[..., 0::2, :] = solved
        following = solved[..., 1:, :]
        count = following.shape[-2]
        x[..., 1 : 2 * count : 2, :] = torch.addcmul(
            b[..., 1 : 2 * count : 2, :], a[..., 1 : 2 * count : 2, :], following
        )
        if not odd:
            x[..., -1, :] = b[..., -1, :]
        return x
    solved = _tree_varying(a_even * a_uneven, torch.addcmul(b_uneven, a_uneven, b_even), reverse)
    x[..., 1::2, :] = solved
    x[..., 0, :] = b[..., 0, :]
    count = half - 1 + odd
    x[..., 2::2, :] = torch.addcmul(b[..., 2::2, :], a[..., 2::2, :], solved[..., :count, :])
    return x


def _loop(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
    length = b.shape[-2]
    state = torch.zeros_like(b[..., 0, :])
    states = []
    for k in reversed(range(length)) if reverse else range(length):
        state = (a if a.ndim == 1 else a[..., k, :]) * state + b[..., k, :]
        states.append(state)
    return torch.stack(states[::-1] if reverse else states, dim=-2)


@functools.cache
def hop_available() -> bool:
    """Whether this PyTorch's prototype ``associative_scan`` operator works here, found by running it."""
    try:
        a = torch.full((3, 2), 0.5, dtype=torch.complex64)
        x = _hop(a, torch.ones_like(a), False)
        return bool(torch.allclose(x[-1], torch.full_like(x[-1], 1.75)))
    except Exception:
        return False


def _hop(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
    try:
        from torch._higher_order_ops.associative_scan import associative_scan as operator
    except ImportError:
        raise ValueError("this PyTorch has no associative_scan operator; use backend='tree'") from None

    def combine(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    return operator(
        combine, (a.expand(b.shape).contiguous(), b), dim=b.ndim - 2, reverse=reverse, combine_mode="generic"
    )[1]
