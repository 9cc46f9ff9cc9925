"""Properties at temperature as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from schnetpack_phonon import thermal_figures as figures
from schnetpack_phonon.common.page import Picture, Section, Table, strings, write_page
from schnetpack_phonon.common.properties import band_gap, label
from schnetpack_phonon.evaluation import in_report_units
from schnetpack_phonon.runs import find_runs, read_run
from schnetpack_phonon.thermal import ThermalProperties, thermal_properties

MODE_TEMPERATURE = 300.0  # K


_SHOWN = 12  # modes in the table


def thermal_report(
    paths: Sequence[Path], folder: Path, temperatures: Sequence[float], n_snapshots: int, seed: int
) -> str:
    """Averages of finished runs over thermal snapshots, and the page about them.

    Args:
        paths: a run, or several that differ in their seeds.
        folder: where the page goes.
        temperatures: in K.
        n_snapshots: of each crystal, temperature and statistics.
        seed: of the snapshots.

    Returns:
        What came out, in a few lines.

    Raises:
        RunError: if a run is unfinished, or its phonons are not known.
    """
    runs = [read_run(path) for path in find_runs(paths)]
    every = sorted({*map(float, temperatures)})
    found = thermal_properties(runs, every, n_snapshots, seed, MODE_TEMPERATURE)
    claims = [*_renormalisation(found, every), *(f"Far outside: {w}." for w in found.warnings)]
    sections = [Section("What came out", claims, claim=True), _averages(found)]
    if not found.modes.empty:
        sections.append(_modes(found))
    sections.append(
        Section(
            "How",
            [
                f"{n_snapshots} snapshots of each crystal, temperature and statistics, drawn with "
                f"seed {seed}; errors are standard errors over snapshots. They say nothing of the "
                "errors of the model: compare with the labels, and with models of other seeds "
                "(shaded: standard deviation over models). The lattice does not expand.",
                "Runs: " + ", ".join(str(run.folder) for run in runs),
            ],
        )
    )
    places = write_page(folder, "Properties at temperature", sections)
    return "\n".join([*claims, f"page: {places['page'].resolve()}"])


def _renormalisation(found: ThermalProperties, temperatures: Sequence[float]) -> list[str]:
    """The change of the gap, at 300 K if that is there."""
    nearest = min(temperatures, key=lambda t: abs(t - MODE_TEMPERATURE))
    table = found.averages
    chosen = {
        "temperature": nearest,
        "property": band_gap,
        "estimate": "ensemble",
        "statistics": "quantum",
    }
    for column, value in chosen.items():
        table = table[table[column] == value]
    lines = []
    for row in table.to_dict("records"):
        spread = "one model"
        if not pd.isna(row["change_sd"]):
            spread = f"standard deviation over models {1e3 * row['change_sd']:.0f}"
        lines.append(
            f"{row['structure']}: the band gap changes by {1e3 * row['change']:.0f} ± "
            f"{1e3 * row['error']:.0f} meV from rest to {nearest:g} K (± statistical; {spread})."
        )
    return lines


def _averages(found: ThermalProperties) -> Section:
    table = in_report_units(found.averages, ["value", "error", "seed_sd", "change", "change_sd"])
    table.loc[table["property"].str.endswith("modulus"), "unit"] = "GPa"
    static = in_report_units(found.static, ["value", "seed_sd"])
    picture = Picture(
        "against_temperature",
        "Averages over thermal snapshots, quantum and classical, beside labels and special "
        "displacements; dotted: atoms at rest.",
        figures.against_temperature(table, static),
        table,
    )
    gaps = table[table["property"] == table["property"].iloc[0]]
    shown = gaps.assign(
        property=[f"{label(k)} ({u})" for k, u in gaps[["property", "unit"]].values]
    )
    shown = shown[shown["estimate"] != "special"].drop(columns=["unit", "change", "change_sd"])
    formats = {"temperature": "g", "value": ".4g", "error": ".2g", "seed_sd": ".2g"}
    rows = strings(shown, {**formats, "distance": ".2g"})
    text = [
        "All properties are in data/averages.csv; distances are from the training set, 1 being "
        "that of training structures from each other.",
    ]
    tables = [Table("averages", rows, table)]
    if not found.differences.empty:
        text.append(
            "Quantum and classical snapshots are drawn with the same random numbers, so their "
            "difference is compared pair by pair: its error is not that of two averages."
        )
        tables.append(_differences(found))
    return Section("Against temperature", text, [picture, *tables])


def _differences(found: ThermalProperties) -> Table:
    table = in_report_units(found.differences, ["value", "error", "seed_sd"])
    shown = table[table["property"] == table["property"].iloc[0]]
    shown = shown.assign(
        property=[f"{label(k)} ({u})" for k, u in shown[["property", "unit"]].values]
    )
    shown = shown.drop(columns="unit").rename(columns={"value": "quantum - classical"})
    formats = {"temperature": "g", "error": ".2g", "seed_sd": ".2g", "quantum - classical": ".3g"}
    return Table("quantum_minus_classical", strings(shown, formats), table)


def _modes(found: ThermalProperties) -> Section:
    table = found.modes.sort_values(["structure", "shift"])
    picture = Picture(
        "modes",
        "Which phonons close the gap: its change along each mode.",
        figures.modes(found.modes, MODE_TEMPERATURE),
        found.modes,
    )
    first = table.groupby("structure").head(_SHOWN // table["structure"].nunique() or 1)
    shown = first.assign(shift=1e3 * first["shift"])
    shown = shown.rename(
        columns={
            "shift": "change of the gap (meV)",
            "frequency": "frequency (THz)",
            "mode": "first mode",
            "n": "modes of this frequency",
        }
    )
    columns = ["structure", "first mode", "frequency (THz)", "modes of this frequency"]
    rows = strings(
        shown[[*columns, "change of the gap (meV)"]],
        {"frequency (THz)": ".2f", "change of the gap (meV)": ".2f"},
    )
    text = [
        "Each mode displaced alone by plus and minus one standard deviation; the mean of both, and "
        "over modes of one frequency. Changes of many modes together do not add up where bands "
        "split or modes couple.",
    ]
    return Section("Single modes", text, [picture, Table("modes", rows, table)])
