"""Preview of an ensemble before computing labels: tables, figures and one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.neighborlist import neighbor_list
from matplotlib.figure import Figure

from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.page import Picture, Section, Table, write_markdown
from schnetpack_phonon.common.style import color, grid, marker
from schnetpack_phonon.ensembles.base import Ensemble, Group, Snapshot, accepted, snapshot_groups
from schnetpack_phonon.ensembles.dynamics.ensemble import MolecularDynamics
from schnetpack_phonon.ensembles.dynamics.figures import traces
from schnetpack_phonon.ensembles.sampler import Sampler
from schnetpack_phonon.ensembles.thermal import ThermalEnsemble
from schnetpack_phonon.phonons.dispersion import bands, convergence, dispersion
from schnetpack_phonon.phonons.force_constants import Models, different_models
from schnetpack_phonon.phonons.harmonic import HarmonicModel
from schnetpack_phonon.structures.crystals import Crystal, shortest_distance

_REACH = 1.8  # longest bonds, in shortest distances of the crystal
_SHELL = 1.2  # longest bonds of the first shell of a pair of species, in its shortest bonds


@dataclass(frozen=True)
class Preview:
    """Tables of an ensemble.

    Attributes:
        groups: one row per crystal, ensemble and parameter: number of snapshots and of rejected
            ones, shortest distance in the snapshots and in the ideal crystal (Ang), largest
            displacement (Ang), harmonic energy (meV/atom) if there is a harmonic model.
        displacements: one row per group and species: rms displacement per component (Ang), of the
            snapshots, in theory, and, where real modes were changed for sampling, of the harmonic
            crystal: :meth:`.ThermalEnsemble.harmonic_mean_squares`.
        distances: one row per group and bond of the ideal crystal's first shells: pair, distance
            and ideal distance (Ang).
    """

    groups: pd.DataFrame
    displacements: pd.DataFrame
    distances: pd.DataFrame


def preview(ensemble: Ensemble, crystals: Sequence[Crystal], models: Models) -> Preview:
    """Draws all snapshots of an ensemble and describes them.

    Raises:
        ValueError: for an ensemble without any snapshot.
    """
    groups, displacements, distances = [], [], []
    for group in snapshot_groups(ensemble, crystals, models):
        snapshots, n_rejected = accepted(group.stream, group.n_snapshots)
        if not snapshots:
            continue
        first = snapshots[0]
        name: dict[str, Any] = {
            "structure": first.structure,
            "kind": first.kind,
            "parameter_name": group.ensemble.parameter_name,
            "parameter": group.parameter,
            "unit": group.ensemble.parameter_unit,
        }
        u = np.array([s.atoms.positions - s.ideal.positions for s in snapshots])
        groups.append(name | _summary(group, snapshots, u) | {"n_rejected": n_rejected})
        displacements += [name | row for row in _displacements(group, first.ideal, u)]
        distances += [table.assign(**name) for table in _distances(snapshots)]
    if not groups:
        raise ValueError(
            f"no group of the ensemble {ensemble.settings['kind']} has a snapshot; expected one"
        )
    return Preview(pd.DataFrame(groups), pd.DataFrame(displacements), pd.concat(distances))


def write_preview(
    folder: Path, ensemble: Ensemble, crystals: Sequence[Crystal], models: Models, cost: str
) -> str:
    """Writes tables (CSV), figures (PNG) and ``preview.md``; returns the text of the page.

    ``cost`` says in words how many labels the ensemble needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = preview(ensemble, crystals, models)
    for name in ("groups", "displacements", "distances"):
        with replacing(folder / f"{name}.csv") as part:
            getattr(found, name).to_csv(part, index=False)
    pictures = [
        Picture("displacements", "rms displacements", displacements(found.displacements)),
        Picture("distances", "bond lengths", distances(found.distances)),
    ]
    for member in ensemble.members:
        if isinstance(member, MolecularDynamics):
            pictures += _dynamics(member, crystals)
    for crystal in crystals:
        if crystal.composition is None:  # of arrangements there are too many to look at
            pictures += _models(folder, crystal, models)
    text = (
        "Distances and displacements in Å; rms displacements per Cartesian component, in "
        "parentheses the value of the distribution from which they are drawn. Where real "
        "modes were changed for sampling, 'harmonic' is the value that they have with their own "
        "frequencies. The harmonic energy is that of the force constants as sampled."
    )
    sections = [
        Section("", [text], [_groups(found)]),
        Section("", [f"Labels: {cost}."], pictures),
    ]
    return write_markdown(folder / "preview.md", "Ensemble before labelling", sections)


