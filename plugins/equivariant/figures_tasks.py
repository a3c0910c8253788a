"""What the task experiments show: errors side by side, forecasts, parity and molecular dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from plugins.equivariant.potentials import Trajectory

FLOOR = "#9aa5b1"


def forecast_errors(errors: Mapping[str, float], networks: Sequence[str]) -> Figure:
    """Test errors of networks (blue) and of straight lines (grey), on a logarithmic axis."""
    order = sorted(errors, key=errors.__getitem__)
    figure = Figure(figsize=(6.5, 0.5 + 0.42 * len(order)), layout="constrained")
    axes = figure.subplots()
    _bars(axes, order, [errors[name] for name in order], ["C0" if name in networks else FLOOR for name in order])
    axes.set_xscale("log")
    axes.set_xlim(0.5 * min(errors.values()), 2.2 * max(errors.values()))
    axes.set_xlabel("mean squared error of a coordinate, one time unit ahead")
    return figure


def forecasts(pos: Tensor, target: Tensor, forecast: Mapping[str, Tensor], size: int, systems: int = 4) -> Figure:
    """The first systems seen along z: where particles were, where they went, and where each network says.

    Args:
        pos, target: (N, 3) before and after.
        forecast: network -> (N, 3).
        size: particles of a system.
        systems: how many to show.
    """
    systems = min(systems, len(pos) // size)
    figure = Figure(figsize=(3.4 * systems, 3.9), layout="constrained")
    panels = figure.subplots(1, systems, squeeze=False)[0]
    for panel, start in zip(panels, range(0, systems * size, size), strict=True):
        own = slice(start, start + size)
        for a, b in zip(pos[own].tolist(), target[own].tolist(), strict=True):
            panel.annotate("", b[:2], a[:2], arrowprops={"arrowstyle": "->", "color": FLOOR})
        panel.scatter(*pos[own, :2].T, s=14, color=FLOOR, label="start")
        panel.scatter(*target[own, :2].T, s=60, facecolors="none", edgecolors="k", label="truth")
        for k, (name, points) in enumerate(forecast.items()):
            panel.scatter(*points[own, :2].T, s=26, marker="x+1234"[k % 6], color=f"C{k}", label=name)
        panel.set_aspect("equal", adjustable="datalim")
        panel.tick_params(labelsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3 + len(forecast))
    figure.suptitle("Charged particles, one time unit ahead")
    return figure


def potential_errors(metrics: Mapping[str, float], networks: Sequence[str]) -> Figure:
    """Mean absolute errors of forces and energies, and what rotations do to the energy."""
    figure = Figure(figsize=(11, 0.9 + 0.42 * len(networks)), layout="constrained")
    shown = (
        ("test_force_mae_mev_per_angstrom", "force MAE in meV/Å"),
        ("test_energy_mae_mev", "energy MAE in meV"),
        ("energy_spread_mev", "energy spread over rotations in meV"),
    )
    order = sorted(networks, key=lambda name: metrics.get(f"{shown[0][0]}/{name}", np.inf))
    for axes, (metric, label) in zip(figure.subplots(1, len(shown)), shown, strict=True):
        _bars(axes, order, [metrics.get(f"{metric}/{name}", np.nan) for name in order], ["C0"] * len(order))
        axes.margins(x=0.2)
        axes.set_xlabel(label)
    return figure


def parity(values: Mapping[str, Sequence[Tensor]]) -> Figure:
    """Predicted against true energies and forces.

    Args:
        values: network -> (energy, true energy, forces, true forces), in eV and eV/Å.
    """
    figure = Figure(figsize=(3.1 * len(values), 6.2), layout="constrained")
    panels = figure.subplots(2, len(values), squeeze=False)
    for column, (name, (energy, true_energy, forces, true_forces)) in enumerate(values.items()):
        for row, (made, true, label) in enumerate(
            ((energy, true_energy, "energy in eV"), (forces, true_forces, "force in eV/Å"))
        ):
            axes = panels[row, column]
            made, true = made.flatten()[:20_000], true.flatten()[:20_000]
            axes.scatter(true, made, s=3, alpha=0.3, linewidths=0, rasterized=True)
            axes.axline((float(true.mean()), float(true.mean())), slope=1, color="k", lw=0.8)
            axes.set_xlabel(f"true {label}", fontsize=9)
            if column == 0:
                axes.set_ylabel(f"predicted {label}", fontsize=9)
        panels[0, column].set_title(name)
    return figure


def dynamics(trajectories: Mapping[str, Trajectory]) -> Figure:
    """Total energy of each potential's molecular dynamics, relative to its start."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    largest = 0.0
    for name, trajectory in trajectories.items():
        change = 1000 * (trajectory.total - trajectory.total[0])
        axes.plot(trajectory.times, change, lw=1, label=name)
        largest = max(largest, float(np.abs(change).max()))
    if largest > 100:  # one that explodes must not flatten the others
        axes.set_yscale("symlog", linthresh=10)
    axes.set_xlabel("time in ps")
    axes.set_ylabel("total energy minus its start in meV")
    axes.set_title("NVE molecular dynamics")
    axes.legend()
    return figure


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> None:
    bars = axes.barh(range(len(names)), values, color=colours, height=0.62)
    axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=3, fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
