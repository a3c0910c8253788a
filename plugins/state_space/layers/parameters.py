"""Which parameter trains how: groups by role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

ROLES = ("dynamics", "timescale", "input", "readout", "feedthrough")

# role → (learning rate, decayed); roles not named train like the rest of the network
_SLOW, _SLOW_DECAYED = ("ssm", False), ("ssm", True)
POLICIES: dict[str, dict[str, tuple[str, bool]]] = {
    "standard": {"dynamics": _SLOW, "timescale": _SLOW, "input": _SLOW},
    "BandCdecay": {"dynamics": _SLOW, "timescale": _SLOW, "input": _SLOW_DECAYED},
    "BfastandCdecay": {"dynamics": _SLOW, "timescale": _SLOW},
    "noBCdecay": dict.fromkeys(ROLES, _SLOW),
}


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    ssm_lr: float | None = None,
    policy: str = "standard",
    dt_global: bool = False,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
    frozen: tuple[str, ...] | list[str] = (),
) -> list[dict[str, Any]]:
    """Optimiser groups of a network with state-space layers.

    Args:
        model: any module; layers declare the roles of their parameters in ``roles``.
        lr, weight_decay: of everything without a slower rule; biases and normalisations are decayed too, as in S5.
        ssm_lr: of the state-space group, undecayed; min(lr, 1e-3) when omitted.
        policy: S5's ``standard``, ``BandCdecay``, ``BfastandCdecay`` or ``noBCdecay``.
        dt_global: step sizes train at ``lr`` with decay.
        overrides: role → {"lr": …, "weight_decay": …}, above the policy.
        frozen: roles that do not train; their parameters get ``requires_grad=False``.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and a ``name``.

    Raises:
        ValueError: unknown policy or role.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, not {policy!r}")
    overrides = overrides or {}
    for role in (*overrides, *frozen):
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, not {role!r}")
    rules = dict(POLICIES[policy])
    if dt_global:
        rules.pop("timescale", None)
    rates = {"ssm": min(lr, 1e-3) if ssm_lr is None else ssm_lr, "base": lr}
    role_of = {
        id(module.get_parameter(name)): role
        for module in model.modules()
        for name, role in getattr(module, "roles", {}).items()
        if _has(module, name)
    }
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for parameter in model.parameters():
        role = role_of.get(id(parameter), "")
        if role in frozen:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        rate, decayed = rules.get(role, ("base", True))
        values = {"lr": rates[rate], "weight_decay": weight_decay if decayed else 0.0, **overrides.get(role, {})}
        key = (values["lr"], values["weight_decay"])
        group = groups.setdefault(key, {"params": [], **values, "name": f"lr={key[0]:g},wd={key[1]:g}"})
        group["params"].append(parameter)
    return list(groups.values())


def _has(module: nn.Module, name: str) -> bool:
    try:
        return module.get_parameter(name) is not None
    except AttributeError:
        return False