def _dynamics(ensemble: MolecularDynamics, crystals: Sequence[Crystal]) -> Iterator[Picture]:
    for crystal in crystals:
        runs = {t: ensemble.trajectories(crystal, t) for t in ensemble.parameters}
        figure = traces(crystal.name, runs)
        yield Picture(f"dynamics_{crystal.name}", f"dynamics of {crystal.name}", figure)


def _models(folder: Path, crystal: Crystal, models: Models) -> Iterator[Picture]:
    """Bands of each different model of a crystal; its convergence if it was renormalised."""
    for temperature, model in different_models(crystal, models).items():
        record = model.renormalization
        suffix = f"{crystal.name}_{temperature:g}K" if record else crystal.name
        constants = {"harmonic": record.start} if record else {}
        constants[model.policy if record else "force constants"] = model.force_constants
        if model.n_changed:
            constants["as sampled"] = model.sampled_force_constants
        drawn = {label: dispersion(crystal, found) for label, found in constants.items()}
        title = f"{crystal.name}: {model.n_imaginary} imaginary modes, {model.policy}"
        yield Picture(f"bands_{suffix}", f"bands of {crystal.name}", bands(drawn, title))
        if record:
            steps = pd.DataFrame(record.steps)
            with replacing(folder / f"convergence_{suffix}.csv") as part:
                steps.to_csv(part, index=False)
            figure = convergence(steps, f"{crystal.name}, {model.policy}")
            yield Picture(f"convergence_{suffix}", f"convergence of {crystal.name}", figure)


def _summary(group: Group, snapshots: Sequence[Snapshot], u: np.ndarray) -> dict[str, float]:
    row = {
        "n_snapshots": len(snapshots),
        "shortest_distance": min(shortest_distance(s.atoms) for s in snapshots),
        "ideal_distance": shortest_distance(snapshots[0].ideal),
        "largest_displacement": float(np.linalg.norm(u, axis=2).max()),
    }
    if isinstance(group.source, HarmonicModel):
        row["harmonic_energy"] = 1e3 * group.source.energies(u).mean() / u.shape[1]
    return row


def _displacements(group: Group, ideal: Atoms, u: np.ndarray) -> Iterator[dict[str, object]]:
    theory = harmonic = np.full(len(ideal), np.nan)
    ensemble, source = group.ensemble, group.source
    if isinstance(ensemble, Sampler):
        theory = ensemble.mean_square_displacements(source, group.parameter)
    if isinstance(ensemble, ThermalEnsemble) and source.n_real_changed:
        harmonic = ensemble.harmonic_mean_squares(source, group.parameter)
    for species in dict.fromkeys(ideal.get_chemical_symbols()):
        own = ideal.symbols == species
        yield {
            "species": species,
            "rms": float(np.sqrt((u[:, own] ** 2).mean())),
            "theory": float(np.sqrt(theory[own].mean())),
            "harmonic": float(np.sqrt(harmonic[own].mean())),
        }


def _distances(snapshots: Sequence[Snapshot]) -> Iterator[pd.DataFrame]:
    """Lengths of the bonds of the ideal crystal's first shells, one table per pair of species."""
    ideal = snapshots[0].ideal
    symbols = np.array(ideal.get_chemical_symbols())
    i, j, d, shift = neighbor_list("ijdS", ideal, _REACH * shortest_distance(ideal))
    once = i < j
    i, j, d, shift = i[once], j[once], d[once], shift[once]
    pairs = np.array(["–".join(sorted(pair)) for pair in zip(symbols[i], symbols[j], strict=True)])
    positions = np.array([s.atoms.positions for s in snapshots])
    cells = np.array([s.atoms.cell.array for s in snapshots])
    for pair in np.unique(pairs):
        shell = pairs == pair
        shell &= d < _SHELL * d[shell].min()
        vectors = positions[:, j[shell]] - positions[:, i[shell]] + shift[shell] @ cells
        lengths = np.linalg.norm(vectors, axis=2).ravel()
        yield pd.DataFrame({"pair": pair, "distance": lengths, "ideal": d[shell].min()})


