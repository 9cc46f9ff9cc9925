"""Tables of comparisons as text: errors, settings, data, cost, bond shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from schnetpack_phonon.attribution.results import SHARES
from schnetpack_phonon.common.errors import DatabaseError
from schnetpack_phonon.common.properties import label
from schnetpack_phonon.data.database import METADATA_KEY, read_metadata
from schnetpack_phonon.evaluation.runs import Run

_MANY = 1e6  # structures; laws fitted to tens of them say nothing beyond
_SETTINGS = {
    "representation": "model.representation._target_",
    "features": "model.representation.n_atom_basis",
    "interactions": "model.representation.n_interactions",
    "cutoff (Ang)": "globals.cutoff",
    "learning rate": "globals.lr",
    "batch size": "data.batch_size",
    "epochs, at most": "trainer.max_epochs",
    "structures an epoch": "data.train_sampler_args.epoch_size",
    "splitting": "data.splitting._target_",
}


def error_table(matrix: pd.DataFrame, place: str = "test_set") -> pd.DataFrame:
    """Errors in report units as text; a line a property, test set and model."""
    rows = []
    for row in matrix.to_dict("records"):
        spread = "one seed" if np.isnan(row["seed_sd"]) else f"{row['seed_sd']:.2g}"
        rows.append(
            {
                "property": _name(row),
                "tested on": row[place],
                "trained on": row["model"],
                "MAE [95 %]": _unranked(row) or with_interval(row, "mae", ".3g"),
                "sd over seeds": spread + (" and splits" if row["own_splits"] else ""),
                "RMSE": f"{row['rmse']:.3g}",
                "largest": f"{row['max_error']:.3g}",
                "R²": f"{row['r2']:.2f}",
                "R² within crystals": f"{row['r2_crystal']:.2f}"
                + (" (worse than the crystal's mean)" if row["r2_crystal"] < 0 else ""),
                "MAE of the mean": f"{row['mae_mean']:.3g}",
                "n": str(row["n"]) + ("" if row["common"] else ", own split"),
            }
        )
    return pd.DataFrame(rows)


def matrix_table(matrix: pd.DataFrame, place: str = "test_set") -> pd.DataFrame:
    """Mean absolute errors as text, a line a test set and property, a column a model."""
    table = pd.DataFrame(
        {
            "error": _each(matrix, _name),
            "tested on": matrix[place],
            "model": "trained on " + matrix["model"],
            "text": _each(matrix, _unranked).where(
                matrix["n_invalid"] > 0,
                with_spread(matrix["mae"], matrix["seed_sd"], ".3g", ".2g"),
            ),
        }
    )
    found = _wide(table, ["error", "tested on"], "model")
    order = pd.factorize(found["error"])[0].argsort(kind="stable")
    return found.iloc[order].reset_index(drop=True)


def law_table(laws: pd.DataFrame) -> pd.DataFrame:
    """Power laws in report units as text."""
    columns = {
        "trained on": laws["ensemble"],
        "tested on": laws["test_set"],
        "error E": _each(laws, _name),
        "a": laws["a"].map("{:.3g}".format),
        "b [95 %]": _each(laws, lambda row: with_interval(row, "b", ".2f", "b_")),
        "sizes": _each(laws, "{n_min} to {n_max}".format_map),
    }
    return pd.DataFrame(columns)


def needed_table(needed: pd.DataFrame) -> pd.DataFrame:
    """Training structures for an error, in report units, as text."""
    columns = {
        "trained on": needed["ensemble"],
        "tested on": needed["test_set"],
        "for an error of": _each(needed, "{error:.3g} {unit}, ".format_map)
        + needed["property"].map(label),
        "training structures": _each(needed, lambda row: _number(row["n_needed"], row)),
    }
    return pd.DataFrame(columns)


def crossing_table(crossings: pd.DataFrame) -> pd.DataFrame:
    """Where learning curves cross, in report units, as text."""
    there = _each(crossings, "{error:.3g} {unit}".format_map)
    columns = {
        "tested on": crossings["test_set"],
        "property": crossings["property"].map(label),
        "trained on": crossings["one"] + " and " + crossings["other"],
        "training structures": _each(crossings, lambda row: _number(row["n"], row)),
        "error there": there.where(crossings["n"].notna(), "–"),
    }
    return pd.DataFrame(columns)


def ratio_table(ratio: pd.DataFrame) -> pd.DataFrame:
    """Ratios of errors as text, a line a test set and model, a column a property.

    A column names the reference where there are several.
    """
    table = pd.DataFrame(
        {
            "tested on": ratio["test_set"],
            "trained on": ratio["model"],
            "reference": ratio["reference"],
            "property": ratio["property"].map(label),
            "text": _each(ratio, lambda row: with_interval(row, "ratio", ".2f")),
        }
    )
    wide = _wide(table, ["tested on", "trained on", "reference"], "property")
    return wide.drop(columns="reference") if wide["reference"].nunique() == 1 else wide


def with_interval(row: Mapping[Any, Any], name: str, form: str, prefix: str = "") -> str:
    """``row[name]`` and its interval, ``low`` and ``high`` (behind ``prefix``), as text."""
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    return f"{row[name]:{form}} [{low:{form}}, {high:{form}}]"


def with_spread(values: pd.Series, spread: pd.Series, form: str, spread_form: str) -> pd.Series:
    """Numbers ± their spread as text; without it where it is NaN."""
    added = spread.map(lambda sd: "" if np.isnan(sd) else f" ± {sd:{spread_form}}")
    return values.map(lambda value: f"{value:{form}}") + added


def share_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Bond shares by model, averaged over seeds, of the runs with the largest number of labels.

    Returns:
        ``structure``, ``bond_type``, ``model`` (``untrained`` for the control), ``share``,
        ``seed_sd``, ``n_seeds``; empty if no run has any.
    """
    tables = []
    chosen = runs[runs["n_train"] == runs["n_train"].max()]
    for run in chosen.to_dict("records"):
        if (path := Path(run["run"]) / SHARES).is_file():
            shares = pd.read_csv(path)
            names = {"trained": f"trained on {run['model']}", "untrained": "untrained"}
            tables.append(shares.assign(model=shares["model"].map(names)).dropna(subset="model"))
    columns = ["structure", "bond_type", "model"]
    if not tables:
        return pd.DataFrame(columns=[*columns, "share", "seed_sd", "n_seeds"])
    table = pd.concat(tables, ignore_index=True)
    if "property" in table:  # several may be attributed; the first is shown
        table = table[table["property"] == table["property"].iloc[0]]
    groups = table.groupby(columns, sort=False)["share"]
    found = groups.agg(share="mean", seed_sd="std", n_seeds="count").reset_index()
    last = found["model"] == "untrained"
    return pd.concat([found[~last], found[last]], ignore_index=True)


