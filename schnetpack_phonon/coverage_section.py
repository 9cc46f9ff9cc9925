"""The part of a comparison about what training sets cover."""

from __future__ import annotations

import numpy as np

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.page import Picture, Section, Table, strings
from schnetpack_phonon.common.properties import band_gap
from schnetpack_phonon.coverage import (
    distances_and_errors,
    label_distributions,
    mode_amplitudes,
    pair_densities,
    rank_correlations,
)
from schnetpack_phonon.coverage_figure import coverage
from schnetpack_phonon.cross_tests import CrossTests
from schnetpack_phonon.distance import far
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation import in_report_units
from schnetpack_phonon.phonons.harmonic import HarmonicModel
from schnetpack_phonon.run_vibrations import vibrations
from schnetpack_phonon.runs import Run

_TEMPERATURE = 300.0  # K


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
