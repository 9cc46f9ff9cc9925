"""Every model on every test set, on structures that it has not seen.

Leaks are excluded structure by structure: those that a model was trained or stopped on, the same
ones in another file, and snapshots with the same parent are left out wherever they appear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from schnetpack_phonon.common.errors import ComparisonError, RunError
from schnetpack_phonon.common.files import UNTRUSTED, Trust
from schnetpack_phonon.common.properties import DISTANCE, element_names, label, unit_factor
from schnetpack_phonon.evaluation.comparison.cached_predictions import TrainedOn, predictions_of
from schnetpack_phonon.evaluation.comparison.run_groups import group_runs
from schnetpack_phonon.evaluation.runs import Run, read_run
from schnetpack_phonon.evaluation.test_sets import Components, TestSet, read_test_set, seen, stacked

_KEPT = ["group", "parameter", "structure", "digest"]


@dataclass(frozen=True)
class CrossTests:
    """Predictions of several runs on several test sets.

    Attributes:
        runs: a row a run, as :func:`.group_runs` gives it.
        errors: a row a run, structure and property: ``run``, ``test_set``, ``group``,
            ``parameter``, ``structure``, ``digest``, ``property``, ``label`` (a row of
            :class:`.Components` or several), and over all its components their number
            ``n_values``, mean absolute error ``mae``, mean square ``mse``, ``max_error`` and
            ``mae_mean`` (of predicting the mean of the crystal in the run's training set, of all
            crystals for one that is not there; each component has a mean of its own); in the
            units of :mod:`.common.properties`. Errors are NaN where the model has no finite
            prediction.
        test_sets: those of the runs and more, by name.
        trained: folder -> run.
        skipped: folder -> reason why it is not among the runs.
        not_ranked: runs without finite predictions for all structures of a test set, and why.
        notes: remarks for readers.
    """

    runs: pd.DataFrame
    errors: pd.DataFrame
    test_sets: Mapping[str, TestSet]
    trained: Mapping[str, Run]
    skipped: Mapping[str, str]
    not_ranked: Sequence[str]
    notes: Sequence[str]


def cross_test(
    folders: Iterable[Path], test_paths: Sequence[Path] = (), trust: Trust = UNTRUSTED
) -> CrossTests:
    """Tests all finished runs on all test sets.

    Args:
        folders: of runs; those that are unfinished or not trusted are listed and skipped.
        test_paths: more test sets than the runs' own databases: databases or structure files.
        trust: what the files of the runs may do.

    Raises:
        ComparisonError: if no run is finished, or if units or calculators differ.
        HeldOutError: if a test set cannot be read.
    """
    runs, skipped = finished(folders, trust)
    paths = dict.fromkeys([*(run.datapath for run in runs), *(p.resolve() for p in test_paths)])
    sets = _named_apart({path: read_test_set(path) for path in paths})
    table_of_runs, notes = group_runs(runs, sets)
    values = {
        path: {key: stacked(one.labels[key]) for key in one.labels} for path, one in sets.items()
    }
    elements = {str(run.folder): _elements(sets[run.datapath], run.train_idx) for run in runs}
    factors = {str(run.folder): _factors(run, sets[run.datapath]) for run in runs}
    known = [TrainedOn(elements[run], 1 / factors[run][DISTANCE]) for run in elements]
    predicted = predictions_of(runs, [*sets.values()], known)
    tables = []
    for (path, test_set), found in zip(sets.items(), predicted, strict=True):
        unseen = [
            ~seen(sets[run.datapath], np.concatenate([run.train_idx, run.val_idx]), test_set)
            for run in runs
        ]
        for key in dict.fromkeys(key for predictions in found for key in predictions):
            labels = values[path][key]
            table = test_set.rows[_KEPT].assign(
                test_set=test_set.name, property=key, label=_cells(labels)
            )
            for run, predictions, tested in zip(runs, found, unseen, strict=True):
                units = factors[str(run.folder)]
                # The unit of an output without label of its own follows from that of the energy.
                if key in predictions and (key in units or set(units.values()) == {1.0}):
                    what = f"{key} of {run.name}"
                    found_there = units.get(key, 1.0) * predictions[key]
                    found_there = _of_labelled(found_there, labels, what, test_set)
                    own = values[run.datapath].get(key)
                    means = _means(run, sets[run.datapath], own, test_set, labels)
                    rows = table.assign(run=str(run.folder), **_errors(labels, found_there, means))
                    tables.append(rows[tested & (labels.counts > 0)])
    errors = pd.concat(tables, ignore_index=True)
    return CrossTests(
        table_of_runs,
        errors,
        {test_set.name: test_set for test_set in sets.values()},
        {str(run.folder): run for run in runs},
        skipped,
        [*_not_ranked(errors, sets.values(), elements)],
        tuple(dict.fromkeys(notes)),
    )


def finished(folders: Iterable[Path], trust: Trust = UNTRUSTED) -> tuple[list[Run], dict[str, str]]:
    """The finished runs, and why the others are skipped.

    Raises:
        ComparisonError: if there is none.
    """
    runs, skipped = [], {}
    for folder in folders:
        try:
            runs.append(read_run(folder, trust))
        except RunError as error:
            skipped[str(folder)] = str(error)
    if not runs:
        reasons = "\n".join(f"  {name}: {why}" for name, why in skipped.items())
        raise ComparisonError(f"no finished run:\n{reasons}")
    return runs, skipped


def _named_apart(sets: dict[Path, TestSet]) -> dict[Path, TestSet]:
    """Test sets of the same ensemble have the names of their files, too."""
    names = [one.name for one in sets.values()]
    return {
        path: replace(one, name=f"{one.name}, {path.stem}") if names.count(one.name) > 1 else one
        for path, one in sets.items()
    }


def _cells(values: Components) -> pd.Series:
    """Rows of each structure; shape=(n_structures,)."""
    ends = np.cumsum(values.counts)
    cells = (values.rows[end - n : end] for end, n in zip(ends, values.counts, strict=True))
    return pd.Series([*cells], dtype=object)


def _of_labelled(
    predicted: np.ndarray, labels: Components, what: str, test_set: TestSet
) -> np.ndarray:
    """Predictions of the structures that have a label; shape as that of the labels.

    Raises:
        ComparisonError: if the shapes differ.
    """
    n_atoms = np.array([len(atoms) for atoms in test_set.atoms])
    counts = n_atoms if len(predicted) == n_atoms.sum() else 1
    rows = predicted[np.repeat(labels.counts > 0, counts)]
    if rows.shape != labels.rows.shape:
        raise ComparisonError(
            f"{what} has the shape {rows.shape} and its labels in {test_set.path} "
            f"{labels.rows.shape}, counted over structures (and atoms) and components: test it on "
            "labels of the same kind"
        )
    return rows


def _errors(labels: Components, predicted: np.ndarray, means: np.ndarray) -> dict[str, np.ndarray]:
    """Of each structure, shape=(n_structures,)."""
    error = np.abs(np.where(np.isfinite(predicted), predicted, np.nan) - labels.rows)
    return {
        "n_values": labels.counts * labels.rows.shape[1],
        "mae": labels.mean(error),
        "mse": labels.mean(error**2),
        "max_error": labels.largest(error),
        "mae_mean": labels.mean(np.abs(means - labels.rows)),
    }


def _means(
    run: Run, own: TestSet, own_labels: Components | None, test_set: TestSet, labels: Components
) -> np.ndarray:
    """Predictions of the mean of the training set, shape as that of the labels."""
    if own_labels is None:
        return np.full(labels.rows.shape, np.nan)
    train = own_labels.of(run.train_idx)
    crystals = own.rows["structure"].to_numpy()[run.train_idx][train.structure]
    tested = test_set.rows["structure"].to_numpy()[labels.structure]
    means = np.tile(train.rows.mean(axis=0), (len(tested), 1))
    for crystal in np.unique(crystals):
        means[tested == crystal] = train.rows[crystals == crystal].mean(axis=0)
    return means


def _not_ranked(
    errors: pd.DataFrame, sets: Iterable[TestSet], elements: Mapping[str, set[int]]
) -> Iterator[str]:
    """What each run has no finite prediction for, a sentence a run and test set."""
    species = {
        digest: {*atoms.numbers.tolist()}
        for one in sets
        for digest, atoms in zip(one.rows["digest"], one.atoms, strict=True)
    }
    tested = errors.assign(missing=errors["mae"].isna())
    counts = tested.groupby(["run", "test_set", "property"], sort=False)["missing"]
    for (run, test_set), own in tested[tested["missing"]].groupby(["run", "test_set"], sort=False):
        known = elements[str(run)]
        foreign = own["digest"].map({digest: found - known for digest, found in species.items()})
        is_foreign = foreign.astype(bool)
        reasons = [
            f"its predictions of the {label(str(key))} are NaN or infinite for {n} of "
            f"{counts.get_group((run, test_set, key)).size} structures"
            for key, n in own.loc[~is_foreign, "property"].value_counts(sort=False).items()
        ]
        if is_foreign.any():
            n = own.loc[is_foreign, "digest"].nunique()
            reasons.append(
                f"{n} structures hold {element_names(set().union(*foreign))}, which it was not "
                f"trained on; it knows {element_names(known)}"
            )
        yield f"{Path(str(run)).name} is not ranked on {test_set}: {'; '.join(reasons)}."


def _factors(run: Run, own: TestSet) -> dict[str, float]:
    """What predictions, and ``distance``, in the units of a run are multiplied with for ours."""
    units = {**own.stored_units, **(run.resolved("data.property_units") or {})}
    units[DISTANCE] = run.resolved("data.distance_unit") or units[DISTANCE]
    return {key: unit_factor(key, unit, run.folder) for key, unit in units.items()}


def _elements(own: TestSet, index: np.ndarray) -> set[int]:
    return {z for k in index for z in own.atoms[k].numbers.tolist()}
