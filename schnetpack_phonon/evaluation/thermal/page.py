"""Properties at temperature as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from schnetpack_phonon.common.page import Picture, Section, Table, strings, write_page
from schnetpack_phonon.common.properties import PROPERTIES, band_gap, label, unit
from schnetpack_phonon.common.style import COLORS
from schnetpack_phonon.evaluation.metrics import in_report_units
from schnetpack_phonon.evaluation.runs import find_runs, read_run
from schnetpack_phonon.evaluation.thermal.averages import ThermalProperties, thermal_properties

_STYLES = {"quantum": (COLORS[0], "-"), "classical": (COLORS[1], "--")}


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
        against_temperature(table, static),
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
        modes(found.modes, MODE_TEMPERATURE),
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


def against_temperature(averages: pd.DataFrame, static: pd.DataFrame) -> Figure:
    """Averages against temperature, a row a property, a column a crystal.

    Args:
        averages: as :class:`.ThermalProperties` holds them, in report units.
        static: the same.
    """
    keys = list(averages.loc[averages["estimate"] == "ensemble", "property"].unique())
    crystals = list(averages["structure"].unique())
    figure = Figure(figsize=(1 + 2.7 * len(crystals), 0.6 + 2.3 * len(keys)), layout="constrained")
    axes = figure.subplots(len(keys), len(crystals), squeeze=False, sharex=True)
    for i, key in enumerate(keys):
        relative = key in PROPERTIES and PROPERTIES[key].arbitrary_zero
        for j, crystal in enumerate(crystals):
            axis = axes[i, j]
            own = averages[(averages["property"] == key) & (averages["structure"] == crystal)]
            rest = static[(static["property"] == key) & (static["structure"] == crystal)]["value"]
            zero = rest.item() if relative else 0.0
            _draw(axis, own.assign(value=own["value"] - zero))
            if len(rest):
                axis.axhline(rest.item() - zero, color="0.6", linewidth=0.8, linestyle=":")
            if i == 0:
                axis.set_title(crystal, fontsize="medium")
            if i == len(keys) - 1:
                axis.set_xlabel("temperature (K)")
            axis.locator_params(axis="y", nbins=5)
        what = f"{label(key)} − at rest" if relative else label(key)
        axes[i, 0].set_ylabel(f"{what} ({unit(key) if key in PROPERTIES else 'GPa'})")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside upper center", frameon=False, fontsize="small", ncols=3
    )
    return figure


def modes(table: pd.DataFrame, temperature: float) -> Figure:
    """Change of the gap along each mode against its frequency, a panel a crystal.

    Args:
        table: ``structure``, ``frequency`` (THz), ``shift`` (eV).
        temperature: of the displacements in K.
    """
    crystals = list(table["structure"].unique())
    n_columns = min(2, len(crystals))
    n_rows = -(-len(crystals) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns, 0.5 + 2.4 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis in axes[len(crystals) :]:
        axis.set_axis_off()
    for k, (axis, crystal) in enumerate(zip(axes, crystals, strict=False)):
        own = table[table["structure"] == crystal]
        color = COLORS[k % len(COLORS)]
        axis.vlines(own["frequency"], 0, 1e3 * own["shift"], color=color, linewidth=1)
        axis.plot(own["frequency"], 1e3 * own["shift"], "o", color=color, markersize=3)
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_title(crystal, loc="left", fontsize="medium")
        axis.set_xlabel("frequency (THz), imaginary below 0")
        axis.set_ylabel("change of the gap (meV)")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"one mode displaced by ±1 σ of {temperature:g} K", fontsize="medium")
    return figure


def _draw(axis, own: pd.DataFrame) -> None:
    """One crystal and property."""
    for statistics, (color, style) in _STYLES.items():
        rows = own[(own["statistics"] == statistics) & (own["estimate"] == "ensemble")]
        rows = rows.sort_values("temperature")
        x, y = rows["temperature"], rows["value"]
        name = f"model, {statistics}"
        axis.errorbar(
            x, y, rows["error"], color=color, fmt="o", ls=style, lw=1.2, ms=3.5, label=name
        )
        if rows["seed_sd"].notna().any():
            low, high = y - rows["seed_sd"], y + rows["seed_sd"]
            axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    rows = own[(own["statistics"] == "quantum") & (own["estimate"] == "special")]
    axis.plot(
        rows["temperature"], rows["value"], "x", color=COLORS[2], ms=6, label="special displacement"
    )
    rows = own[own["estimate"] == "labels"]
    axis.errorbar(
        rows["temperature"], rows["value"], rows["error"], fmt="s", color="black", ms=4, lw=1,
        mfc="white", label="labels",
    )  # fmt: skip
