"""Many runs -> one page: which training data are better, and how certain that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from schnetpack_phonon.attribution.checks import checks_table, checks_text
from schnetpack_phonon.common.files import UNTRUSTED, Trust
from schnetpack_phonon.common.page import (
    Picture,
    Section,
    Table,
    markdown_table,
    strings,
    write_page,
)
from schnetpack_phonon.common.properties import band_gap, label
from schnetpack_phonon.evaluation.comparison import figures, learning_curves, tables
from schnetpack_phonon.evaluation.comparison.coverage import coverage_section
from schnetpack_phonon.evaluation.comparison.cross_tests import CrossTests, cross_test
from schnetpack_phonon.evaluation.comparison.run_groups import model_name, training_differences
from schnetpack_phonon.evaluation.comparison.uncertainty import error_matrix, ratios
from schnetpack_phonon.evaluation.metrics import in_report_units
from schnetpack_phonon.evaluation.runs import find_runs

_CAPTION = "Mean absolute errors ± their standard deviation over seeds"
_ERRORS = ("mae", "low", "high", "seed_sd", "rmse", "max_error", "mae_mean")


def compare(
    paths: Iterable[str | Path],
    folder: Path,
    test_paths: Sequence[Path] = (),
    reference: str = "phonon",
    trust: Trust = UNTRUSTED,
) -> str:
    """Tests finished runs on each other's data and writes a page about it.

    Args:
        paths: runs, or folders of runs such as those of a sweep.
        folder: of the page.
        test_paths: more test sets: databases or structure files with labels.
        reference: ensemble that the others are compared with; the first one if it is missing.
        trust: what the files of the runs may do.

    Returns:
        The main results, in a few lines.

    Raises:
        RunError: if there is no run.
        ComparisonError: if none is finished, or if units or calculators differ.
        HeldOutError: if a test set cannot be read.
    """
    found = cross_test(find_runs(paths), test_paths, trust)
    ensembles = list(found.runs["ensemble"].unique())
    if reference not in ensembles:
        reference = ensembles[0]
    data = _data(found, reference)
    claims = _claims(found, data["ratios"], reference)
    sections = [
        Section("What came out", claims, _ratios(data["ratios"], reference), claim=True),
        _evidence(found, data["errors"]),
        *_learning(data),
        *_shares(found),
        _temperatures(data["errors_by_parameter"]),
        coverage_section(found),
        _provenance(found),
    ]
    places = write_page(folder, "Which training data are better?", sections)
    matrix = tables.matrix_table(_largest(found, data["errors"])[1])
    rows = matrix.astype(str).to_numpy().tolist()
    table = [f"{_CAPTION}:", "", *markdown_table(list(matrix.columns), rows), ""]
    lines = [
        *table,
        *claims,
        *found.notes,
        *(f"skipped {k}: {v}" for k, v in found.skipped.items()),
    ]
    return "\n".join([*lines, f"page: {places['page'].resolve()}"])


def _data(found: CrossTests, reference: str) -> dict[str, pd.DataFrame]:
    """The tables of the page by the names of their files, in report units from here on."""
    by_group = error_matrix(found.runs, found.errors, by_group=True)
    sizes = found.runs.groupby("model")["n_train"].first()
    curves = learning_curves.learning_curves(found.runs, found.errors)
    laws = learning_curves.power_laws(curves)
    return {
        "ratios": ratios(found.runs, found.errors, reference),
        "errors": in_report_units(error_matrix(found.runs, found.errors), _ERRORS),
        "errors_by_parameter": in_report_units(by_group, _ERRORS).assign(
            n_train=by_group["model"].map(sizes)
        ),
        "learning_curves": in_report_units(curves, ["mae"]),
        "power_laws": in_report_units(laws, ["a"]),
        "labels_needed": in_report_units(learning_curves.labels_needed(laws, curves), ["error"]),
        "crossings": in_report_units(learning_curves.crossings(laws), ["error"]),
    }


def _claims(found: CrossTests, ratio: pd.DataFrame, reference: str) -> list[str]:
    """The comparison at the largest number of labels that two ensembles share, in words.

    On structures of the reference if there are any; the table has the other test sets.
    """
    runs = {run["model"]: run for run in found.runs.to_dict("records")}
    lines = []
    for ensemble in [e for e in found.runs["ensemble"].unique() if e != reference]:
        own = ratio[ratio["ensemble"] == ensemble]
        if own.empty:
            lines.append(
                f"{reference} and {ensemble} have no models with equally many training structures "
                "and finite predictions, so they cannot be compared."
            )
            continue
        own = own[own["n_train"] == own["n_train"].max()]
        if (own["test_set"] == reference).any():
            own = own[own["test_set"] == reference]
        for (test_set, *models), rows in own.groupby(
            ["test_set", "model", "reference"], sort=False
        ):
            model, other = (model_name(runs[name], size=False) for name in models)
            factors = [
                f"{tables.with_interval(row, 'ratio', '.2f')} for the {label(row['property'])}"
                for row in rows.to_dict("records")
            ]
            unlike = training_differences(*(runs[name] for name in models))
            more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
            caution = (
                f" They were not trained alike, so the data are not all that differs: "
                f"{', '.join(unlike[:3])}{more}."
            )
            n = rows["n_seeds"].min()
            seeds = "one seed, so without the spread of training" if n == 1 else f"{n} seeds"
            lines.append(
                f"Tested on {test_set}, {rows['n_train'].max()} training structures each: the "
                f"error of models trained on {model} divided by that of models trained on {other} "
                f"is {', '.join(factors)} (95 %; {seeds}).{caution if unlike else ''}"
            )
    if not lines:
        lines.append(f"All models were trained on {reference}: there is nothing to compare with.")
    return [*lines, *found.not_ranked]


def _ratios(ratio: pd.DataFrame, reference: str) -> list[Table]:
    if ratio.empty:
        return []
    shown = ratio[ratio["n_train"] == ratio["n_train"].max()]
    shown = shown.sort_values("test_set", key=lambda names: names != reference, kind="stable")
    caption = (
        f"Mean absolute errors divided by those of models trained on {reference} [95 %]: below 1 "
        "they are smaller."
    )
    return [Table("ratios", tables.ratio_table(shown), ratio, caption)]


def _largest(found: CrossTests, matrix: pd.DataFrame) -> tuple[int, pd.DataFrame]:
    """The largest number of labels that most ensembles share, and errors of its models."""
    sizes = found.runs.groupby("n_train")["ensemble"].nunique()
    largest = sizes.index[sizes == sizes.max()].max()
    models = found.runs.loc[found.runs["n_train"] == largest, "model"].unique()
    return largest, matrix[matrix["model"].isin(models)]


def _evidence(found: CrossTests, matrix: pd.DataFrame) -> Section:
    largest, shown = _largest(found, matrix)
    text = [
        "Each model is tested on structures that no model of the comparison has seen: neither in "
        "training nor in early stopping, nor another snapshot with the same parent.",
        f"Shown are models of {largest} training structures; all are in data/errors.csv and "
        "data/ratios.csv.",
    ]
    worse = shown[shown["r2_crystal"] < 0]
    if len(worse):
        named = (
            f"{row['model']} on {row['test_set']} ({label(row['property'])})"
            for row in worse.to_dict("records")
        )
        text.append(f"Worse than predicting the mean of each crystal: {'; '.join(named)}.")
    if not matrix["common"].all():
        text.append(
            "Own split in the table of all errors: the splits of the runs have too few test "
            "structures in common, so each model is tested on its own ones, and such errors are "
            "not for the same structures."
        )
    caption = f"Errors of models trained on {largest} structures each, on every test set."
    return Section(
        "Every model on every test set",
        text,
        [
            Picture("cross_tests", caption, figures.cross_matrix(shown), shown),
            Table("matrix", tables.matrix_table(shown), shown, _CAPTION),
            Table("errors", tables.error_table(shown), matrix, "All errors", folded=True),
        ],
    )


def _learning(data: dict[str, pd.DataFrame]) -> list[Section]:
    curves, laws = data["learning_curves"], data["power_laws"]
    if curves.empty:
        return []
    text = [
        "Small training sets are subsets of large ones, and all models were trained for the same "
        "number of steps. Lines are E = a N^-b, fitted only to three or more sizes.",
        "Numbers of structures outside twice the range of the data are extrapolated: an order of "
        "magnitude, no more.",
    ]
    caption = "Error against number of training structures."
    figure = figures.learning_curves(curves, laws)
    folded = [
        Table(name, as_text(data[name]), data[name], title, folded=True)
        for name, as_text, title in (
            ("power_laws", tables.law_table, "Power laws"),
            ("labels_needed", tables.needed_table, "Training structures for an error"),
            ("crossings", tables.crossing_table, "Where the curves cross"),
        )
        if not data[name].empty
    ]
    picture = Picture("learning_curves", caption, figure, curves)
    return [Section("How many labels", text, [picture, *folded])]


def _shares(found: CrossTests) -> list[Section]:
    shares = tables.share_table(found.runs)
    if shares.empty:
        return []
    picture = Picture(
        "attribution",
        "Share of each bond type in the variance of the predicted change, by training data; bars "
        "are the standard deviation over seeds. Grey: untrained weights.",
        figures.attribution_shares(shares),
        shares,
    )
    table = shares.assign(text=tables.with_spread(shares["share"], shares["seed_sd"], ".2f", ".2f"))
    wide = table.pivot(index=["structure", "bond_type"], columns="model", values="text")
    rows = wide[shares["model"].unique()].fillna("–").reset_index()
    text = [
        "Shares that untrained weights give too say nothing about what was learnt. Shares ± their "
        "standard deviation over seeds.",
    ]
    items: list[Picture | Table] = [picture, Table("attribution", rows, shares, "Shares")]
    if maps := figures.bond_maps(found.runs):
        caption = "Bonds of a test structure of each, by their part in its predicted change."
        items.append(Picture("bonds_3d", caption, maps))
    checks = checks_table(found.runs)
    if not checks.empty:
        text.append(
            "Reliability, by training data: the largest part of a structure's change that the "
            "bonds miss (completeness); correlation of the predicted and the actual effect of "
            "freezing bonds (faithfulness r), and of single bonds between seeds; and in how many "
            "crystals the leading bond differs clearly from the untrained control."
        )
        items.append(Table("trust", checks_text(checks), checks, "Reliability"))
    return [Section("Which bonds", text, items)]


def _temperatures(table: pd.DataFrame) -> Section:
    key = band_gap if band_gap in set(table["property"]) else table["property"].iloc[0]
    rows = table[(table["n_train"] == table["n_train"].max()) & (table["property"] == key)]
    text = (
        f"Errors of the {label(key)}; those of all properties and models are in "
        "data/errors_by_parameter.csv."
    )
    matrix, errors = tables.matrix_table(rows, "group"), tables.error_table(rows, "group")
    return Section(
        "By temperature and amplitude",
        [text],
        [
            Table("matrix_by_parameter", matrix, rows, _CAPTION),
            Table("errors_by_parameter", errors, table, "All errors", folded=True),
        ],
    )


def _provenance(found: CrossTests) -> Section:
    skipped = [f"Skipped: {name}: {why}" for name, why in found.skipped.items()]
    hours = dict.fromkeys(("training hours", "label hours each", "hours"), ".3g")
    shown = {
        "cost": tables.cost_table(found.runs, found.trained),
        "settings": tables.settings_table(found.trained.values()),
        "databases": tables.data_table(found.trained.values()),
        "runs": tables.run_table(found.runs, found.trained),
    }
    items = [
        Table(name, strings(table, hours), table, name.capitalize(), folded=name == "runs")
        for name, table in shown.items()
    ]
    return Section("Runs, settings, data, cost", [*found.notes, *skipped], items)
