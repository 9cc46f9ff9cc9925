"""A short page about a run: its results and the places of its files."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from schnetpack_phonon.attribution.results import FIGURES, SHARES, VERDICT
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import ReportError
from schnetpack_phonon.common.page import Section, Table, write_markdown
from schnetpack_phonon.common.progress import duration
from schnetpack_phonon.common.style import color, marker, panels
from schnetpack_phonon.common.terminal.console import quiet
from schnetpack_phonon.data.card import partly_filled
from schnetpack_phonon.data.reading import read_labels, read_provenance
from schnetpack_phonon.evaluation.metrics import mean_label, named_components
from schnetpack_phonon.evaluation.runs import RECORD

log = logging.getLogger(__name__)

PAGE = "report.md"
METRICS = "metrics.csv"
PREDICTIONS = "predictions.csv"
_MANY = 1000  # points of a panel
_DATABASE, _MODEL, _FOLDER = "database", "model", "run folder"  # in the list of places


def write_report(folder: Path, datapath: str, model_path: str) -> str:
    """Writes ``report.md`` from the tables and figures in a run folder.

    Args:
        folder: of the run, with ``metrics.csv``, ``bond_shares.csv`` and ``figures`` if there are.
        datapath: the database.
        model_path: the trained model, relative to the folder.

    Returns:
        The page.

    Raises:
        ReportError: if there is no ``metrics.csv``.
    """
    if not (folder / METRICS).is_file():
        raise ReportError(f"no {METRICS} in {folder}: the run has not finished its test")
    metrics = pd.read_csv(folder / METRICS, dtype={"unit": str})
    text = [f"Test set: {metrics['n'].max()} structures", *problems(folder)]
    text += partly_filled(read_labels(datapath)) if Path(datapath).is_file() else []
    sections = [Section("", text, [_errors(metrics)])]
    if (folder / SHARES).is_file():
        shares = pd.read_csv(folder / SHARES).dropna(subset="share")
        sections += [Section("", [], [_shares(shares)])] if len(shares) else []
    if (folder / VERDICT).is_file():
        sections.append(Section("", [_listed((folder / VERDICT).read_text().splitlines())]))
    places = {
        _DATABASE: Path(datapath).resolve(),
        _MODEL: (folder / model_path).resolve(),
        "tables": ", ".join(path.name for path in sorted(folder.glob("*.csv"))),
        "figures": ", ".join(path.name for path in sorted((folder / FIGURES).glob("*.png"))),
        _FOLDER: folder.resolve(),
    }
    sections.append(Section("", [_listed(f"{k}: {place}" for k, place in places.items() if place)]))
    return write_markdown(folder / PAGE, folder.name, sections)


def tell(folder: Path, datapath: str, seconds: float, training: float) -> None:
    """Warns of :func:`problems` and prints the :func:`summary`, unless commands are quiet."""
    for problem in problems(folder):
        log.warning("%s", problem)
    if not quiet():
        print("\n" + summary(folder, datapath, seconds, training), flush=True)


def problems(folder: Path) -> list[str]:
    """:func:`warnings` of a run, and what to do about a model that has learned nothing."""
    metrics = pd.read_csv(folder / METRICS, dtype={"unit": str})
    advice = _advice(folder) if (metrics["r2_crystal"] < 0).any() else []
    return [*warnings(metrics), *advice]


def summary(folder: Path, datapath: str, seconds: float, training: float) -> str:
    """The end of a run in a few lines: errors, duration, files, and commands that may follow.

    Args:
        folder: of the run.
        datapath: the database.
        seconds: of all.
        training: seconds of the training alone.
    """
    metrics = pd.read_csv(folder / METRICS).fillna({"unit": ""})
    run, names = _from_here(folder), [_per_component(key) for key in metrics["property"]]
    width = max(map(len, names))
    errors = [
        f"{name:{width}}  {row['mae']:.3g} {row['unit']} ({row['mae_crystal_mean']:.3g})"
        for name, row in zip(names, metrics.to_dict("records"), strict=True)
    ]
    n_figures = len([*(folder / FIGURES).glob("*.png")])
    rows = {
        "errors": [
            f"mean absolute, of {metrics['n'].max()} test structures (in brackets: those of the "
            "mean of each crystal)",
            *errors,
        ],
        "time": [f"{duration(seconds)}, of which training {duration(training)}"],
        "database": [_from_here(Path(datapath))],
        "run": [f"{run}: {PAGE}, {n_figures} figures in {FIGURES}"],
        "next": [f"spkphonon report {run}", f"spkphonon predict {run} STRUCTURES -o OUT.csv"],
    }
    if "temperature" in read_provenance(datapath):
        rows["next"].append(f"spkphonon thermal {run}")
    lines = [
        f"{'' if number else name:10}{line}"
        for name, own in rows.items()
        for number, line in enumerate(own)
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join([rule, *lines, rule])


def _from_here(path: Path) -> str:
    """Relative to the folder where the command was started, if it is below that."""
    start = Path(os.environ.get("PWD", os.getcwd()))
    path = path.resolve()
    return str(path.relative_to(start) if path.is_relative_to(start) else path)


def read_report(folder: Path) -> str:
    """The page of a finished run, with the places that its files have now.

    Raises:
        ReportError: if there is none.
    """
    if not (folder / PAGE).is_file():
        raise ReportError(f"no {PAGE} in {folder.resolve()}: not a finished run of this package")
    page = (folder / PAGE).read_text()
    places = dict(re.findall(rf"^- ({_DATABASE}|{_MODEL}|{_FOLDER}): (.*)$", page, re.MULTILINE))
    before, now = places.get(_FOLDER, ""), str(folder.resolve())
    for what, place in places.items() if before != now else ():
        moved = os.path.normpath(os.path.join(now, os.path.relpath(place, before)))
        if os.path.exists(moved):
            page = page.replace(f"- {what}: {place}\n", f"- {what}: {moved}\n")
    return page


def parity(predictions: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Prediction against label, one panel for each property, one colour for each crystal.

    Components of a property share its panel.

    Args:
        predictions: ``property``, ``structure``, ``component`` if there are any, ``label``,
            ``prediction`` in report units.
        errors: indexed by property: ``mae`` (in report units), ``r2`` and ``r2_crystal``.

    Predictions that are NaN or infinite are counted in the title of the panel.
    """
    keys = list(errors.index)
    figure, axes = panels(len(keys), (4.2, 3.9))
    structures = sorted(predictions["structure"].unique())
    for axis, key in zip(axes, keys, strict=True):
        rows = predictions[predictions["property"] == key].copy()
        valid = np.isfinite(rows["prediction"])
        relative = properties.property_of(key).arbitrary_zero
        if relative:
            mean = mean_label(named_components(rows), ["structure", "component"])
            rows[["label", "prediction"]] = rows[["label", "prediction"]].sub(mean, axis=0)
        rows = rows[valid]
        for k, structure in enumerate(structures):
            own = rows[rows["structure"] == structure]
            look = {"color": color(k), **_points(len(rows)), "mew": 0, "label": structure}
            axis.plot(own["label"], own["prediction"], marker(k), **look)
        both = rows[["label", "prediction"]].to_numpy()
        low, high = (both.min(), both.max()) if len(both) else (0.0, 0.0)
        margin = 0.05 * (high - low) or 1.0
        limits = low - margin, high + margin
        axis.plot(limits, limits, color="0.4", linewidth=0.8, zorder=0)
        label, unit = properties.property_of(key).label, properties.property_of(key).report_unit
        r2, value = "R²", errors.loc[key, "r2"]
        if relative:
            label = f"{label} − crystal mean"
            r2, value = "R² within crystals", errors.loc[key, "r2_crystal"]
        axis.set(
            xlim=limits,
            ylim=limits,
            xlabel=f"calculated {label} ({unit})",
            ylabel=f"predicted {label} ({unit})",
            aspect="equal",
        )
        title = f"MAE {errors.loc[key, 'mae']:.3g} {unit}"
        if np.isfinite(value):  # not of one structure
            title += f",  {r2} {value:.3f}"
        if not valid.all():
            title = f"{(~valid).sum()} of {len(valid)} predictions are NaN or infinite"
        axis.set_title(title, fontsize="medium")
        axis.locator_params(nbins=5)
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def _points(n: int) -> dict[str, float]:
    """Size and opacity of points, of which thousands of forces lie above each other."""
    return {"ms": 4.5, "alpha": 0.75} if n < _MANY else {"ms": 2.5, "alpha": 0.3}


