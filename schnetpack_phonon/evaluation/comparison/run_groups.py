"""Which runs may be averaged: those that differ only in their seeds."""

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
from schnetpack_phonon.common.properties import PROPERTIES
from schnetpack_phonon.evaluation.runs import Run
from schnetpack_phonon.evaluation.test_sets import TestSet

# Settings that cannot change a model: seeds, places, output, and on what it ran.
_IGNORED = (
    "seed",
    "run",
    "print_config",
    "logger",
    "data.datapath",
    "data.label_store",
    "data.data_workdir",
    "data.work_dir",
    "data.executor",
    "data.splitting.seed",
    "data.num_workers",
    "data.num_val_workers",
    "data.num_test_workers",
    "data.max_failed_share",
    "trainer.devices",
    "trainer.accelerator",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)
_LONGEST = 60  # characters of the settings in the name of a model
# Settings that are part of the training data, which are compared.
_OF_DATA = (
    "data._target_",
    "data.calculator",
    "data.elastic",
    "data.ensemble",
    "data.num_",
    "data.phonons",
    "data.shipped_labels",
    "data.splitting",
    "data.structure",
    "database",
    "test split",
)
_OURS = "schnetpack_phonon"
# Callbacks that only watch and write. Of all others the settings count, those of unknown ones too.
_PASSIVE = {
    _OURS: {"BondAttributionCallback", "CPUThreads", "ReportCallback", "TrainingProgress"},
    "schnetpack": {"PredictionWriter"},
    "pytorch_lightning": {
        "DeviceStatsMonitor",
        "LearningRateMonitor",
        "ModelSummary",
        "RichModelSummary",
        "RichProgressBar",
        "ThroughputMonitor",
        "TQDMProgressBar",
    },
}
_PLACES = {"dirpath", "filename", "verbose"}  # of checkpoints


def group_runs(runs: Sequence[Run], sets: Mapping[Path, TestSet]) -> tuple[pd.DataFrame, list[str]]:
    """Finds runs that differ only in their seeds, and names the models.

    Args:
        runs: finished ones.
        sets: the test sets by path, databases of the runs among them.

    Returns:
        A row a run: ``run`` (folder), ``model`` (:func:`model_name`, shared by runs that differ
        only in their seeds), ``ensemble``, ``n_train``, ``n_labels`` (with validation), ``seed``,
        ``hours`` (of training, NaN where unknown), ``settings`` (that differ from other runs with
        the same ensemble and number of labels), ``own_splits`` (whether the seeds of the model
        have different test sets), ``training`` (JSON of all settings but those of the data); and
        remarks.

    Raises:
        ComparisonError: if calculators or units differ.
    """
    _check_calculators(sets)
    _check_units(runs, sets)
    rows, settings = [], {}
    for run in runs:
        own = sets[run.datapath]
        seconds = run.record.get("train_seconds")
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
    several, own_splits = _splits(table, settings)
    for row in table[several & ~own_splits].to_dict("records"):
        settings[row["run"]]["test split"] = row["split"]
    table["settings"], notes = _differences(table, settings)
    table["own_splits"] = own_splits
    table["training"] = [
        json.dumps({k: v for k, v in settings[run].items() if not k.startswith(_OF_DATA)})
        for run in table["run"]
    ]
    table["model"] = [model_name(row) for row in table.to_dict("records")]
    notes += [
        f"{model}: each seed has its own test set and is tested on structures that it has not "
        "seen, so the spread over seeds includes that over test sets. For one common test set "
        "train with data.splitting._target_=schnetpack_phonon.data.NestedSplit, as phonon_study "
        "does"
        for model in table.loc[own_splits, "model"].unique()
    ]
    single = table["model"].value_counts()
    if (single == 1).any():
        notes.append(f"one seed only, so no spread: {'; '.join(single.index[single == 1])}")
    repeated = table.loc[table.duplicated(["model", "seed"], keep=False), "run"]
    if not repeated.empty:
        names = ", ".join(Path(name).name for name in repeated)
        notes.append(f"the same model and seed several times, so spreads are too small: {names}")
    return table.drop(columns="split"), notes


def model_name(row: Mapping[Any, Any], size: bool = True) -> str:
    """What a model is called in tables and figures.

    Args:
        row: of a run, as :func:`group_runs` gives it.
        size: whether with the number of training structures.
    """
    settings = f" ({row['settings']})" if row["settings"] else ""
    number = f", N = {row['n_train']}" if size else ""
    return f"{row['ensemble']}{number}{settings}{', own test splits' if row['own_splits'] else ''}"


