"""Many runs -> one page: which training data are better, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from schnetpack_phonon.attribution.checks import checks_table, checks_text
from schnetpack_phonon.common.page import Picture, Section, Table, strings, write_page
from schnetpack_phonon.common.properties import band_gap
from schnetpack_phonon.evaluation.comparison import figures as figures
from schnetpack_phonon.evaluation.comparison.coverage import coverage_section
from schnetpack_phonon.evaluation.comparison.cross_tests import CrossTests, cross_test
from schnetpack_phonon.evaluation.comparison.learning_curves import (
    crossings,
    labels_needed,
    learning_curves,
    power_laws,
)
from schnetpack_phonon.evaluation.comparison.tables import (
    cost_table,
    crossing_table,
    data_table,
    error_table,
    law_table,
    matrix_table,
    needed_table,
    ratio_table,
    run_table,
    settings_table,
    share_table,
)
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
) -> str:
    """Tests finished runs on each other's data and writes the page about it.

    Args:
        paths: runs, or folders of runs such as those of a sweep.
        folder: where the page goes.
        test_paths: more test sets: databases or structure files with labels.
        reference: ensemble that the others are compared with; the first one where it is not there.

    Returns:
        What came out, in a few lines.

    Raises:
        RunError: if there is no run.
        ComparisonError: if none is finished, or where units or calculators differ.
        HeldOutError: if a test set cannot be read.
    """
    found = cross_test(find_runs(paths), test_paths)
    ensembles = list(found.runs["ensemble"].unique())
    if reference not in ensembles:
        reference = ensembles[0]
    matrix = error_matrix(found.runs, found.errors)
    ratio = ratios(found.runs, found.errors, reference)
    claims = _claims(found, ratio, reference)
    sections = [
        Section("What came out", claims, _ratios(ratio, reference), claim=True),
        _evidence(found, matrix),
        *_learning(found),
        *_shares(found),
        _temperatures(found),
        coverage_section(found),
        _provenance(found),
    ]
    places = write_page(folder, "Which training data are better?", sections)
    lines = [*claims, *found.notes, *(f"skipped {k}: {v}" for k, v in found.skipped.items())]
    return "\n".join([*lines, f"page: {places['page'].resolve()}"])


def _claims(found: CrossTests, ratio: pd.DataFrame, reference: str) -> list[str]:
    """The comparison at the largest number of labels that two ensembles share, in words.

    On structures of the reference, where there are any; the table beside has the other test sets.
    """
    lines = []
    for ensemble in [e for e in found.runs["ensemble"].unique() if e != reference]:
        own = ratio[ratio["ensemble"] == ensemble]
        if own.empty:
            lines.append(
                f"{reference} and {ensemble} have no models with equally many training structures, "
                "so nothing is said about which is better."
            )
            continue
        own = own[own["n_train"] == own["n_train"].max()]
        if (own["test_set"] == reference).any():
            own = own[own["test_set"] == reference]
        for (test_set, model, other), rows in own.groupby(
            ["test_set", "model", "reference"], sort=False
        ):
            n = f", N = {rows['n_train'].max()}"
            said = [
                f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}] for the "
                f"{figures.label(row['property'])}"
                for row in rows.to_dict("records")
            ]
            lines.append(
                f"Tested on {test_set}, {rows['n_train'].max()} training structures each: the "
                f"error of models trained on {model.replace(n, '')} divided by that of models "
                f"trained on {other.replace(n, '')} is {', '.join(said)} (95 %; "
                f"{_seeds(rows['n_seeds'].min())})."
            )
    if not lines:
        lines.append(f"All models were trained on {reference}: there is nothing to compare with.")
    return lines


def _seeds(n: int) -> str:
    return "one seed, so without the spread of training" if n == 1 else f"{n} seeds"


def _ratios(ratio: pd.DataFrame, reference: str) -> list[Table]:
    if ratio.empty:
        return []
    shown = ratio[ratio["n_train"] == ratio["n_train"].max()]
    shown = shown.sort_values("test_set", key=lambda names: names != reference, kind="stable")
    caption = (
        f"Mean absolute errors divided by those of models trained on {reference} [95 %]: below 1 "
        "they are smaller."
    )
    return [Table("ratios", ratio_table(shown), ratio, caption)]


def _evidence(found: CrossTests, matrix: pd.DataFrame) -> Section:
    sizes = found.runs.groupby("n_train")["ensemble"].nunique()
    largest = sizes.index[sizes == sizes.max()].max()
    models = found.runs.loc[found.runs["n_train"] == largest, "model"].unique()
    shown = in_report_units(matrix[matrix["model"].isin(models)], _ERRORS)
    text = [
        "Each model predicts structures that neither it nor any model beside it has seen: not in "
        "training, not to decide when to stop, and no snapshot of the same parent.",
        f"Shown are models of {largest} training structures; all are in data/errors.csv and "
        "data/ratios.csv.",
    ]
    if not matrix["common"].all():
        text.append(
            "Where the table of all errors says own split, the splits of the runs leave no "
            "structures that none has seen, and each is tested on its own: such errors are not of "
            "the same structures."
        )
    picture = Picture(
        "cross_tests",
        f"Errors of models trained on {largest} structures each, on every test set.",
        figures.cross_matrix(shown),
        shown,
    )
    all_errors = in_report_units(matrix, _ERRORS)
    return Section(
        "Every model on every test set",
        text,
        [
            picture,
            Table("matrix", matrix_table(shown), shown, _CAPTION),
            Table("errors", error_table(shown), all_errors, "All errors", folded=True),
        ],
    )


def _learning(found: CrossTests) -> list[Section]:
    curves = learning_curves(found.runs, found.errors)
    if curves.empty:
        return []
    laws = power_laws(curves)
    needed = _needed(curves, laws)
    crossing = in_report_units(crossings(laws), ["error"])
    curves = in_report_units(curves, ["mae"])
    shown_laws = in_report_units(laws, ["a"])
    picture = Picture(
        "learning_curves",
        "Error against number of training structures.",
        figures.learning_curves(curves, shown_laws),
        curves,
    )
    text = [
        "Small training sets are parts of large ones, and all models made equally many steps. "
        "Lines are E = a N^-b; fits through fewer than three sizes are not made.",
        "Numbers of structures outside twice the range of the data are extrapolated: an order of "
        "magnitude, no more.",
    ]
    tables = [
        Table(name, rows, data, caption, folded=True)
        for name, rows, data, caption in (
            ("power_laws", law_table(shown_laws), shown_laws, "Power laws"),
            ("labels_needed", needed_table(needed), needed, "Training structures for an error"),
            ("crossings", crossing_table(crossing), crossing, "Where the curves cross"),
        )
        if not rows.empty
    ]
    return [Section("How many labels", text, [picture, *tables])]


def _needed(curves: pd.DataFrame, laws: pd.DataFrame) -> pd.DataFrame:
    """Labels that each ensemble needs for the errors of the best one at its largest number."""
    tables = []
    for place, own in laws.groupby(["test_set", "property"], sort=False):
        rows = curves[(curves["test_set"] == place[0]) & (curves["property"] == place[1])]
        means = rows.groupby(["ensemble", "n_train"])["mae"].mean()
        tables.append(in_report_units(labels_needed(own, [float(means.min())]), ["error"]))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _shares(found: CrossTests) -> list[Section]:
    shares = share_table(found.runs)
    if shares.empty:
        return []
    picture = Picture(
        "attribution",
        "Share of each bond type in the variance of the predicted change, by training data; bars "
        "are the standard deviation over seeds. Grey: untrained weights.",
        figures.attribution_shares(shares),
        shares,
    )
    said = shares["share"].map("{:.2f}".format) + shares["seed_sd"].map(" ± {:.2f}".format)
    table = shares.assign(said=said.str.replace(" ± nan", ""))
    wide = table.pivot(index=["structure", "bond_type"], columns="model", values="said")
    rows = wide[shares["model"].unique()].fillna("–").reset_index()
    text = [
        "Shares that untrained weights have, too, say nothing about what was learnt. A share ± its "
        "standard deviation over seeds.",
    ]
    tables = [Table("attribution", rows, shares, "Shares")]
    trust = checks_table(found.runs)
    if not trust.empty:
        text.append(
            "Trust, by training data: the largest part of a structure's change that the bonds miss "
            "(completeness); correlation of what bonds foretell with what freezing them does "
            "(faithfulness r), and of single bonds of different seeds; and in how many crystals "
            "the leading bond lies clear of the untrained control."
        )
        tables.append(Table("trust", checks_text(trust), trust, "Trust"))
    return [Section("Which bonds", text, [picture, *tables])]


def _temperatures(found: CrossTests) -> Section:
    table = error_matrix(found.runs, found.errors, by_group=True)
    table = in_report_units(table, _ERRORS)
    sizes = found.runs.groupby("model")["n_train"].first()
    table["n_train"] = table["model"].map(sizes)
    largest = table[table["n_train"] == table["n_train"].max()]
    key = band_gap if band_gap in set(table["property"]) else table["property"].iloc[0]
    rows = largest[largest["property"] == key]
    text = [
        f"Errors of the {figures.label(key)}; those of all properties and models are in "
        "data/errors_by_parameter.csv."
    ]
    tables = [
        Table("matrix_by_parameter", matrix_table(rows, place="group"), rows, _CAPTION),
        Table("errors_by_parameter", error_table(rows, "group"), table, "All errors", folded=True),
    ]
    return Section("By temperature and amplitude", text, tables)


def _provenance(found: CrossTests) -> Section:
    runs, cost = run_table(found.runs, found.trained), cost_table(found.runs, found.trained)
    settings, data = (of(found.trained.values()) for of in (settings_table, data_table))
    hours = dict.fromkeys(("training hours", "label hours each"), ".3g")
    skipped = [f"Skipped: {name}: {why}" for name, why in found.skipped.items()]
    return Section(
        "Runs, settings, data, cost",
        [*found.notes, *skipped],
        [
            Table("cost", strings(cost, hours), cost, "Cost"),
            Table("settings", strings(settings, {}), settings, "Settings"),
            Table("databases", strings(data, {}), data, "Databases"),
            Table("runs", strings(runs, {"hours": ".3g"}), runs, "Runs", folded=True),
        ],
    )
