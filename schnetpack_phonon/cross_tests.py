"""Every model on every test set: predictions of structures that it has not seen.

Leaks are closed structure by structure: what a model was trained or stopped on, the same structure
in another file, and snapshots of the same parent are left out wherever they appear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from ase.data import chemical_symbols

from schnetpack_phonon.cross_predictions import predictions_of
from schnetpack_phonon.held_out import TestSet, read_test_set, seen
from schnetpack_phonon.run_groups import ComparisonError, group_runs
from schnetpack_phonon.runs import Run, RunError, read_run


@dataclass(frozen=True)
class CrossTests:
    """Predictions of several runs on several test sets.

    Attributes:
        runs: a row a run, as :func:`.run_groups.group_runs` gives it.
        predictions: a row a run, structure and property: ``run``, ``test_set``, ``group``,
            ``parameter``, ``structure``, ``digest``, ``property``, ``label``, ``prediction``,
            ``mean`` (of the crystal in the run's training set; of all crystals for one that is
            not there); in the database's units.
        test_sets: name -> file.
        skipped: folder -> reason why it is not among the runs.
        notes: what a reader has to know.
    """

    runs: pd.DataFrame
    predictions: pd.DataFrame
    test_sets: Mapping[str, Path]
    skipped: Mapping[str, str]
    notes: Sequence[str]


def cross_test(folders: Iterable[Path], test_paths: Sequence[Path] = ()) -> CrossTests:
    """Tests all finished runs on all test sets.

    Args:
        folders: of runs; those that are not finished are listed and skipped.
        test_paths: databases or structure files; beside them each run's own database is one.

    Raises:
        ComparisonError: if no run is finished, or where units or calculators differ.
        HeldOutError: if a test set cannot be read.
    """
    runs, skipped = finished(folders)
    paths = dict.fromkeys([*(run.datapath for run in runs), *(p.resolve() for p in test_paths)])
    sets = _named_apart({path: read_test_set(path) for path in paths})
    table, notes = group_runs(runs, sets)
    tables = []
    for test_set in sets.values():
        for run, found in zip(runs, predictions_of(runs, test_set), strict=True):
            own = sets[run.datapath]
            index = np.concatenate([run.train_idx, run.val_idx])
            found = found[~seen(own, index, test_set)[found["index"]]]
            rows = test_set.rows.loc[found["index"]].reset_index(drop=True)
            kept = ["group", "parameter", "structure", "digest"]
            found = pd.concat([found.reset_index(drop=True), rows[kept]], axis=1)
            found["mean"] = _means(run, own, found)
            tables.append(found.assign(run=str(run.folder), test_set=test_set.name))
            notes += _foreign_species(run, own, test_set)
    predictions = pd.concat(tables, ignore_index=True)
    names = {test_set.name: path for path, test_set in sets.items()}
    return CrossTests(
        table, predictions.drop(columns="index"), names, skipped, tuple(dict.fromkeys(notes))
    )


def finished(folders: Iterable[Path]) -> tuple[list[Run], dict[str, str]]:
    """The finished runs, and the reasons why the others are none.

    Raises:
        ComparisonError: if there is none.
    """
    runs, skipped = [], {}
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except RunError as error:
            skipped[str(folder)] = str(error)
    if not runs:
        reasons = "\n".join(f"  {name}: {why}" for name, why in skipped.items())
        raise ComparisonError(f"no finished run:\n{reasons}")
    return runs, skipped


def _named_apart(sets: dict[Path, TestSet]) -> dict[Path, TestSet]:
    """Test sets of one ensemble are told by their files, too."""
    names = [one.name for one in sets.values()]
    return {
        path: replace(one, name=f"{one.name}, {path.stem}") if names.count(one.name) > 1 else one
        for path, one in sets.items()
    }


def _means(run: Run, own: TestSet, found: pd.DataFrame) -> pd.Series:
    """What predicting the mean of the training set would give."""
    train = own.labels.iloc[run.train_idx]
    crystal = own.rows["structure"].iloc[run.train_idx]
    by_crystal = train.groupby(crystal.to_numpy()).mean()
    overall = train.mean()
    known = by_crystal.stack()
    pairs = pd.MultiIndex.from_frame(found[["structure", "property"]])
    values = known.reindex(pairs).to_numpy()
    rest = found["property"].map(overall).to_numpy()
    return pd.Series(np.where(np.isnan(values), rest, values), index=found.index)


def _foreign_species(run: Run, own: TestSet, test_set: TestSet) -> list[str]:
    known = {int(z) for k in run.train_idx for z in np.unique(own.atoms[k].numbers)}
    foreign = {int(z) for atoms in test_set.atoms for z in np.unique(atoms.numbers)} - known
    if not foreign:
        return []
    names = ", ".join(chemical_symbols[z] for z in sorted(foreign))
    return [f"{run.name} was never trained on {names}, which {test_set.name} holds: do not believe"]