def training_differences(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> list[str]:
    """Settings beside the data in which two runs of :func:`group_runs` differ, with both values."""
    a, b = json.loads(one["training"]), json.loads(other["training"])
    keys = sorted(key for key in {**a, **b} if a.get(key) != b.get(key))
    return [f"{key} ({a.get(key, 'none')} / {b.get(key, 'none')})" for key in keys]


def _splits(
    table: pd.DataFrame, settings: Mapping[str, dict[str, str]]
) -> tuple[pd.Series, pd.Series]:
    """Whether test sets of runs of the same settings differ, and whether as their seeds do."""
    alike = table["run"].map(lambda name: json.dumps(settings[name], sort_keys=True))
    several = table.groupby(alike)["split"].transform("nunique") > 1
    of_seed = table.groupby([alike, table["seed"].astype(str)])["split"].transform("nunique") == 1
    known = table.groupby(alike)["seed"].transform(lambda seeds: seeds.notna().all())
    return several, several & of_seed.groupby(alike).transform("all") & known.astype(bool)


def _differences(
    table: pd.DataFrame, settings: Mapping[str, dict[str, str]]
) -> tuple[list[str], list[str]]:
    """Settings that tell each run from others of its ensemble and size, as text; remarks."""
    found, notes = dict.fromkeys(table["run"], ""), []
    for (ensemble, n_train), own in table.groupby(["ensemble", "n_train"])["run"]:
        keys = {key for name in own for key in settings[name]}
        changing = sorted(k for k in keys if len({str(settings[n].get(k)) for n in own}) > 1)
        if changing:
            values = {name: {key: settings[name].get(key) for key in changing} for name in own}
            digests = {name: hash_of(json.dumps(v))[:4] for name, v in values.items()}
            texts = {name: _in_words(v) for name, v in values.items()}
            if len(set(texts.values())) < len(set(digests.values())):  # not all is in the words
                texts = {name: f"{text} {digests[name]}".strip() for name, text in texts.items()}
            found |= texts
            notes.append(
                f"runs on {ensemble}, N = {n_train} are not averaged over all: they differ in "
                + ", ".join(changing)
            )
    return [*found.values()], notes


def _settings(run: Run, own: TestSet) -> dict[str, str]:
    """Everything that can change the model, flat, and the content of its database."""
    config: Any = OmegaConf.to_container(run.config, resolve=False)
    config["callbacks"] = _callbacks(config.get("callbacks") or {})
    kept = {
        key: value
        for key, value in _flat(config)
        if not any(key == name or key.startswith(f"{name}.") for name in _IGNORED)
    }
    kept["data.num_train"] = len(run.train_idx)  # shares and numbers may say the same
    kept["data.num_val"] = len(run.val_idx)
    kept["data.num_test"] = len(run.test_idx)
    kept["database"] = pd.util.hash_pandas_object(own.rows["digest"], index=False).sum()
    return {key: str(value) for key, value in kept.items()}


def _callbacks(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those that can change a model, by class: users may give them any name and order."""
    built = (one for one in config.values() if isinstance(one, dict) and "_target_" in one)
    kept = [{key: value for key, value in one.items() if key not in _PLACES} for one in built]
    found: dict[str, Any] = {}
    for one in sorted(kept, key=lambda one: json.dumps(one, sort_keys=True)):
        package, name = (one["_target_"].split(".")[k] for k in (0, -1))
        if name not in _PASSIVE.get(package, ()):
            found.setdefault(name, []).append(one)
    return {name: own[0] if len(own) == 1 else own for name, own in found.items()}


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys joined by dots; classes of ours without their module, which versions have moved."""
    if isinstance(values, (dict, list)):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _flat(value, f"{prefix}{key}.")
    elif isinstance(values, str) and values.startswith(f"{_OURS}."):
        yield prefix[:-1], f"{_OURS}.{values.rpartition('.')[2]}"
    else:
        yield prefix[:-1], values


def _in_words(values: Mapping[str, str | None]) -> str:
    """As many settings as fit; classes without their modules."""
    text, classes = "", set()
    for key, value in values.items():
        if value is None:
            continue
        *_, parent, own = ("", *key.split("."))
        if own == "_target_":
            piece = value.rpartition(".")[2]
            classes.add(parent)
        else:
            piece = f"{own}={value}" if parent in classes else f"{parent}.{own}={value}"
        if text and len(text) + len(piece) > _LONGEST:
            return f"{text}, …"
        text += f", {piece}" if text else piece
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _check_calculators(sets: Mapping[Path, TestSet]) -> None:
    known = [(one.path, one.calculator) for one in sets.values() if one.calculator is not None]
    for path, other in known[1:]:
        first_path, first = known[0]
        values = {k: (first.get(k, "nothing"), other.get(k, "nothing")) for k in {**first, **other}}
        lines = [f"  {k}: {a} / {b}" for k, (a, b) in sorted(values.items()) if a != b]
        if lines:
            raise ComparisonError(
                f"labels of {first_path} and {path} are of different calculators:\n"
                + "\n".join(lines)
                + "\nErrors with respect to different labels cannot be compared: compare the runs "
                "separately"
            )


def _check_units(runs: Sequence[Run], sets: Mapping[Path, TestSet]) -> None:
    """Of properties that are not ours; those that are have been converted."""
    seen: dict[str, tuple[str, str]] = {}
    found = [(str(one.path), key, unit) for one in sets.values() for key, unit in one.units.items()]
    for run in runs:
        chosen = run.resolved("data.property_units") or {}
        found += [(str(run.folder), key, unit) for key, unit in chosen.items()]
    for place, key, unit in found:
        if key in PROPERTIES:
            continue
        other, first = seen.setdefault(key, (place, unit))
        if unit != first:
            raise ComparisonError(
                f"{key} is in {first or 'no unit'} in {other} and in {unit or 'no unit'} in "
                f"{place}: compare them separately"
            )
