"""What people would rather look at than read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

Condition = tuple[float, float] | None


def robustness(table: Mapping[str, Tensor], conditions: Sequence[Condition]) -> Figure:
    """Accuracy against amplitude at each frequency, one panel per frequency; bands span the replicas.

    Args:
        table: layer → (replicas, conditions) accuracies in [0, 1].
        conditions: None (clean) or (ω, amplitude), in the table's order.
    """
    noisy = [c for c in conditions if c is not None]
    omegas = sorted({c[0] for c in noisy})
    figure = Figure(figsize=(3.2 * len(omegas) + 1.2, 3.6), layout="constrained")
    axes = figure.subplots(1, len(omegas), sharey=True, squeeze=False)[0]
    clean = conditions.index(None)
    for ax, omega in zip(axes, omegas, strict=True):
        amplitudes = sorted({c[1] for c in noisy if c[0] == omega})
        columns = [clean, *(conditions.index((omega, a)) for a in amplitudes)]
        for name, accuracy in table.items():
            values = 100 * accuracy[:, columns]
            (line,) = ax.plot([0, *amplitudes], values.mean(0), "o-", label=name)
            ax.fill_between([0, *amplitudes], values.amin(0), values.amax(0), color=line.get_color(), alpha=0.2)
        ax.set_title(f"ω = {omega:g}")
        ax.set_xlabel("noise amplitude")
        ax.set_ylim(0, 100)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("test accuracy (%)")
    axes[-1].legend(loc="lower left")
    figure.suptitle("Fourier-mode noise at every layer's input (bands: smallest to largest over seeds)")
    return figure


def quality(sizes: Sequence[int], curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Deviation and condition number against the state size.

    Args:
        sizes: state sizes n.
        curves: name → (deviation, κ) for each size; a NaN leaves a gap.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, values in curves.items():
        left.loglog(sizes, [v[0] for v in values], "o-", base=10, label=name)
        right.loglog(sizes, [v[1] for v in values], "o-", base=10, label=name)
    left.set_ylabel("largest deviation from HiPPO-LegS")
    right.set_ylabel("eigenvectors' condition number")
    for ax in (left, right):
        ax.set_xlabel("state size n")
        ax.set_xticks(list(sizes), [str(n) for n in sizes])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle("Perturb-then-diagonalise against dropping the low-rank term")
    return figure


def transfer_functions(omega: Tensor, curves: Mapping[str, Tensor], n: int) -> Figure:
    """|error| of resolvents against frequency, on two logarithmic axes.

    Args:
        omega: (m,) frequencies.
        curves: name → (m,) values of ‖X(iω) − X_HiPPO(iω)‖₂, and the HiPPO norm itself.
        n: state size, for the title.
    """
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    ax = figure.subplots()
    order = torch.argsort(omega)
    for name, values in curves.items():
        reference = name == "HiPPO-LegS"
        ax.loglog(
            omega[order],
            values[order].clamp_min(1e-12),
            label=f"‖X‖ of {name}" if reference else f"deviation of {name}",
            color="black" if reference else None,
            linestyle="--" if reference else "-",
            linewidth=1.2,
        )
    ax.set_ylim(1e-8, None)
    ax.set_xlabel("angular frequency ω")
    ax.set_ylabel("2-norm over the n states")
    ax.grid(alpha=0.3)
    ax.legend(loc="lower left")
    ax.set_title(f"Resolvent (iω − A)⁻¹B at n = {n}: S4D has spikes at the eigenvalues' frequencies")
    return figure


def linearity(sizes: Sequence[float], deviations: Sequence[float], bounds: Sequence[float]) -> Figure:
    """Deviation against ‖E‖₂ with the a-priori bound, on two logarithmic axes."""
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    ax = figure.subplots()
    ax.loglog(sizes, deviations, "o", markersize=3, label="random perturbations")
    ax.loglog(sizes, bounds, "k--", label="bound 2ε/(1−2ε)")
    ax.set_xlabel("ε = ‖E‖₂")
    ax.set_ylabel("deviation from HiPPO-LegS")
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def times(names: Sequence[str], forward: Sequence[float], backward: Sequence[float]) -> Figure:
    """Bars of milliseconds, forward and backward stacked."""
    figure = Figure(figsize=(8, 0.45 * len(names) + 1.4), layout="constrained")
    ax = figure.subplots()
    places = list(range(len(names)))[::-1]
    ax.barh(places, forward, label="forward")
    ax.barh(places, backward, left=forward, label="backward")
    ax.set_yticks(places, list(names))
    ax.set_xlabel("milliseconds, best of several")
    ax.legend()
    ax.grid(axis="x", alpha=0.3)
    return figure


def memory(lengths: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Peak memory of one forward and backward pass against the sequence length.

    Args:
        lengths: sequence lengths L.
        curves: name → MiB for each length.
    """
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    ax = figure.subplots()
    for name, values in curves.items():
        ax.loglog(lengths, values, "o-", base=2, label=name)
    ax.set_xticks(list(lengths), [f"{length:,}" for length in lengths])
    ax.minorticks_off()
    ax.set_xlabel("sequence length L")
    ax.set_ylabel("peak memory (MiB)")
    ax.set_title("One forward and backward pass of one sequence")
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def comparison(table: Mapping[str, Sequence[float]]) -> Figure:
    """Test accuracy of each layer: a bar at the mean, a dot for each seed.

    Args:
        table: layer → accuracies in [0, 1], one for each seed.
    """
    figure = Figure(figsize=(1.1 * len(table) + 2.5, 3.8), layout="constrained")
    ax = figure.subplots()
    places = range(len(table))
    means = [100 * sum(values) / len(values) for values in table.values()]
    ax.bar(places, means, alpha=0.5)
    for place, mean, values in zip(places, means, table.values(), strict=True):
        ax.plot([place] * len(values), [100 * v for v in values], "k.", markersize=6)
        ax.annotate(f"{mean:.1f}", (place, 2), ha="center")
    ax.set_xticks(list(places), list(table))
    ax.set_ylim(0, 100)
    ax.set_ylabel("test accuracy (%)")
    ax.set_title("Mean over seeds (bars) and each seed (dots)", fontsize=10)
    ax.grid(axis="y", alpha=0.3)
    return figure
