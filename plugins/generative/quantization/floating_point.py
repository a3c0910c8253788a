"""Floating-point formats of any exponent/mantissa split: rounding, codes, and the grid they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

__all__ = ["FPFormat", "grid_step"]

Specials = Literal["none", "fn", "ieee"]
Overflow = Literal["saturate", "special"]

# The exponent bits of a float, kept alone, are the power of two of its binade: what frexp finds, several times faster.
_EXPONENT_MASK = {torch.float32: (torch.int32, 0x7F800000), torch.float64: (torch.int64, 0x7FF0000000000000)}


def _binade(x: Tensor) -> Tensor:
    """2^floor(log2|x|) exactly, for every normal x; 0 for zeros and subnormals, inf for infinities and NaN."""
    integer, mask = _EXPONENT_MASK[x.dtype]
    return (x.view(integer) & mask).view(x.dtype)


def grid_step(x: Tensor, min_normal: float | Tensor, ulp: float | Tensor) -> Tensor:
    """Spacing of a floating-point grid around each x: ``ulp`` = 2^-M times its power of two, not below ``min_normal``.

    The general form behind :meth:`FPFormat.step`, for grids whose parameters are themselves tensors (powers of two,
    broadcastable against x); x is float32 or float64.
    """
    return _binade(x).clamp_(min=min_normal).mul_(ulp)


@dataclass(frozen=True)
class FPFormat:
    """Sign, ``exponent_bits`` (E) and ``mantissa_bits`` (M): values ±2^(e-bias)·(1 + m/2^M).

    The exponent code e = 0 holds the subnormals, spaced 2^(1-bias-M). E = 0 leaves only those: a fixed-point grid.

    Args:
        exponent_bits: E, 0 to 8.
        mantissa_bits: M, 0 to 23 (0 to 10 when E = 8, so that float64 holds every intermediate).
        bias: exponent bias b, any real number; ``None`` takes the standard 2^(E-1) - 1 (0 when E = 0).
            A real bias is the same thing as a scale, 2^(round(b) - b): formats that differ only in the bias have grids
            that differ only by a factor. :meth:`with_max` gives the bias for a wanted largest value.
        specials: what the top exponent code holds.
            ``"none"``: numbers only (E2M1 and the OCP FP6 formats, and the convention for searched formats);
            ``"fn"``: numbers, except that all ones is NaN (E4M3FN); ``"ieee"``: infinities and NaNs only (E5M2, half).

    Raises:
        ValueError: for widths outside these ranges, or where the special codes would leave no number.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: float = None  # type: ignore[assignment]  # the standard one is put in its place
    specials: Specials = "none"

    def __post_init__(self) -> None:
        e, m = self.exponent_bits, self.mantissa_bits
        if not 0 <= e <= 8:
            raise ValueError(f"exponent_bits={e}: it must lie between 0 and 8")
        if not 0 <= m <= 23:
            raise ValueError(f"mantissa_bits={m}: it must lie between 0 and 23")
        if e + m == 0:
            raise ValueError("exponent_bits=0 and mantissa_bits=0 hold no number but zero; give a bit to either")
        if self.specials not in ("none", "fn", "ieee"):
            raise ValueError(f"specials={self.specials!r}: choose 'none', 'fn' or 'ieee'")
        if self.specials == "ieee" and e < 2:
            raise ValueError(f"specials='ieee' needs exponent_bits >= 2, got {e}; choose specials='none'")
        if self.specials == "fn" and (e == 0 or (e == 1 and m == 0)):
            raise ValueError(f"specials='fn' leaves no normal number in E{e}M{m}; choose specials='none'")
        if self.bias is None:
            object.__setattr__(self, "bias", float(2 ** (e - 1) - 1) if e > 0 else 0.0)
        elif not math.isfinite(self.bias) or abs(self.bias) > 512:
            raise ValueError(f"bias={self.bias}: it must be finite and of size at most 512")

    @property
    def bits(self) -> int:
        """Width of one code, sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def name(self) -> str:
        return f"E{self.exponent_bits}M{self.mantissa_bits}" + ("FN" if self.specials == "fn" else "")

    @cached_property
    def _max_exponent_mantissa(self) -> tuple[int, float]:
        """Largest exponent code that holds a number, and the largest significand 1 + m/2^M in it."""
        e, m = self.exponent_bits, self.mantissa_bits
        top = 2**e - 1
        if self.specials == "ieee" or (self.specials == "fn" and m == 0):
            return top - 1, 2.0 - 2.0**-m
        if self.specials == "fn":
            return top, 2.0 - 2.0 ** (1 - m)
        return top, 2.0 - 2.0**-m

    @cached_property
    def max_value(self) -> float:
        """Largest finite value."""
        if self.exponent_bits == 0:
            return (2.0**self.mantissa_bits - 1) * self.min_subnormal
        code, significand = self._max_exponent_mantissa
        return 2.0 ** (code - self.bias) * significand

    @property
    def min_value(self) -> float:
        """Most negative finite value."""
        return -self.max_value

    @cached_property
    def min_normal(self) -> float:
        """Smallest normal value, 2^(1-bias)."""
        return 2.0 ** (1 - self.bias)

    @cached_property
    def min_subnormal(self) -> float:
        """Smallest positive value and spacing of the subnormals, 2^(1-bias-M)."""
        return 2.0 ** (1 - self.bias - self.mantissa_bits)

    def with_max(self, max_value: float) -> FPFormat:
        """The same split with the real bias that makes ``max_value`` the largest value.

        With every code a number this is b = 2^E - log2(c) + log2(2 - 2^-M) - 1 (Kuzmin et al., arXiv:2208.09225).
        """
        if not (math.isfinite(max_value) and max_value > 0):
            raise ValueError(f"max_value={max_value}: it must be finite and positive")
        bias = self.bias + math.log2(self.max_value) - math.log2(max_value)
        return FPFormat(self.exponent_bits, self.mantissa_bits, bias, self.specials)

    @cached_property
    def _integer_bias(self) -> int:
        return round(self.bias)

    @cached_property
    def _bias_scale(self) -> float:
        """Grid of this format = this factor times the grid of the rounded bias."""
        return 2.0 ** (self._integer_bias - self.bias)

    def _working_dtype(self, x: Tensor) -> torch.dtype:
        # float32 holds steps down to 2^-126 as normal numbers; wider ranges are worked in float64.
        lowest = 1 - self._integer_bias - self.mantissa_bits
        highest = self._max_exponent_mantissa[0] - self._integer_bias
        wide = lowest < -125 or highest > 126
        return torch.float64 if x.dtype == torch.float64 or wide else torch.float32

    def _step(self, x: Tensor) -> Tensor:
        """Spacing of the grid of the rounded bias around the finite ``x``, in the working dtype."""
        return grid_step(x, 2.0 ** (1 - self._integer_bias), 2.0**-self.mantissa_bits)

    def step(self, x: Tensor) -> Tensor:
        """Spacing of the grid around each element of ``x``, same shape and dtype; beyond the range, the edge's."""
        limit = self.max_value / self._bias_scale
        y = (x.detach().to(self._working_dtype(x)) / self._bias_scale).nan_to_num_(nan=0.0).clamp_(-limit, limit)
        return (self._step(y) * self._bias_scale).to(x.dtype)

    def quantize(self, x: Tensor, overflow: Overflow = "saturate") -> Tensor:
        """Nearest representable values, ties to the even mantissa; same shape and dtype as ``x``; no gradient.

        Signed zeros are kept, and NaN stays NaN in every format (the carrier holds it even where the codes do not).

        Args:
            overflow: ``"saturate"``: everything beyond the range, infinities too, becomes ±``max_value``.
                ``"special"``: what rounds beyond the range becomes ±inf (``"ieee"``) or NaN (``"fn"``), the casts of
                IEEE 754; a format without specials refuses it. torch's own casts are ``"special"`` for
                float8_e5m2; for float8_e4m3fn they were ``"special"`` and became ``"saturate"`` in later releases.

        Half-precision input is worked in float32, and the result rounded to what half precision can hold.
        """
        if overflow not in ("saturate", "special"):
            raise ValueError(f"overflow={overflow!r}: choose 'saturate' or 'special'")
        if overflow == "special" and self.specials == "none":
            raise ValueError(f"overflow='special': {self.name} has no code for infinity or NaN; choose 'saturate'")
        if not x.is_floating_point():
            raise ValueError(f"x has dtype {x.dtype}; give a floating-point tensor")
        dtype = self._working_dtype(x)
        x_ = x.detach().to(dtype)
        limit = self.max_value / self._bias_scale
        y = x_ if self._bias_scale == 1.0 else x_ / self._bias_scale
        # Everything past twice the limit overflows, so clamping there first only keeps the arithmetic finite.
        bounded = y.clamp(-2 * limit, 2 * limit) if overflow == "special" else y.clamp(-limit, limit)
        step = self._step(bounded)
        q = (bounded / step).round_() * step
        if overflow == "special":
            special = math.inf if self.specials == "ieee" else math.nan
            q = torch.where(q.abs() > limit, torch.copysign(torch.full_like(q, special), q), q)
        return (q if self._bias_scale == 1.0 else q * self._bias_scale).to(x.dtype)

    def values(self) -> Tensor:
        """All finite representable values >= 0, ascending, float64."""
        m = torch.arange(2**self.mantissa_bits, dtype=torch.float64) / 2**self.mantissa_bits
        grid = [m * 2.0**1]
        if self.exponent_bits:
            codes = torch.arange(1, self._max_exponent_mantissa[0] + 1, dtype=torch.float64)
            grid.append((torch.exp2(codes)[:, None] * (1 + m)).flatten())
        values = torch.cat(grid) * 2.0**-self.bias
        return values[values <= self.max_value * (1 + 1e-12)]

    def encode(self, x: Tensor, overflow: Overflow = "saturate") -> Tensor:
        """Bit patterns (sign, exponent, mantissa) of the nearest values, as uint8; formats of at most 8 bits.

        For E4M3FN and E5M2 these are torch's own float8 bits. NaN (all ones) needs a format with specials.
        """
        if self.bits > 8:
            raise ValueError(f"{self.name} takes {self.bits} bits; codes are stored in 8")
        q = self.quantize(x, overflow).to(torch.float64) / self._bias_scale
        sign = torch.signbit(q).to(torch.int64)
        magnitude = q.abs()
        finite = torch.isfinite(magnitude)
        if self.specials == "none" and not bool(finite.all()):
            raise ValueError(f"x holds NaN, for which {self.name} has no code; choose a format with specials")
        safe = torch.where(finite, magnitude, 0.0)
        step = self._step(safe)
        # units = 2^M + m in a normal binade and m among the subnormals, so the exponent code adds to it as a carry.
        units = torch.round(safe / step).to(torch.int64)
        exponent = torch.frexp(step).exponent.to(torch.int64) - 1 + self.mantissa_bits
        code = units + ((exponent + self._integer_bias - 1) << self.mantissa_bits)
        top = ((2**self.exponent_bits - 1) << self.mantissa_bits) if self.specials == "ieee" else 0
        code = torch.where(torch.isinf(magnitude), top, code)
        nan = 2 ** (self.bits - 1) - 1
        code = torch.where(torch.isnan(magnitude), nan, code)
        return (code | (sign << (self.bits - 1))).to(torch.uint8)

    def decode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of the bit patterns written by :meth:`encode`; same shape."""
        if self.bits > 8:
            raise ValueError(f"{self.name} takes {self.bits} bits; codes are stored in 8")
        magnitude = torch.full((2 ** (self.bits - 1),), math.nan, dtype=torch.float64)
        values = self.values()
        magnitude[: len(values)] = values
        if self.specials == "ieee":
            magnitude[len(values)] = math.inf
        table = torch.cat([magnitude, -magnitude]).to(device=codes.device, dtype=dtype)
        return table[codes.to(torch.int64)]
