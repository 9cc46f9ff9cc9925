"""Which runs may be averaged: those that differ in their seeds alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from schnetpack_phonon.common.digests import hash_of
from schnetpack_phonon.common.errors import ComparisonError
from schnetpack_phonon.evaluation.runs import Run
from schnetpack_phonon.evaluation.test_sets import TestSet

# What tells nothing of a model: seeds, places, how it was shown and on what it ran.
_IGNORED = (
    "seed",
    "run",
    "print_config",
    "callbacks",
    "logger",
    "data.datapath",
    "data.label_store",
    "data.data_workdir",
    "data.executor",
    "data.splitting.seed",
    "data.num_workers",
    "data.num_val_workers",
    "data.num_test_workers",
    "data.max_failed_share",
    "trainer.devices",
    "trainer.accelerator",
    "trainer.enable_progress_bar",
)


def group_runs(runs: Sequence[Run], sets: Mapping[Path, TestSet]) -> tuple[pd.DataFrame, list[str]]:
    """Names of what was trained and who belongs together.

    Args:
        runs: finished ones.
        sets: the test sets by path, databases of the runs among them.

    Returns:
        A row a run: ``run`` (folder), ``model`` (name shared by those that differ in their seeds
        alone), ``ensemble``, ``n_train``, ``n_labels`` (with validation), ``seed``,
        ``hours`` (of training, NaN where unknown), ``settings`` (what beside ensemble and number
        of labels tells it from others), ``own_splits`` (whether the model's seeds have different
        test sets); and remarks.

    Raises:
        ComparisonError: where calculators or units differ.
    """
    _check_calculators(sets)
    _check_units(runs, sets)
    rows, settings = [], {}
    for run in runs:
        own = sets[run.datapath]
        record = run.record
        seconds = record.get("train_seconds")
        rows.append(
            {
                "run": str(run.folder),
                "ensemble": own.name,
                "n_train": len(run.train_idx),
                "n_labels": len(run.train_idx) + len(run.val_idx),
                "seed": run.seed,
                "hours": seconds / 3600 if seconds is not None else float("nan"),
                "split": hash_of(np.sort(run.test_idx))[:6],
            }
        )
        settings[str(run.folder)] = _settings(run, own)
    table = pd.DataFrame(rows)
    table["settings"] = ""
    several, table["own_splits"] = _splits(table, settings)
    for row in table[several & ~table["own_splits"]].to_dict("records"):
        settings[row["run"]]["test split"] = row["split"]
    notes = []
    for (ensemble, n_train), own_rows in table.groupby(["ensemble", "n_train"]):
        texts = {name: json.dumps(settings[name], sort_keys=True) for name in own_rows["run"]}
        if len(set(texts.values())) == 1:
            continue
        changing = sorted(
            key
            for key in {key for name in own_rows["run"] for key in settings[name]}
            if len({str(settings[name].get(key)) for name in own_rows["run"]}) > 1
        )
        for name in own_rows["run"]:
            own_values = [f"{_short(key)}={settings[name].get(key)}" for key in changing[:3]]
            table.loc[table["run"] == name, "settings"] = ", ".join(own_values)
        notes.append(
            f"runs on {ensemble}, N = {n_train} are not averaged over all: they differ in "
            + ", ".join(changing)
        )
    extra = table["settings"].map(lambda text: f" ({text})" if text else "")
    table["model"] = table["ensemble"] + ", N = " + table["n_train"].astype(str) + extra
    table.loc[table["own_splits"], "model"] += ", own test splits"
    notes += [
        f"{model}: each seed has a test set of its own and is tested on what itself has not seen, "
        "so the spread over seeds is that of test sets, too. For one test set train with "
        "data.splitting._target_=schnetpack_phonon.data.splits.NestedSplit, as phonon_study does"
        for model in table.loc[table["own_splits"], "model"].unique()
    ]
    single = table["model"].value_counts()
    if (single == 1).any():
        names = "; ".join(single.index[single == 1])
        notes.append(f"one seed only, so no spread: {names}")
    repeated = table[table.duplicated(["model", "seed"], keep=False)]
    if not repeated.empty:
        names = ", ".join(Path(name).name for name in repeated["run"])
        notes.append(
            f"the same model and seed several times, which makes spreads too small: {names}"
        )
    return table.drop(columns="split"), notes


def _splits(
    table: pd.DataFrame, settings: Mapping[str, dict[str, str]]
) -> tuple[pd.Series, pd.Series]:
    """Whether test sets of runs of the same settings differ, and whether as their seeds do."""
    alike = table["run"].map(lambda name: json.dumps(settings[name], sort_keys=True))
    several = table.groupby(alike)["split"].transform("nunique") > 1
    of_seed = table.groupby([alike, table["seed"].astype(str)])["split"].transform("nunique") == 1
    known = table.groupby(alike)["seed"].transform(lambda seeds: seeds.notna().all())
    return several, several & of_seed.groupby(alike).transform("all") & known.astype(bool)


def _settings(run: Run, own: TestSet) -> dict[str, str]:
    """All that makes a model another one, flat, with the content of its database."""
    plain = dict(_flat(OmegaConf.to_container(run.config, resolve=False)))
    kept = {
        key: value
        for key, value in plain.items()
        if not any(key == name or key.startswith(f"{name}.") for name in _IGNORED)
    }
    kept["data.num_train"] = len(run.train_idx)  # shares and numbers may say the same
    kept["data.num_val"] = len(run.val_idx)
    kept["data.num_test"] = len(run.test_idx)
    kept["database"] = pd.util.hash_pandas_object(own.rows["digest"], index=False).sum()
    return {key: str(value) for key, value in kept.items()}


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _flat(value, f"{prefix}{key}.")
    elif isinstance(values, list):
        for k, value in enumerate(values):
            yield from _flat(value, f"{prefix}{k}.")
    else:
        yield prefix[:-1], values


def _short(key: str) -> str:
    return ".".join(key.split(".")[-2:])


def _check_calculators(sets: Mapping[Path, TestSet]) -> None:
    known = [one for one in sets.values() if one.calculator is not None]
    for other in known[1:]:
        first, second = dict(known[0].calculator or {}), dict(other.calculator or {})
        if first != second:
            keys = sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
            lines = [f"  {k}: {first.get(k, 'nothing')} / {second.get(k, 'nothing')}" for k in keys]
            raise ComparisonError(
                f"labels of {known[0].path} and {other.path} are of different calculators:\n"
                + "\n".join(lines)
                + "\nErrors of one in units of the other mean nothing: compare them separately"
            )


def _check_units(runs: Sequence[Run], sets: Mapping[Path, TestSet]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    found = [(str(one.path), key, unit) for one in sets.values() for key, unit in one.units.items()]
    for run in runs:
        chosen = run.resolved("data.property_units") or {}
        found += [(str(run.folder), key, unit) for key, unit in chosen.items()]
    for place, key, unit in found:
        other, first = seen.setdefault(key, (place, unit))
        if unit != first:
            raise ComparisonError(
                f"{key} is in {first or 'no unit'} in {other} and in {unit or 'no unit'} in "
                f"{place}: compare them separately"
            )