def run_table(runs: pd.DataFrame, trained: Mapping[str, Run]) -> pd.DataFrame:
    """A row a run: folder, model, steps, hours, versions.

    Args:
        runs: as :func:`.group_runs` gives them.
        trained: folder -> run.
    """
    rows = []
    for row in runs.to_dict("records"):
        record = trained[row["run"]].record
        versions = record.get("versions", {})
        rows.append(
            {
                "run": Path(row["run"]).name,
                "trained on": row["model"],
                "seed": row["seed"],
                "steps": record.get("steps", "not recorded"),
                "hours": row["hours"],
                "device": record.get("device", "not recorded"),
                "versions": ", ".join(f"{k} {v}" for k, v in versions.items()) or "not recorded",
                "folder": row["run"],
            }
        )
    return pd.DataFrame(rows)


def cost_table(runs: pd.DataFrame, trained: Mapping[str, Run]) -> pd.DataFrame:
    """Numbers of labels, and hours of labels and training, by model.

    Hours of labels are those of the whole database, with phonons and strained copies, in proportion
    to the model's labels; NaN unless the time of each calculation was recorded.
    """
    groups = runs.groupby("model", sort=False)
    table = groups.agg(
        runs=("run", "count"),
        labels=("n_labels", "first"),
        first=("run", "first"),
        hours=("hours", lambda hours: hours.sum(min_count=1)),
    )
    each = [_hours_of_a_label(trained[folder].datapath) for folder in table.pop("first")]
    table.insert(2, "label hours each", table["labels"] * each)
    table = table.rename(columns={"labels": "labels each", "hours": "training hours"})
    return table.rename_axis("trained on").reset_index()


