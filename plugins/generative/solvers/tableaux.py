"""Explicit Runge-Kutta tableaux: rows of the stage matrix (row sums are the nodes), then the weights."""

from __future__ import annotations

Tableau = tuple[tuple[float, ...], ...]

EULER: Tableau = ((), (1.0,))
HEUN2: Tableau = ((), (1.0,), (1 / 2, 1 / 2))
KUTTA3: Tableau = ((), (1 / 2,), (-1.0, 2.0), (1 / 6, 4 / 6, 1 / 6))
RALSTON3: Tableau = ((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9))
HEUN3: Tableau = ((), (1 / 3,), (0.0, 2 / 3), (1 / 4, 0.0, 3 / 4))
VAN_DER_HOUWEN3: Tableau = ((), (8 / 15,), (1 / 4, 5 / 12), (1 / 4, 0.0, 3 / 4))
SSPRK3: Tableau = ((), (1.0,), (1 / 4, 1 / 4), (1 / 6, 1 / 6, 2 / 3))
RK4: Tableau = ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6))

TABLEAUX: dict[str, tuple[int, Tableau]] = {
    "euler": (1, EULER),
    "heun2": (2, HEUN2),
    "kutta3": (3, KUTTA3),
    "ralston3": (3, RALSTON3),
    "heun3": (3, HEUN3),
    "van_der_houwen3": (3, VAN_DER_HOUWEN3),
    "ssprk3": (3, SSPRK3),
    "rk4": (4, RK4),
}
"""Name -> (order, tableau)."""

RK_STARTERS: dict[int, Tableau] = {1: EULER, 2: HEUN2, 3: KUTTA3, 4: RK4}
"""The method that starts a multistep solver of a given order (the last one serves all higher orders)."""