def _groups(found: Preview) -> Table:
    wide = found.displacements
    wide = wide.assign(text=[_rms(row) for row in wide.to_dict("records")])
    place = ["structure", "kind", "parameter"]
    rms = wide.groupby(place)["text"].agg(", ".join)
    lines = []
    for row in found.groups.to_dict("records"):
        energy = row.get("harmonic_energy", np.nan)
        lines.append(
            {
                "crystal": row["structure"],
                "ensemble": row["kind"],
                "parameter": f"{row['parameter']:g} {row['unit']}",
                "snapshots": f"{row['n_snapshots']}",
                "rejected": f"{row['n_rejected']}",
                "shortest distance (ideal)": f"{row['shortest_distance']:.2f} "
                f"({row['ideal_distance']:.2f})",
                "largest displacement": f"{row['largest_displacement']:.2f}",
                "harmonic energy (meV/atom)": "" if np.isnan(energy) else f"{energy:.1f}",
                "rms displacement": rms[*(row[column] for column in place)],
            }
        )
    return Table("groups", pd.DataFrame(lines))


def _rms(row: dict[Any, Any]) -> str:
    known = [f"{row['theory']:.3f}", f"harmonic {row['harmonic']:.3f}"]
    known = known[: sum(not np.isnan(row[x]) for x in ("theory", "harmonic"))]
    return f"{row['species']} {row['rms']:.3f}" + (f" ({', '.join(known)})" if known else "")


def displacements(table: pd.DataFrame) -> Figure:
    """Rms displacement of each species against the ensemble's parameter, one row per kind.

    Args:
        table: ``structure``, ``kind``, ``parameter_name``, ``parameter``, ``unit``,
            ``species``, ``rms``, ``theory`` and ``harmonic`` in Å.
    """
    kinds, structures = list(table["kind"].unique()), list(table["structure"].unique())
    figure, axes = grid(len(kinds), len(structures), (2.6, 2.4), (1, 0.5), sharey=True)
    for (kind, structure), own in table.groupby(["kind", "structure"]):
        axis = axes[kinds.index(kind), structures.index(structure)]
        for k, (species, rows) in enumerate(own.groupby("species")):
            rows = rows.sort_values("parameter").set_index("parameter")
            axis.plot(rows["rms"], marker(k), color=color(k), ms=5, label=species)
            axis.plot(rows["theory"], "-", color=color(k), lw=1)
            axis.plot(rows["harmonic"], ":", color=color(k), lw=1)
        first = own.iloc[0]
        axis.set_xlabel(f"{first['parameter_name']} ({first['unit']})")
        axis.set_title(f"{structure}, {kind}", fontsize="medium")
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False, fontsize="small")
    for row in axes:
        row[0].set_ylabel("rms displacement\nper component (Å)")
    words = "points: snapshots, lines: drawn from"
    if table["harmonic"].notna().any():
        words += ", dotted: harmonic, before real modes were changed"
    figure.suptitle(words, fontsize="small")
    return figure


def distances(table: pd.DataFrame) -> Figure:
    """Distributions of bond lengths, one row per crystal, one column per pair of species.

    Args:
        table: ``structure``, ``kind``, ``parameter``, ``unit``, ``pair``, ``distance`` and
            ``ideal`` in Å.
    """
    structures = list(table["structure"].unique())
    n_columns = max(own["pair"].nunique() for _, own in table.groupby("structure"))
    figure, axes = grid(len(structures), n_columns, (2.6, 2.1), (0.5, 0.4))
    for row, structure in zip(axes, structures, strict=True):
        own = table[table["structure"] == structure]
        for axis in row[own["pair"].nunique() :]:
            axis.set_axis_off()
        for axis, (pair, bonds) in zip(row, own.groupby("pair"), strict=False):
            edges = np.linspace(bonds["distance"].min(), bonds["distance"].max(), 60)
            for k, ((kind, parameter), group) in enumerate(bonds.groupby(["kind", "parameter"])):
                density, _ = np.histogram(group["distance"], edges, density=True)
                label = f"{kind} {parameter:g} {group['unit'].iloc[0]}"
                axis.stairs(density, edges, color=color(k), label=label, linewidth=1.2)
            axis.axvline(bonds["ideal"].iloc[0], color="0.5", linewidth=0.8, linestyle=":")
            axis.set(xlabel=f"{pair} (Å)", yticks=[], title=structure)
    axes[0, 0].legend(frameon=False, fontsize="xx-small")
    return figure
