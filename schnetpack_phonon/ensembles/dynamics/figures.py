"""Traces of molecular dynamics, to see whether it is in equilibrium."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from schnetpack_phonon.common.style import color, grid
from schnetpack_phonon.ensembles.dynamics.langevin import Stretch
from schnetpack_phonon.ensembles.dynamics.trajectories import Trajectories
from schnetpack_phonon.structures.crystals import shortest_distance

_LABELS = (
    "temperature (K)",
    "potential energy\n(meV/atom)",
    "rms displacement\nper component (Å)",
    "shortest distance (Å)",
)


def traces(name: str, runs: Mapping[float, Trajectories]) -> Figure:
    """Temperature, energy, rms displacement and shortest distance, a column for each temperature.

    Args:
        name: of the crystal.
        runs: by temperature in K, at least as long as their equilibration.
    """
    figure, axes = grid(len(_LABELS), len(runs), (3.4, 1.5), (0.8, 0.4), sharex="col")
    for column, (temperature, run) in zip(axes.T, sorted(runs.items()), strict=True):
        start = run.n_equilibration * run.dynamics.stretch_time
        for k, stretches in enumerate(run.replicas):
            values = np.concatenate([_values(run, stretch) for stretch in stretches], axis=1)
            times = run.dynamics.record_time * np.arange(1, values.shape[1] + 1)
            samples = np.arange(run.interval, values.shape[1] + 1, run.interval) - 1
            samples = samples + run.n_equilibration * run.dynamics.n_records
            samples = samples[samples < values.shape[1]]
            for axis, own in zip(column, values, strict=True):
                axis.plot(times, own, color=color(k), lw=0.6, label=f"replica {k}")
                axis.plot(times[samples], own[samples], "o", color=color(k), ms=2.5)
        for axis, label in zip(column, _LABELS, strict=True):
            axis.axvspan(0, start, color="0.93", zorder=0)
            axis.set_ylabel(label, fontsize="small")
        column[0].axhline(temperature, color="0.3", lw=0.8, ls="--")
        limit = run.min_distance * shortest_distance(run.ideal)
        column[3].axhline(limit, color="0.3", lw=0.8, ls="--")
        interval = run.interval * run.dynamics.record_time
        title = f"{name}, {temperature:g} K: a snapshot each {interval:.2f} ps"
        column[0].set_title(title, fontsize="medium")
        column[-1].set_xlabel("time (ps)")
    axes[0, 0].legend(frameon=False, fontsize="x-small", loc="lower right")
    words = "grey: equilibration, points: snapshots\ndashed: temperature of the bath, lower limit"
    figure.suptitle(words, fontsize="small")
    return figure


def _values(run: Trajectories, stretch: Stretch) -> np.ndarray:
    """The four quantities of each record, shape=(4, n_records)."""
    energies = 1e3 * (stretch.potential - run.replicas[0][0].potential[0]) / len(run.ideal)
    u = stretch.positions - run.ideal.positions
    u = u - u.mean(axis=1, keepdims=True)
    rms = np.sqrt((u**2).mean(axis=(1, 2)))
    return np.array([stretch.temperatures, energies, rms, stretch.distances])