def warnings(metrics: pd.DataFrame) -> list[str]:
    """What a reader of errors is to know first: predictions that are no numbers, or no use.

    Args:
        metrics: of ``metrics.csv``; former versions did not count predictions that are no numbers.
    """
    found = []
    for row in metrics.to_dict("records"):
        name = properties.label(row["property"])
        if row.get("n_invalid"):
            found.append(
                f"No errors of the {name}: {row['n_invalid']} of {row['n']} predictions are NaN or "
                f"infinite. {PREDICTIONS} names the structures."
            )
        elif row["r2_crystal"] < 0:
            found.append(
                f"Predictions of the {name} are worse than the mean of each crystal (R² within "
                f"crystals {row['r2_crystal']:.2f}): the model says nothing about changes within a "
                "crystal."
            )
    return found


def _advice(folder: Path) -> list[str]:
    """What to do about a model that has learned nothing, if it is known how long it was trained."""
    record = json.loads((folder / RECORD).read_text()) if (folder / RECORD).is_file() else {}
    if not {"steps", "epochs", "n_train"} <= record.keys():
        return []
    return [
        f"It was trained on {record['n_train']} structures for {record['epochs']} epochs, "
        f"{record['steps']} steps in all. Train longer (trainer.max_epochs, "
        "callbacks.early_stopping.patience), or label more structures."
    ]


