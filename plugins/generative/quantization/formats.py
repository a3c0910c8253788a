"""Formats by name: the standard ones, every split of a number of bits, and how they are written in a config."""

from __future__ import annotations

from collections.abc import Sequence

from plugins.generative.quantization.floating_point import FPFormat
from plugins.generative.quantization.integer import INTFormat

__all__ = [
    "E2M1",
    "E2M3",
    "E3M2",
    "E4M3FN",
    "E5M2",
    "FPFormat",
    "Format",
    "INTFormat",
    "fp_splits",
    "parse_format",
    "parse_formats",
]

Format = FPFormat | INTFormat

E4M3FN = FPFormat(4, 3, specials="fn")
E5M2 = FPFormat(5, 2, specials="ieee")
E3M2 = FPFormat(3, 2)
E2M3 = FPFormat(2, 3)
E2M1 = FPFormat(2, 1)


def fp_splits(bits: int, min_exponent_bits: int = 1) -> list[FPFormat]:
    """Every split of ``bits`` into sign, exponent and mantissa, all codes numbers, from few exponent bits to many.

    E = 1 is a uniform grid (sign and magnitude), so the list always holds the integers' competitor as well.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits={bits}: it must lie between 2 and 16")
    if not 0 <= min_exponent_bits < bits:
        raise ValueError(f"min_exponent_bits={min_exponent_bits}: it must lie between 0 and bits - 1 = {bits - 1}")
    return [FPFormat(e, bits - 1 - e) for e in range(min_exponent_bits, min(bits - 1, 8) + 1)]


def parse_format(name: str) -> Format:
    """``"E4M3FN"``, ``"E5M2"`` (with its IEEE specials), ``"E3M4"`` (any split, all codes numbers) or ``"INT8"``."""
    named = {"E4M3FN": E4M3FN, "E5M2": E5M2}
    key = name.upper()
    if key in named:
        return named[key]
    if key.startswith("INT") and key[3:].isdigit():
        return INTFormat(int(key[3:]))
    exponent, _, mantissa = key[1:].partition("M")
    if key.startswith("E") and exponent.isdigit() and mantissa.isdigit():
        return FPFormat(int(exponent), int(mantissa))
    raise ValueError(f"format {name!r}: write E<exponent bits>M<mantissa bits>, E4M3FN or INT<bits>")


def parse_formats(names: str | Sequence[str | Format]) -> tuple[Format, ...]:
    """One name or several; ``"FP8"`` stands for every split of 8 bits (:func:`fp_splits`)."""
    formats: list[Format] = []
    for name in [names] if isinstance(names, str) else names:
        if not isinstance(name, str):
            formats.append(name)
        elif name.upper().startswith("FP") and name[2:].isdigit():
            formats += fp_splits(int(name[2:]))
        else:
            formats.append(parse_format(name))
    return tuple(formats)
