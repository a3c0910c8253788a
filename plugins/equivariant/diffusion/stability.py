"""Is a cloud of atoms a molecule? Bonds from distances alone, valences, fragments.

The tables hold typical lengths of single, double and triple bonds in picometres; a pair is bonded with the highest
order whose length plus a margin (10, 5, 3 pm) exceeds the distance, as in Hoogeboom et al. 2022. Distances cannot tell
aromatic bonds: of benzene at its textbook geometry only the six hydrogen atoms come out with their valence.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np

from plugins.equivariant.molecules import SYMBOLS

VALENCES = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1}
"""Atomic number → bonds that a neutral atom makes."""

_SINGLE = {
    (1, 1): 74, (1, 6): 109, (1, 7): 101, (1, 8): 96, (1, 9): 92,
    (6, 6): 154, (6, 7): 147, (6, 8): 143, (6, 9): 135,
    (7, 7): 145, (7, 8): 140, (7, 9): 136,
    (8, 8): 148, (8, 9): 142, (9, 9): 142,
}  # fmt: skip
_DOUBLE = {(6, 6): 134, (6, 7): 129, (6, 8): 120, (7, 7): 125, (7, 8): 121, (8, 8): 121}
_TRIPLE = {(6, 6): 120, (6, 7): 116, (6, 8): 113, (7, 7): 110}
_MARGINS = (10, 5, 3)


def _limits() -> np.ndarray:
    """(3, 10, 10) largest distance in angstrom of each bond order, 0 where there is no such bond."""
    limits = np.zeros((3, 10, 10))
    for order, (lengths, margin) in enumerate(zip((_SINGLE, _DOUBLE, _TRIPLE), _MARGINS, strict=True)):
        for (a, b), length in lengths.items():
            limits[order, a, b] = limits[order, b, a] = (length + margin) / 100
    return limits


_LIMITS = _limits()


def bond_orders(numbers: np.ndarray, pos: np.ndarray) -> np.ndarray:
    """(n, n) symmetric bond orders 0 to 3, zero on the diagonal.

    Args:
        numbers: (n,) atomic numbers among H, C, N, O, F.
        pos: (n, 3) in angstrom.

    Raises:
        ValueError: another element.
    """
    numbers, pos = np.asarray(numbers), np.asarray(pos, dtype=np.float64)
    if strange := sorted(set(numbers.tolist()) - set(VALENCES)):
        raise ValueError(f"bond lengths are known for H, C, N, O and F, not for atomic numbers {strange}")
    distance = np.linalg.norm(pos[:, None] - pos[None], axis=-1)
    orders = (distance < _LIMITS[:, numbers[:, None], numbers[None]]).cumprod(0).sum(0)
    np.fill_diagonal(orders, 0)
    return orders


def stable_atoms(numbers: np.ndarray, pos: np.ndarray) -> np.ndarray:
    """(n,) whether each atom has exactly the bonds of its valence."""
    allowed = np.array([VALENCES.get(int(z), -1) for z in numbers])
    return bond_orders(numbers, pos).sum(1) == allowed


def fragments(orders: np.ndarray) -> int:
    """Number of pieces that no bond joins."""
    from scipy.sparse.csgraph import connected_components

    return int(connected_components(orders > 0, directed=False)[0])


def formula(numbers: np.ndarray) -> str:
    """Sum formula, C and H first: "C2H6O"."""
    counts = Counter(SYMBOLS[z] for z in numbers)
    order = sorted(counts, key=lambda symbol: ({"C": 0, "H": 1}.get(symbol, 2), symbol))
    return "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in order)


def graph_key(numbers: np.ndarray, orders: np.ndarray) -> str:
    """A name of the bonded graph that does not depend on the order of atoms (Weisfeiler-Leman refinement).

    Equal molecules have equal names; different ones of this size almost always different names.
    """
    labels = [str(int(z)) for z in numbers]
    for _ in range(len(labels)):
        around = [sorted(f"{orders[i, j]}{labels[j]}" for j in np.flatnonzero(orders[i])) for i in range(len(labels))]
        labels = [
            hashlib.sha256(f"{label}|{','.join(near)}".encode()).hexdigest()[:16]
            for label, near in zip(labels, around, strict=True)
        ]
    return formula(numbers) + "-" + hashlib.sha256(",".join(sorted(labels)).encode()).hexdigest()[:12]
