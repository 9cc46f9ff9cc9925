"""A page about a database: what it holds and how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from schnetpack_phonon.common.digests import hash_of
from schnetpack_phonon.common.page import Picture, Section, Table, write_markdown
from schnetpack_phonon.common.properties import (
    PARTLY_FILLED,
    PROPERTIES,
    band_gap,
    band_gap_spin,
    cbm,
    ideal_cell,
    ideal_positions,
    partial_occupation,
    property_of,
    vbm,
)
from schnetpack_phonon.common.style import COLORS
from schnetpack_phonon.data.database import read_metadata
from schnetpack_phonon.data.reading import read_labels, read_provenance, read_rows


def write_card(path: str | Path) -> str:
    """Writes ``NAME_card.md`` and, where there are gaps, figures beside a database.

    Returns:
        The page.

    Raises:
        DatabaseError: for a file that is damaged or not ours.
    """
    path = Path(path)
    metadata = read_metadata(path)
    settings, parameters = metadata["settings"], metadata["parameters"]
    labels = read_labels(path)
    rows = pd.concat([read_provenance(path), labels], axis=1)
    elastic = {f"elastic tensors: {key}": v for key, v in settings.get("elastic", {}).items()}
    made_with = {**metadata["versions"], **settings["calculator"], **_others(metadata), **elastic}
    crystals = sorted(rows["structure"].unique())
    text = [
        f"{len(rows)} structures, "
        f"{', '.join(crystals) if len(crystals) < 9 else f'{len(crystals)} compositions'}; "
        f"{metadata['n_failed']} calculations failed and {metadata['n_rejected']} snapshots were "
        "rejected for short distances; each was replaced by another one.",
        f"Labels: {', '.join(map(_with_unit, _label_keys(path)))}.",
        *partly_filled(labels),
        *different_spins(path),
        *_gaps_at_rest(metadata),
        f"Content (SHA-256 of positions and labels, rounded to 1e-6): `{content_digest(path)}`",
    ]
    sections = [
        Section("", ["\n".join(text)]),
        Section("Made with", [], [_settings(made_with)]),
        *([Section("Phonons", [], [_phonons(metadata)])] if metadata["phonons"] else []),
        Section("Labels", [], [_groups(rows, parameters), *_gaps(path, rows, metadata)]),
    ]
    return write_markdown(path.with_name(f"{path.stem}_card.md"), path.name, sections)


def _label_keys(path: Path) -> list[str]:
    """Labels that any structure has."""
    found = {
        key: None
        for row in read_rows(path)
        for key, value in row.data.items()
        if key not in (ideal_positions, ideal_cell) and np.isfinite(value).any()
    }
    return [*found]


def _with_unit(key: str) -> str:
    unit = property_of(key).unit
    return f"`{key}` ({unit})" if unit else f"`{key}`"


def _others(metadata: dict[str, Any]) -> dict[str, Any]:
    """Calculators of lattice and force constants, where they are not that of the labels."""
    found: dict[str, Any] = {}
    for part, what in (("structure", "relaxation"), ("phonons", "force constants")):
        if version := metadata.get("other_calculators", {}).get(part):
            given = metadata["settings"][part]["calculator"]
            found |= {f"{what}, {key}": value for key, value in given.items()}
            found[f"{what}, version"] = version
    return found


def partly_filled(labels: pd.DataFrame) -> list[str]:
    """How many structures have partly filled bands, in words; empty if that was not computed."""
    if partial_occupation not in labels:
        return []
    values = labels[partial_occupation]
    unknown = f"; not known for {n}" if (n := values.isna().sum()) else ""
    return [
        f"Partly filled bands: {(values > PARTLY_FILLED).sum()} of {len(values)} structures "
        f"(`{partial_occupation}` above {PARTLY_FILLED:g} electrons){unknown}."
    ]


def different_spins(path: Path) -> list[str]:
    """How many structures have different gaps of each spin, in words; empty if none has."""
    (first,) = read_rows(path, [0])
    if band_gap_spin not in first.data:
        return []
    gaps = np.concatenate([row.data[band_gap_spin] for row in read_rows(path)])
    known = gaps[np.isfinite(gaps).all(axis=1)]
    up, down = (f"{own.mean():.3f} ± {own.std():.3f} eV" for own in known.T)
    return [
        f"Different spins: {len(known)} of {len(gaps)} structures, with gaps of {up} (up) and "
        f"{down} (down); metals in a spin: {(known == 0).any(axis=1).sum()} (`{band_gap_spin}`)."
    ]


def content_digest(path: str | Path) -> str:
    """Hash of species, positions, cells and labels of all rows in their order.

    Numbers are rounded to 1e-6: a database made again from the same labels has the same digest on
    any machine, whatever the bytes of the file are.
    """
    return hash_of(*_content(path))


def _content(path: str | Path) -> Iterator[str | np.ndarray]:
    for row in read_rows(path):
        yield row.atoms.numbers.astype(np.int64)
        arrays = {"positions": row.atoms.positions, "cell": row.atoms.cell.array, **row.data}
        for name in sorted(arrays):
            yield name
            yield np.asarray(arrays[name], dtype=float).round(6) + 0.0


def _settings(settings: dict[str, Any]) -> Table:
    rows = [(key.replace("_", " "), str(value)) for key, value in settings.items()]
    return Table("made_with", pd.DataFrame(rows, columns=["", ""]))


def _phonons(metadata: dict[str, Any]) -> Table:
    rows = []
    for model in metadata["phonons"]:
        lengths = np.linalg.norm(metadata["crystals"][model["structure"]]["cell"], axis=1)
        rows.append(
            {
                "crystal": model["structure"],
                "cell lengths (Å)": ", ".join(f"{x:.3f}" for x in lengths),
                "imaginary modes": str(model["n_imaginary"]),
                "lowest (THz)": f"{model['lowest_frequency']:.2f}",
                "policy": model["policy"],
            }
        )
    return Table(
        "phonons", pd.DataFrame(rows).drop_duplicates()
    )  # one model for several parameters


def _groups(rows: pd.DataFrame, parameters: dict[str, list[str]]) -> Table:
    """A line for each crystal, ensemble and parameter.

    Band edges have a spread only, since their zero is arbitrary.
    """
    lines = []
    for (structure, kind), own_kind in rows.groupby(["structure", "kind"]):
        name, unit = parameters[str(kind)]
        for parameter, own in own_kind.groupby(name):
            line = {
                "crystal": structure,
                "ensemble": f"{kind}, {parameter:g} {unit}",
                "structures": len(own),
            }
            if band_gap in rows:
                filled = (
                    own[partial_occupation] > PARTLY_FILLED if partial_occupation in own else None
                )
                line |= {
                    "gap, mean ± sd (eV)": f"{own[band_gap].mean():.3f} ± {_sd(own[band_gap]):.3f}",
                    "smallest": f"{own[band_gap].min():.3f}",
                    "metallic": (own[band_gap] == 0).sum(),
                    "partly filled": "" if filled is None else filled.sum(),
                    "sd of VBM, CBM (eV)": f"{_sd(own[vbm]):.3f}, {_sd(own[cbm]):.3f}",
                }
            stress = PROPERTIES["hydrostatic_stress"].report_factor * own["hydrostatic_stress"]
            line |= {
                "sd of energy (meV/atom)": f"{1e3 * _sd(own['energy_per_atom']):.1f}",
                "hydrostatic stress (GPa)": f"{stress.mean():.2f} ± {_sd(stress):.2f}",
            }
            lines.append(line)
    return Table("groups", pd.DataFrame(lines).map(str))


def _gaps(path: Path, rows: pd.DataFrame, metadata: Mapping[str, Any]) -> Iterator[Picture]:
    """Distributions of the gap, a figure for each ensemble."""
    rest = at_rest(metadata, band_gap)
    for kind, own in rows.groupby("kind") if band_gap in rows else ():
        parameter, unit = metadata["parameters"][str(kind)]
        figure = distribution(own.assign(label=own[band_gap]), parameter, unit, rest=rest)
        caption = f"band gaps of the {kind} ensemble"
        yield Picture(f"{path.stem}_{kind}_band_gap", caption, figure)


def _sd(values: pd.Series) -> float:
    return float(values.std(ddof=0))


def at_rest(metadata: Mapping[str, Any], key: str) -> dict[str, float]:
    """Scalar labels of the crystals at rest in report units, by name; of those that have one.

    Args:
        metadata: of a database of this package; former versions labelled no crystal at rest.
        key: property.
    """
    labels = {name: own.get(key) for name, own in metadata.get("ideal_labels", {}).items()}
    factor = property_of(key).report_factor
    return {name: factor * float(value[0]) for name, value in labels.items() if value is not None}


def _gaps_at_rest(metadata: Mapping[str, Any]) -> list[str]:
    gaps = ", ".join(f"{k} {gap:.3f} eV" for k, gap in at_rest(metadata, band_gap).items())
    return [f"Labelled gaps of the crystals at rest: {gaps}."] if gaps else []


def distribution(
    labels: pd.DataFrame,
    parameter: str,
    unit: str,
    key: str = band_gap,
    rest: Mapping[str, float] | None = None,
) -> Figure:
    """Distribution of a label at each temperature or amplitude, one panel for each crystal.

    Args:
        labels: ``structure``, the column ``parameter``, and ``label`` in report units.
        parameter: name of the ensemble's parameter.
        unit: of the parameter.
        key: property of the labels.
        rest: crystal -> label of the crystal at rest in report units, of those that have one.
    """
    rest = rest or {}
    structures = sorted(labels["structure"].unique())
    values = sorted(labels[parameter].unique())
    figure = Figure(figsize=(1.4 + 2.2 * len(structures), 3.8), layout="constrained")
    axes = figure.subplots(1, len(structures), sharey=True, squeeze=False).ravel()
    jitter = np.random.default_rng(0)
    for k, (axis, structure) in enumerate(zip(axes, structures, strict=True)):
        own = labels[labels["structure"] == structure]
        for position, value in enumerate(values):
            data = own.loc[own[parameter] == value, "label"].to_numpy()
            shift = jitter.uniform(-0.22, 0.22, len(data))
            color = COLORS[k % len(COLORS)]
            axis.plot(position + shift, data, ".", color=color, alpha=0.45, markeredgewidth=0)
            axis.plot(position, data.mean(), "_", color="black", markersize=16, markeredgewidth=2)
        if structure in rest:
            axis.axhline(rest[structure], color="black", linewidth=0.9, linestyle=":")
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axis.set_xlim(-0.6, len(values) - 0.4)
        axis.set_xlabel(f"{parameter} ({unit})")
        axis.set_title(structure, fontsize="medium")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"calculated {property_of(key).label} ({property_of(key).report_unit})")
    what = "each dot is a snapshot, bars are means"
    what += ", dotted lines crystals at rest" if rest else ""
    figure.suptitle(what, fontsize="small", color="0.3")
    return figure
