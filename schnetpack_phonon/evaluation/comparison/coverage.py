"""What training sets cover of test sets: distances, amplitudes of modes, labels, and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matscipy.neighbours import neighbour_list
from scipy.stats import spearmanr

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.page import Picture, Section, Table, strings
from schnetpack_phonon.common.properties import band_gap
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.comparison.cross_tests import CrossTests
from schnetpack_phonon.evaluation.comparison.figures import coverage
from schnetpack_phonon.evaluation.distance import CUTOFF, far, training_set
from schnetpack_phonon.evaluation.metrics import in_report_units
from schnetpack_phonon.evaluation.runs import Run
from schnetpack_phonon.evaluation.test_sets import TestSet, stacked
from schnetpack_phonon.evaluation.thermal.vibrations import vibrations
from schnetpack_phonon.phonons.harmonic import HarmonicModel

_TEMPERATURE = 300.0  # K


_BIN = 0.05  # Ang


def pair_densities(sets: Sequence[TestSet], crystal: str) -> pd.DataFrame:
    """Distances between atoms of one crystal in each data set.

    Returns:
        ``ensemble``, ``distance`` in Ang, ``density`` (pairs per atom and Ang).
    """
    edges = np.arange(1.0, CUTOFF + _BIN, _BIN)
    tables = []
    for one in sets:
        chosen = np.flatnonzero(one.rows["structure"] == crystal)
        if not chosen.size:
            continue
        counts = np.zeros(len(edges) - 1)
        for k in chosen:
            counts += np.histogram(neighbour_list("d", one.atoms[k], CUTOFF), edges)[0]
        density = counts / (_BIN * sum(len(one.atoms[k]) for k in chosen))
        centres = (edges[:-1] + edges[1:]) / 2
        tables.append(pd.DataFrame({"ensemble": one.name, "distance": centres, "density": density}))
    return pd.concat(tables, ignore_index=True)


def mode_amplitudes(
    sets: Sequence[TestSet], crystal: str, model: HarmonicModel | None, temperature: float
) -> pd.DataFrame:
    """Root mean square of each mode coordinate in units of its thermal standard deviation.

    Args:
        sets: those in another cell or order of atoms are left out.
        crystal: name.
        model: its vibrations; without them there are no amplitudes.
        temperature: of the standard deviation, in K.

    Returns:
        ``ensemble``, ``frequency`` in THz (imaginary ones negative), ``amplitude``.
    """
    columns = ["ensemble", "frequency", "amplitude"]
    if model is None:
        return pd.DataFrame(columns=columns)
    sigma = model.mode_amplitudes(temperature)
    moving = sigma > 0
    root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))
    tables = []
    for one in sets:
        atoms = [one.atoms[k] for k in np.flatnonzero(one.rows["structure"] == crystal)]
        atoms = [a for a in atoms if _same_sites(a, model)]
        if not atoms:
            continue
        u = np.array([(a.positions - model.ideal.positions).ravel() for a in atoms])
        coordinates = (u * root) @ model.eigenvectors[:, moving] / sigma[moving]
        rms = np.sqrt((coordinates**2).mean(axis=0))
        frequency = model.frequencies[moving]
        tables.append(
            pd.DataFrame({"ensemble": one.name, "frequency": frequency, "amplitude": rms})
        )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def label_distributions(sets: Sequence[TestSet], key: str) -> pd.DataFrame:
    """``ensemble``, ``structure``, ``label`` of all structures of each data set.

    Each component of a tensor is a label.
    """
    tables = []
    for one in sets:
        if key not in one.labels:
            continue
        values = stacked(one.labels[key])
        n_components = values.rows.shape[1]
        crystals = one.rows["structure"].to_numpy()[np.repeat(values.structure, n_components)]
        tables.append(
            pd.DataFrame(
                {"ensemble": one.name, "structure": crystals, "label": values.rows.ravel()}
            )
        )
    return pd.concat(tables, ignore_index=True)


def distances_and_errors(
    runs: Mapping[str, Run],
    sets: Mapping[str, TestSet],
    own: Mapping[str, TestSet],
    errors: pd.DataFrame,
    key: str,
) -> pd.DataFrame:
    """Distance of each test structure from a model's training set, and the model's error.

    Args:
        runs: model -> one of its runs.
        sets: test sets by name.
        own: model -> its database.
        errors: as :class:`.CrossTests` holds them.
        key: property whose errors are meant.

    Returns:
        ``model``, ``test_set``, ``group``, ``structure``, ``distance``, ``error``.
    """
    tables = []
    chosen = errors[errors["property"] == key]
    for model, run in runs.items():
        train = training_set([own[model].atoms[k] for k in run.train_idx])
        rows = chosen[chosen["run"] == str(run.folder)]
        for name, test_set in sets.items():
            tested = rows[rows["test_set"] == name]
            place = {digest: k for k, digest in enumerate(test_set.rows["digest"])}
            atoms = [test_set.atoms[place[digest]] for digest in tested["digest"]]
            tables.append(
                tested[["test_set", "group", "structure"]].assign(
                    model=model,
                    distance=train.distances(atoms),
                    error=tested["mae"],
                )
            )
    return pd.concat(tables, ignore_index=True)


def rank_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """How well the distance orders the errors of each model: Spearman's coefficient.

    Args:
        table: as :func:`distances_and_errors` gives it.

    Returns:
        ``model``, ``n``, ``rank_correlation``, and ``distance`` (mean) on each test set.
    """
    rows = []
    for model, own in table[np.isfinite(table["distance"])].groupby("model", sort=False):
        varied = own["distance"].nunique() > 1 and own["error"].nunique() > 1
        rank = spearmanr(own["distance"], own["error"]).statistic if varied else np.nan
        means = own.groupby("test_set", sort=False)["distance"].mean()
        named = {f"mean distance of {name}": value for name, value in means.items()}
        rows.append({"model": model, "n": len(own), "rank_correlation": float(rank), **named})
    return pd.DataFrame(rows)


def _same_sites(atoms, model: HarmonicModel) -> bool:
    return (
        len(atoms) == len(model.ideal)
        and bool((atoms.numbers == model.ideal.numbers).all())
        and bool(np.allclose(atoms.cell, model.ideal.cell, atol=1e-3))
    )


def coverage_section(found: CrossTests) -> Section:
    """One figure and two tables, of the models with the largest number of labels."""
    keys = found.errors["property"].unique()
    key = band_gap if band_gap in keys else str(keys[0])
    largest = found.runs[found.runs["n_train"] == found.runs["n_train"].max()]
    first = largest.drop_duplicates("model").set_index("model")["run"]
    runs = {str(model): found.trained[folder] for model, folder in first.items()}
    sets = found.test_sets
    by_path = {one.path: one for one in sets.values()}
    own = {model: by_path[run.datapath] for model, run in runs.items()}
    errors = distances_and_errors(runs, sets, own, found.errors, key)
    crystal = str(next(iter(own.values())).rows["structure"].iloc[0])
    known = (_vibrations(run, crystal) for run in runs.values())
    model = next((one for one in known if one is not None), None)
    amplitudes = mode_amplitudes([*sets.values()], crystal, model, _TEMPERATURE)
    labels = label_distributions([*sets.values()], key)
    shown_labels = in_report_units(labels.assign(property=key), ["label"])
    shown = in_report_units(errors.assign(property=key), ["error"])
    figure = coverage(
        pair_densities([*sets.values()], crystal),
        amplitudes,
        shown_labels,
        shown,
        crystal,
        key,
        _TEMPERATURE,
    )
    picture = Picture(
        "coverage",
        "Distances between atoms, amplitudes of modes and labels of each data set; error of each "
        "model against the distance of a structure from its training set.",
        figure,
        shown,
    )
    ranks = rank_correlations(errors)
    known_species = errors[np.isfinite(errors["distance"])]
    warnings = [
        far(f"{test_set} for models trained on {model}", own.to_numpy(), ())
        for (model, test_set), own in known_species.groupby(["model", "test_set"])["distance"]
    ]
    formats = dict.fromkeys(ranks.columns[2:], ".2f")
    text = [
        "The distance of a structure is that of its pair distances from the nearest training "
        "structure, in units of how far training structures lie from each other. Its rank "
        "correlation with the error (1: it orders them, 0: it does not) says whether it warns.",
        *(f"Far outside: {warning}." for warning in warnings if warning),
    ]
    return Section(
        "What the data cover",
        text,
        [
            picture,
            Table("distance_and_error", strings(ranks, formats), ranks),
        ],
    )


def _vibrations(run: Run, crystal: str) -> HarmonicModel | None:
    """The crystal's harmonic model; None where it is not in the label store."""
    try:
        crystals, models = vibrations(run, PhononEnsemble([_TEMPERATURE], n_snapshots=1, seed=1))
    except RunError:
        return None
    names = [one.name for one in crystals if (one.composition or one.name) == crystal]
    return models[names[0], _TEMPERATURE] if names else None
