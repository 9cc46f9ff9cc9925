"""A page about properties at temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from schnetpack_phonon.common.files import UNTRUSTED, Trust
from schnetpack_phonon.common.page import Picture, Section, Table, strings, write_page
from schnetpack_phonon.common.properties import band_gap, label, property_of
from schnetpack_phonon.common.style import (
    COLORS,
    color,
    grid,
    hide_frame,
    legend_above,
    panels,
)
from schnetpack_phonon.evaluation.metrics import in_report_units
from schnetpack_phonon.evaluation.run_report import METRICS, warnings
from schnetpack_phonon.evaluation.runs import Run, find_runs, read_run
from schnetpack_phonon.evaluation.thermal.at_rest import LABELLED, PREDICTED
from schnetpack_phonon.evaluation.thermal.averages import ThermalProperties, thermal_properties
from schnetpack_phonon.evaluation.thermal.sizes import size_section

MODE_TEMPERATURE = 300.0  # K
_STYLES = {"quantum": (COLORS[0], "-"), "classical": (COLORS[1], "--")}
_AT_REST = {LABELLED: {"color": "black", "ls": ":"}, PREDICTED: {"color": "0.55", "ls": "-."}}
_SHOWN = 12  # modes in the table
_DIFFERENCE = "quantum - classical"


def thermal_report(
    paths: Sequence[Path],
    folder: Path,
    temperatures: Sequence[float],
    n_snapshots: int,
    seed: int,
    trust: Trust = UNTRUSTED,
    sizes: Sequence[int] = (),
) -> str:
    """Averages of finished runs over thermal snapshots, and a page about them.

    Args:
        paths: a run, or several that differ in their seeds.
        folder: of the page.
        temperatures: in K.
        n_snapshots: of each crystal, temperature and statistics.
        seed: of the snapshots.
        trust: what the files of the runs may do.
        sizes: of supercells, in unit cells a side, for the gap against the size.

    Returns:
        The main results, in a few lines.

    Raises:
        RunError: if a run is not finished, or its phonons are not known.
    """
    runs = [read_run(path, trust) for path in find_runs(paths)]
    every = sorted({*map(float, temperatures)})
    found = _in_report_units(thermal_properties(runs, every, n_snapshots, seed, MODE_TEMPERATURE))
    claims = [
        *_renormalisation(found, every),
        *dict.fromkeys(text for run in runs for text in _of_no_use(run)),
        *(f"Take care: {w}." for w in found.warnings),
    ]
    sections = [Section("What came out", claims, claim=True), _averages(found)]
    if not found.modes.empty:
        sections.append(_modes(found.modes))
    if sizes:
        at = min(every, key=lambda t: abs(t - MODE_TEMPERATURE))
        sections.append(size_section(runs, sorted({*sizes}), at, n_snapshots, seed))
    sections.append(
        Section(
            "How",
            [
                f"{n_snapshots} snapshots of each crystal, temperature and statistics, drawn with "
                f"seed {seed}; errors are standard errors over snapshots. They do not include the "
                "errors of the model: compare with the labels, and with models of other seeds "
                "(shaded: standard deviation over models). There is no thermal expansion.",
                "Runs: " + ", ".join(str(run.folder) for run in runs),
            ],
        )
    )
    places = write_page(folder, "Properties at temperature", sections)
    return "\n".join([*claims, f"page: {places['page'].resolve()}"])


def against_temperature(averages: pd.DataFrame, static: pd.DataFrame) -> Figure:
    """Averages against temperature, one row for each property, one column for each crystal.

    Args:
        averages: of :class:`.ThermalProperties`, in report units.
        static: of :class:`.ThermalProperties`, in report units.
    """
    ensemble = averages[averages["estimate"] == "ensemble"]
    units = dict(zip(ensemble["property"], ensemble["unit"], strict=True))
    crystals = list(averages["structure"].unique())
    size, margin = (2.7, 2.3), (1, 0.6)
    figure, axes = grid(len(units), len(crystals), size, margin, sharex=True)
    for i, (key, unit) in enumerate(units.items()):
        relative = property_of(key).arbitrary_zero
        for axis, crystal in zip(axes[i], crystals, strict=True):
            own = averages[(averages["property"] == key) & (averages["structure"] == crystal)]
            rest = static[(static["property"] == key) & (static["structure"] == crystal)]
            rest = rest.set_index("at_rest")["value"]
            zero = rest.get(LABELLED, rest.get(PREDICTED, 0.0)) if relative else 0.0
            _draw(axis, own.assign(value=own["value"] - zero))
            for what in [k for k in _AT_REST if (static["at_rest"] == k).any()]:
                y = rest.get(what, np.nan) - zero  # NaN, not drawn, has its place in the legend
                axis.axhline(y, lw=0.9, label=f"at rest, {what}", **_AT_REST[what])
            if i == 0:
                axis.set_title(crystal, fontsize="medium")
            if i == len(units) - 1:
                axis.set_xlabel("temperature (K)")
            axis.locator_params(axis="y", nbins=5)
        what = f"{label(key)} − at rest" if relative else label(key)
        axes[i, 0].set_ylabel(f"{what} ({unit})", fontsize="small")
    legend_above(figure, axes[0, 0])
    return figure


def modes(table: pd.DataFrame, temperature: float) -> Figure:
    """Change of the gap along each mode against its frequency, one panel for each crystal.

    Args:
        table: ``structure``, ``frequency`` (THz), ``shift`` (meV).
        temperature: of the displacements in K.
    """
    crystals = list(table["structure"].unique())
    figure, axes = panels(len(crystals), (4.2, 2.4), (0, 0.5), sharex=True, sharey=True)
    for k, (axis, crystal) in enumerate(zip(axes, crystals, strict=True)):
        own = table[table["structure"] == crystal]
        axis.vlines(own["frequency"], 0, own["shift"], color=color(k), linewidth=1)
        axis.plot(own["frequency"], own["shift"], "o", color=color(k), markersize=3)
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_title(crystal, loc="left", fontsize="medium")
        axis.set_xlabel("frequency (THz), imaginary below 0")
        axis.set_ylabel("change of the gap (meV)")
    hide_frame(axes)
    figure.suptitle(f"one mode displaced by ±1 σ of {temperature:g} K", fontsize="medium")
    return figure


def _in_report_units(found: ThermalProperties) -> ThermalProperties:
    columns, differences = ["value", "error", "seed_sd"], found.differences
    return replace(
        found,
        averages=in_report_units(found.averages, [*columns, "change", "change_sd"]),
        static=in_report_units(found.static, ["value", "seed_sd"]),
        differences=differences if differences.empty else in_report_units(differences, columns),
    )


def _renormalisation(found: ThermalProperties, temperatures: Sequence[float]) -> list[str]:
    """The change of the gap at the temperature nearest to 300 K."""
    nearest = min(temperatures, key=lambda t: abs(t - MODE_TEMPERATURE))
    table = found.averages
    chosen = (table["temperature"] == nearest) & (table["property"] == band_gap)
    chosen &= (table["estimate"] == "ensemble") & (table["statistics"] == "quantum")
    lines = []
    for row in table[chosen].to_dict("records"):
        spread = "one model"
        if not pd.isna(row["change_sd"]):
            spread = f"standard deviation over models {_mev(row['change_sd'])}"
        lines.append(
            f"{row['structure']}: the band gap changes by {_mev(row['change'])} ± "
            f"{_mev(row['error'])} meV from rest ({row['at_rest']}) to {nearest:g} K (± "
            f"statistical; {spread})."
        )
    return lines


def _mev(value: float) -> str:
    return f"{round(1e3 * value, 1) + 0.0:.1f}"  # no -0.0


def _of_no_use(run: Run) -> list[str]:
    """What the test of a run says against averages of its model."""
    if not (run.folder / METRICS).is_file():
        return []
    return [f"{run.name}: {text}" for text in warnings(pd.read_csv(run.folder / METRICS))]


def _averages(found: ThermalProperties) -> Section:
    picture = Picture(
        "against_temperature",
        "Averages over thermal snapshots, quantum and classical, with labels and special "
        "displacements. Horizontal lines: atoms at rest, labelled (dotted) and predicted.",
        against_temperature(found.averages, found.static),
        found.averages,
    )
    shown = _of_first_property(found.averages)
    shown = shown[shown["estimate"] != "special"].drop(columns="change_sd")
    formats = {"temperature": "g", "value": ".4g", "error": ".2g", "seed_sd": ".2g"}
    rows = strings(shown, {**formats, "change": ".3g", "distance": ".2g"})
    text = [
        "All properties are in data/averages.csv. Distances are from the training set, in units of "
        "the distance between training structures.",
        _about_rest(found),
    ]
    tables = [Table("averages", rows, found.averages), _static(found)]
    if not found.differences.empty:
        text.append(
            "Quantum and classical snapshots are drawn with the same random numbers, and are "
            "compared pair by pair: the error is that of the differences of pairs, not of two "
            "independent averages."
        )
        shown = _of_first_property(found.differences).rename(columns={"value": _DIFFERENCE})
        rows = strings(shown, {**formats, _DIFFERENCE: ".3g"})
        tables.append(Table("quantum_minus_classical", rows, found.differences))
    return Section("Against temperature", text, [picture, *tables])


def _static(found: ThermalProperties) -> Table:
    """Labels and predictions of the crystals at rest."""
    static = found.static.assign(unit=found.static["unit"].fillna(""))
    wide = static.pivot(index=["structure", "property", "unit"], columns="at_rest", values="value")
    wide = wide.reset_index().assign(property=lambda table: table["property"].map(label))
    rows = strings(wide, dict.fromkeys((LABELLED, PREDICTED), ".4g"))
    return Table("static", rows, found.static, "Crystals at rest")


def _about_rest(found: ThermalProperties) -> str:
    """From what changes count, and how well the crystals at rest are predicted."""
    known = set(found.averages["at_rest"].dropna())
    if LABELLED not in known:
        return (
            "Changes count from the predicted value of the crystal at rest, of which the database "
            "has no label: models are trained on displaced structures and know it less well."
        )
    text = "Changes count from the label of the crystal at rest"
    if PREDICTED in known:
        text += " or, where there is none (at_rest), from the predicted value"
    return f"{text}; both are in data/static.csv."


def _of_first_property(table: pd.DataFrame) -> pd.DataFrame:
    own = table[table["property"] == table["property"].iloc[0]]
    return own.assign(property=own["property"].map(label) + " (" + own["unit"] + ")").drop(
        columns="unit"
    )


def _modes(found: pd.DataFrame) -> Section:
    in_mev = found.assign(shift=1e3 * found["shift"])
    picture = Picture(
        "modes",
        "Which phonons close the gap: its change along each mode.",
        modes(in_mev, MODE_TEMPERATURE),
        found,
    )
    n_shown = _SHOWN // found["structure"].nunique() or 1
    columns = {
        "structure": "structure",
        "mode": "first mode",
        "frequency": "frequency (THz)",
        "n": "modes of this frequency",
        "shift": "change of the gap (meV)",
    }
    first = in_mev.sort_values(["structure", "shift"]).groupby("structure").head(n_shown)
    rows = strings(first[[*columns]], {"frequency": ".2f", "shift": ".2f"}).rename(columns=columns)
    text = [
        "Each mode displaced alone by plus and minus one standard deviation; the mean of both, and "
        "over modes of one frequency. Changes of many modes together do not add up where bands "
        "split or modes couple.",
    ]
    table = Table("modes", rows, found.sort_values(["structure", "shift"]))
    return Section("Single modes", text, [picture, table])


def _draw(axis: Axes, own: pd.DataFrame) -> None:
    """One crystal and property."""
    for statistics, (line_color, style) in _STYLES.items():
        rows = own[(own["statistics"] == statistics) & (own["estimate"] == "ensemble")]
        rows = rows.sort_values("temperature")
        x, y = rows["temperature"], rows["value"]
        name = f"model, {statistics}"
        axis.errorbar(
            x, y, rows["error"], color=line_color, fmt="o", ls=style, lw=1.2, ms=3.5, label=name
        )
        if rows["seed_sd"].notna().any():
            low, high = y - rows["seed_sd"], y + rows["seed_sd"]
            axis.fill_between(x, low, high, color=line_color, alpha=0.15, linewidth=0)
    rows = own[(own["statistics"] == "quantum") & (own["estimate"] == "special")]
    axis.plot(
        rows["temperature"], rows["value"], "x", color=COLORS[2], ms=6, label="special displacement"
    )
    rows = own[own["estimate"] == "labels"]
    axis.errorbar(
        rows["temperature"], rows["value"], rows["error"], fmt="s", color="black", ms=4, lw=1,
        mfc="white", label=", ".join(["labels", *rows["statistics"].unique()]),
    )  # fmt: skip