def _errors(metrics: pd.DataFrame) -> Table:
    names = {"mae": "MAE", "rmse": "RMSE", "r2": "R²", "r2_crystal": "R² within crystals"}
    names |= {"mae_mean": "MAE of the mean", "mae_crystal_mean": "MAE of the crystal's mean"}
    shown = metrics.fillna({"unit": ""}).assign(property=metrics["property"].map(_per_component))
    shown = shown[["property", "unit", *names]].rename(columns=names)
    for key, name in names.items():
        text = "{:.3f}" if key[:2] == "r2" else "{:.3g}"
        shown[name] = [text.format(x) if np.isfinite(x) else "–" for x in shown[name]]
    return Table("errors", shown)


def _per_component(key: str) -> str:
    known = properties.property_of(key)
    return f"{known.label} (per component)" if known.shape else known.label


def _shares(shares: pd.DataFrame) -> Table:
    pairs = ["structure", "bond_type"]
    trained, control = (shares[shares["model"] == m] for m in ("trained", "untrained"))
    both = trained.merge(control, on=pairs, suffixes=("", "_control"), how="left")
    both = both.sort_values(["structure", "share"], ascending=[True, False])
    rows = [
        {
            "crystal": row["structure"],
            "bond": row["bond_type"],
            "variance share [95 %]": _share(row, ""),
            "untrained control": _share(row, "_control"),
        }
        for row in both.groupby("structure").head(3).to_dict("records")
    ]
    return Table("shares", pd.DataFrame(rows))


def _share(row: Mapping[Any, Any], suffix: str) -> str:
    share, low, high = (row[f"{name}{suffix}"] for name in ("share", "low", "high"))
    if np.isnan(share):
        return "none"
    return f"{share:.2f}" if np.isnan(low) else f"{share:.2f} [{low:.2f}, {high:.2f}]"


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
