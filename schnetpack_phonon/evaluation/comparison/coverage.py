"""What training sets cover of test sets: distances, amplitudes of modes, labels, and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from ase import Atoms
from matscipy.neighbours import neighbour_list
from scipy.stats import spearmanr

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.page import Picture, Section, Table, strings
from schnetpack_phonon.common.properties import band_gap
from schnetpack_phonon.ensembles.active.distance import CUTOFF, far, training_set
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.comparison.cross_tests import CrossTests
from schnetpack_phonon.evaluation.comparison.figures import coverage
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
    centres = (edges[:-1] + edges[1:]) / 2
    tables = []
    for one in sets:
        if atoms := _structures(one, crystal):
            counts = sum(np.histogram(neighbour_list("d", a, CUTOFF), edges)[0] for a in atoms)
            density = counts / (_BIN * sum(map(len, atoms)))
            columns = {"ensemble": one.name, "distance": centres, "density": density}
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def mode_amplitudes(
    sets: Sequence[TestSet], crystal: str, model: HarmonicModel | None, temperature: float
) -> pd.DataFrame:
    """Root mean square of each mode coordinate in units of its thermal standard deviation.

    Args:
        sets: those with another cell or order of atoms are left out.
        crystal: name.
        model: its harmonic model; without one there are no amplitudes.
        temperature: of the standard deviation, in K.

    Returns:
        ``ensemble``, ``frequency`` in THz (imaginary ones negative), ``amplitude``.
    """
    tables = [pd.DataFrame(columns=["ensemble", "frequency", "amplitude"])]
    if model is None:
        return tables[0]
    sigma = model.mode_amplitudes(temperature)
    moving = sigma > 0
    root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))
    for one in sets:
        atoms = [a for a in _structures(one, crystal) if _same_sites(a, model)]
        if atoms:
            u = np.array([(a.positions - model.ideal.positions).ravel() for a in atoms])
            coordinates = (u * root) @ model.eigenvectors[:, moving] / sigma[moving]
            rms = np.sqrt((coordinates**2).mean(axis=0))
            columns = {"frequency": model.frequencies[moving], "amplitude": rms}
            tables.append(pd.DataFrame({"ensemble": one.name, **columns}))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def label_distributions(sets: Sequence[TestSet], key: str) -> pd.DataFrame:
    """``ensemble``, ``structure``, ``label`` of all structures of each data set.

    Each component of a tensor is a label.
    """
    tables = []
    for one in sets:
        if key in one.labels:
            values = stacked(one.labels[key])
            structure = np.repeat(values.structure, values.rows.shape[1])
            crystals = one.rows["structure"].to_numpy()[structure]
            columns = {"structure": crystals, "label": values.rows.ravel()}
            tables.append(pd.DataFrame({"ensemble": one.name, **columns}))
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
    """Spearman's rank correlation of the distance with the error of each model.

    Args:
        table: as :func:`distances_and_errors` gives it.

    Returns:
        ``model``, ``n``, ``left out`` (structures with elements that it was not trained on),
        ``rank_correlation`` (NaN if another prediction is not finite), and the mean distance on
        each test set.
    """
    rows = []
    for model, every in table.groupby("model", sort=False):
        own = every[np.isfinite(every["distance"])]
        varied = own["distance"].nunique() > 1 and own["error"].nunique() > 1
        ranked = varied and own["error"].notna().all()
        rank = spearmanr(own["distance"], own["error"]).statistic if ranked else np.nan
        means = own.groupby("test_set", sort=False)["distance"].mean()
        named = {f"mean distance of {name}": value for name, value in means.items()}
        counts = {"n": len(own), "left out": len(every) - len(own)}
        rows.append({"model": model, **counts, "rank_correlation": float(rank), **named})
    return pd.DataFrame(rows)


def coverage_section(found: CrossTests) -> Section:
    """A figure and a table, of the models with the largest number of labels."""
    keys = found.errors["property"].unique()
    key = band_gap if band_gap in keys else str(keys[0])
    largest = found.runs[found.runs["n_train"] == found.runs["n_train"].max()]
    models = largest.drop_duplicates("model").set_index("model")
    runs = {str(model): found.trained[folder] for model, folder in models["run"].items()}
    sets = [*found.test_sets.values()]
    by_path = {one.path: one for one in sets}
    own = {model: by_path[run.datapath] for model, run in runs.items()}
    errors = distances_and_errors(runs, found.test_sets, own, found.errors, key)
    errors = in_report_units(errors.assign(property=key), ["error"])
    labels = in_report_units(label_distributions(sets, key).assign(property=key), ["label"])
    crystal = str(next(iter(own.values())).rows["structure"].iloc[0])
    known = (_vibrations(run, crystal) for run in runs.values())
    harmonic = next((one for one in known if one is not None), None)
    picture = Picture(
        "coverage",
        "Distances between atoms, amplitudes of modes and labels of each data set; error of each "
        "model against the distance of a structure from its training set.",
        coverage(
            pair_densities(sets, crystal),
            mode_amplitudes(sets, crystal, harmonic, _TEMPERATURE),
            labels,
            errors,
            models["ensemble"].to_dict(),
            crystal,
            key,
            _TEMPERATURE,
        ),
        errors,
    )
    ranks = rank_correlations(errors)
    known_species = errors[np.isfinite(errors["distance"])]
    warnings = [
        far(f"{test_set} for models trained on {model}", own.to_numpy(), ())
        for (model, test_set), own in known_species.groupby(["model", "test_set"])["distance"]
    ]
    text = [
        "The distance of a structure is that of its pair distances from the nearest training "
        "structure, in units of the distance between training structures. Its rank correlation "
        "with the error (1: same order, 0: no relation) says whether it can warn of large errors.",
        *(f"Far outside: {warning}." for warning in warnings if warning),
    ]
    table = strings(ranks, dict.fromkeys(ranks.columns[3:], ".2f"))
    return Section(
        "What the data cover", text, [picture, Table("distance_and_error", table, ranks)]
    )


def _structures(one: TestSet, crystal: str) -> list[Atoms]:
    return [one.atoms[k] for k in np.flatnonzero(one.rows["structure"] == crystal)]


def _same_sites(atoms: Atoms, model: HarmonicModel) -> bool:
    return (
        len(atoms) == len(model.ideal)
        and bool((atoms.numbers == model.ideal.numbers).all())
        and bool(np.allclose(atoms.cell, model.ideal.cell, atol=1e-3))
    )


def _vibrations(run: Run, crystal: str) -> HarmonicModel | None:
    """The crystal's harmonic model; None if it is not in the label store."""
    try:
        crystals, models = vibrations(run, PhononEnsemble([_TEMPERATURE], n_snapshots=1, seed=1))
    except RunError:
        return None
    names = [one.name for one in crystals if (one.composition or one.name) == crystal]
    return models[names[0], _TEMPERATURE] if names else None
