"""The gap at temperature against the size of the supercell, from a learned Hamiltonian."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, product
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from matplotlib.figure import Figure

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.page import Picture, Section, Table, strings
from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.common.style import color, hide_frame, legend_above, panels
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.runs import Run
from schnetpack_phonon.evaluation.thermal.vibrations import policy, vibrations
from schnetpack_phonon.models.predict import Predictor
from schnetpack_phonon.phonons.force_constants import interpolated
from schnetpack_phonon.phonons.harmonic import HarmonicModel, harmonic_model
from schnetpack_phonon.structures.crystals import Crystal

EDGES = {"outermost": "highest and lowest level", "averaged": "mean over the states of the edges"}
_DEGENERATE = 0.01  # eV; levels of the ideal crystal as near as this belong to an edge
_FEWEST = 8  # snapshots
_STYLES = {"outermost": ("o", "-"), "averaged": ("s", "--")}
_LINE = 2  # sizes that determine one


def gap_against_size(
    runs: Sequence[Run], sizes: Sequence[int], temperature: float, n_snapshots: int, seed: int
) -> pd.DataFrame:
    r"""Averages of the gap over quantum snapshots in cubes of 1, 2, 3, ... unit cells a side.

    Force constants are :func:`.interpolated`, and imaginary modes have the policy of the run. Wave
    vectors are Gamma, or a mesh that contains those of the training cell, so that the edges of the
    ideal crystal are among the levels of each size.

    A degenerate edge splits in each snapshot, and its highest level is too high by an amount
    that falls as one over the square root of the number of atoms. The mean over as many levels as
    the edge of the ideal crystal has is free of this.

    Args:
        runs: models with a learned Hamiltonian, which differ in their seeds.
        sizes: unit cells along each direction.
        temperature: in K.
        n_snapshots: of a supercell as large as the training cell; inversely proportional to the
            number of atoms, at least 8.
        seed: of the snapshots.

    Returns:
        ``structure``, ``size``, ``n_atoms``, ``edges`` (a key of :data:`EDGES`), ``n_valence`` and
        ``n_conduction`` (levels of each edge), ``value``, ``error`` (standard error over
        snapshots), ``seed_sd`` (over models), ``rest`` (ideal crystal), in eV, and ``n``
        (snapshots).

    Raises:
        RunError: if a model has no Hamiltonian, or a crystal is mixed or has no gap.
    """
    ensemble = PhononEnsemble([temperature], n_snapshots=1, seed=seed)
    crystals, models = vibrations(runs[0], ensemble)
    mixed = [crystal.name for crystal in crystals if crystal.end_members]
    if mixed:
        raise RunError(
            f"{', '.join(mixed)}: the sites of a mixed crystal are those of one supercell; "
            "expected pure crystals for other sizes"
        )
    predictors = [Predictor(run.model, batch_size=1, trust=run.trust) for run in runs]
    instabilities, rows = policy(runs[0]), []
    with Progress("sizes", len(crystals) * len(sizes), unit="averages") as progress:
        for crystal, size in product(crystals, sizes):
            constants = models[crystal.name, float(temperature)].force_constants
            other, constants = interpolated(crystal, constants, 3 * [size])
            ideal = other.supercell
            harmonic = harmonic_model(ideal, constants, instabilities, other.translations)
            n = max(_FEWEST, round(n_snapshots * len(crystal.supercell) / len(ideal)))
            own = _snapshots(other, harmonic, temperature, n, seed)
            kpoints = mesh(crystal, size)
            found = [_gaps(one, ideal, own, kpoints) for one in predictors]
            place = {"structure": crystal.name, "size": size, "n_atoms": len(ideal), "n": len(own)}
            rows += [{**place, **row} for row in _averages(found)]
            progress.update()
    return pd.DataFrame(rows)


def mesh(crystal: Crystal, size: int) -> np.ndarray:
    """The smallest mesh of a cube of unit cells that has the wave vectors of a supercell at Gamma.

    Returns:
        In units of the reciprocal cell of the cube, shape=(n_kpoints, 3).
    """
    inverse = np.linalg.inv(np.array(crystal.supercell_matrix))
    n = 1
    while np.abs(n * size * inverse - np.round(n * size * inverse)).max() > 1e-6:
        n += 1
    return np.stack(np.meshgrid(*3 * [np.arange(n) / n], indexing="ij"), axis=-1).reshape(-1, 3)


def extrapolated(table: pd.DataFrame) -> pd.DataFrame:
    """Straight lines through averages against one over the number of atoms.

    Args:
        table: of :func:`gap_against_size`.

    Returns:
        ``structure``, ``edges``, ``value`` for an infinite crystal and its ``error`` (eV), from the
        statistical errors of the averages, and ``slope`` (eV); of structures with two sizes or
        more.
    """
    rows = []
    for (structure, edges), own in table.groupby(["structure", "edges"], sort=False):
        if own["size"].nunique() >= _LINE:
            x, weights = 1 / own["n_atoms"], 1 / own["error"]
            (slope, value), cov = np.polyfit(x, own["value"], 1, w=weights, cov="unscaled")
            rows.append(
                {
                    "structure": structure,
                    "edges": edges,
                    "value": value,
                    "error": float(np.sqrt(cov[1, 1])),
                    "slope": slope,
                }
            )
    return pd.DataFrame(rows)


def against_size(table: pd.DataFrame, lines: pd.DataFrame) -> Figure:
    """Averages of the gap against one over the number of atoms, one panel for each crystal.

    Args:
        table: of :func:`gap_against_size`.
        lines: of :func:`extrapolated`.
    """
    crystals = list(table["structure"].unique())
    figure, axes = panels(len(crystals), (4.2, 2.8), (0, 0.7))
    for axis, crystal in zip(axes, crystals, strict=True):
        for k, (edges, (marker, style)) in enumerate(_STYLES.items()):
            own = table[(table["structure"] == crystal) & (table["edges"] == edges)]
            x = 1e3 / own["n_atoms"]
            axis.errorbar(
                x, own["value"], own["error"], fmt=marker, color=color(k), ms=4, label=EDGES[edges]
            )
            if len(lines):
                line = lines[(lines["structure"] == crystal) & (lines["edges"] == edges)].iloc[0]
                ends = np.array([0, x.max()])
                axis.plot(ends, line["value"] + line["slope"] * ends / 1e3, style, color=color(k))
                axis.errorbar(
                    [0], line["value"], line["error"], fmt=marker, mfc="white", color=color(k)
                )
        rest = table[(table["structure"] == crystal) & (table["edges"] == "outermost")]["rest"]
        axis.axhline(rest.iloc[0], color="0.6", linewidth=0.8, linestyle=":")
        axis.set_title(crystal, loc="left", fontsize="medium")
        axis.set_xlabel("1000 / number of atoms")
        axis.set_ylabel("band gap (eV)")
    hide_frame(axes)
    legend_above(figure, axes[0])
    return figure


def size_section(
    runs: Sequence[Run], sizes: Sequence[int], temperature: float, n_snapshots: int, seed: int
) -> Section:
    """Of the page: a figure, averages, and what they say about an infinite crystal."""
    table = gap_against_size(runs, sizes, temperature, n_snapshots, seed)
    lines = extrapolated(table)
    averaged = table.drop_duplicates("structure")
    text = [
        f"Quantum snapshots at {temperature:g} K in cubes of {', '.join(map(str, sizes))} unit "
        "cells a side. Force constants are interpolated from the training cell; the lattice does "
        "not expand. Dotted: the ideal crystal. Averaged are "
        + ", ".join(
            f"{row.n_valence} valence and {row.n_conduction} conduction states of {row.structure}"
            for row in averaged.itertuples()
        )
        + f": those of the ideal crystal within {1e3 * _DEGENERATE:g} meV of its edges.",
        *(
            f"{row['structure']}, infinite crystal ({EDGES[row['edges']]}): {row['value']:.3f} ± "
            f"{row['error']:.3f} eV, from a straight line in 1/N (± statistical)."
            for row in lines.to_dict("records")
        ),
    ]
    shown = table.assign(edges=table["edges"].map(EDGES))
    formats = {"value": ".4f", "error": ".2g", "seed_sd": ".2g", "rest": ".4f"}
    what = "The gap at temperature against the size of the supercell; open: extrapolated."
    return Section(
        "Size of the supercell",
        text,
        [
            Picture("against_size", what, against_size(table, lines), table),
            Table("against_size", strings(shown, formats), table),
        ],
    )


def _snapshots(
    crystal: Crystal, harmonic: HarmonicModel, temperature: float, n: int, seed: int
) -> list[Atoms]:
    ensemble = PhononEnsemble([temperature], n_snapshots=n, seed=seed)
    stream = ensemble.snapshots(crystal, harmonic, float(temperature))
    return [snapshot.atoms for snapshot in islice(filter(None, stream), n)]


def _gaps(
    predictor: Predictor, ideal: Atoms, snapshots: Sequence[Atoms], kpoints: np.ndarray
) -> dict[str, Any]:
    """Both kinds of gap, shape=(n_snapshots,), at rest, and the levels of each edge."""
    try:
        levels = predictor.levels(ideal)
    except ValueError as error:
        raise RunError(
            f"{error}. Models that average over atoms have the same gap for every size of the cell"
        ) from error
    n_filled = levels.n_electrons // 2
    at_rest = levels.at(kpoints)
    valence, conduction = at_rest[:, :n_filled], at_rest[:, n_filled:]
    rest = conduction.min() - valence.max()
    if levels.n_electrons % 2 or rest <= 0:
        raise RunError(
            f"{ideal.get_chemical_formula()} at rest has no gap; expected an insulator for the gap "
            "against the size"
        )
    n_valence = int((valence > valence.max() - _DEGENERATE).sum())
    n_conduction = int((conduction < conduction.min() + _DEGENERATE).sum())
    gaps = np.empty((2, len(snapshots)))
    for k, atoms in enumerate(snapshots):
        own = predictor.levels(atoms).at(kpoints)
        top = np.sort(own[:, :n_filled], axis=None)[-n_valence:]
        bottom = np.sort(own[:, n_filled:], axis=None)[:n_conduction]
        gaps[:, k] = bottom[0] - top[-1], bottom.mean() - top.mean()
    found = dict(zip(EDGES, gaps, strict=True))
    return {**found, "rest": rest, "n_valence": n_valence, "n_conduction": n_conduction}


def _averages(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over snapshots and models, one row for each kind of edges."""
    rows = []
    for edges in EDGES:
        gaps = np.array([one[edges] for one in found])
        mean, by_model = gaps.mean(axis=0), gaps.mean(axis=1)
        rows.append(
            {
                "edges": edges,
                "n_valence": found[0]["n_valence"],
                "n_conduction": found[0]["n_conduction"],
                "value": mean.mean(),
                "error": mean.std(ddof=1) / np.sqrt(len(mean)),
                "seed_sd": by_model.std(ddof=1) if len(found) > 1 else np.nan,
                "rest": np.mean([one["rest"] for one in found]),
            }
        )
    return rows