def settings_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Main settings; different values of the runs are separated by a slash."""
    found = [*runs]
    rows = []
    every = {k: [OmegaConf.select(r.config, key) for r in found] for k, key in _SETTINGS.items()}
    every["patience"] = [_patience(run) for run in found]
    for name, of_runs in every.items():
        values = list(dict.fromkeys(map(str, of_runs)))
        if values != ["None"]:
            rows.append({"setting": name, "value": " / ".join(values)})
    return pd.DataFrame(rows)


def _patience(run: Run) -> int | None:
    """Of early stopping, whatever the callback is called."""
    for callback in (run.config.get("callbacks") or {}).values():
        if str((callback or {}).get("_target_")).endswith("EarlyStopping"):
            return callback.get("patience", 3)  # Lightning's own
    return None


def data_table(runs: Iterable[Run]) -> pd.DataFrame:
    """A row a database: its content and how it was made."""
    paths = dict.fromkeys(run.datapath for run in runs)
    return pd.DataFrame([_database(path) for path in paths])


def _hours_of_a_label(path: Path) -> float:
    try:
        metadata = read_metadata(path)
    except DatabaseError:  # of SchNetPack alone
        return np.nan
    cost = metadata.get("cost")  # databases of the first versions have none
    if not cost or cost["n_timed"] < cost["n_calculations"]:
        return np.nan
    return cost["hours"] / metadata["n_rows"]


def _database(path: Path) -> dict[str, Any]:
    try:
        metadata = read_metadata(path)
    except Exception as error:  # a database of SchNetPack alone has no such metadata
        return {"database": str(path), "made with": f"no data of {METADATA_KEY}: {error}"}
    settings = metadata["settings"]
    return {
        "database": path.name,
        "structures": metadata["n_rows"],
        "crystals": ", ".join(metadata["crystals"]),
        **{part: _listed(settings[part] or {}) for part in ("ensemble", "phonons", "calculator")},
        "made with": ", ".join(f"{k} {v}" for k, v in metadata["versions"].items()),
        "path": str(path),
    }


def _listed(settings: Mapping[str, Any]) -> str:
    return "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items())


def _unranked(row: Mapping[Any, Any]) -> str:
    n = row["n_invalid"]
    return f"not ranked: no prediction for {n} of {row['n']}" if n else ""


def _name(row: Mapping[Any, Any]) -> str:
    return f"{label(row['property'])} ({row['unit']})"


def _each(table: pd.DataFrame, text: Callable[[dict[Any, Any]], str]) -> pd.Series:
    """Text of each row of a table."""
    return pd.Series([*map(text, table.to_dict("records"))], table.index, dtype=object)


def _wide(table: pd.DataFrame, keys: list[str], column: str) -> pd.DataFrame:
    """A column for each value of ``column``, with ``text``; rows and columns in their order."""
    wide = table.pivot(index=keys, columns=column, values="text")
    order = table[keys].drop_duplicates().apply(tuple, axis=1)
    return wide.loc[order, table[column].unique()].fillna("–").reset_index()


def _number(n: float, law: Mapping[Any, Any]) -> str:
    if np.isnan(n):
        return "none"
    if n > _MANY:
        return f"more than {_MANY:.0g}"
    return f"{n:.2g}, extrapolated" if law["extrapolated"] else f"{n:.0f}"
