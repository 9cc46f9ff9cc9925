"""Labelled structures to test models on, and which of them a model has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pandas as pd
from ase import Atoms

from schnetpack_phonon.common.digests import structure_digest
from schnetpack_phonon.common.errors import HeldOutError
from schnetpack_phonon.common.properties import (
    PROPERTIES,
    energy,
    energy_per_atom,
    forces,
    hydrostatic_stress,
    ideal_cell,
    ideal_positions,
    stress,
)
from schnetpack_phonon.data.database import METADATA_KEY, read_metadata

_PARAMETERS = ("temperature", "amplitude")


_IDEAL = (ideal_positions, ideal_cell)  # no labels


@dataclass(frozen=True)
class TestSet:
    """Labelled structures of one database or file.

    Attributes:
        path: of the file.
        name: of the ensemble, such as ``phonon`` or ``random (uniform)``; else of the file.
        atoms: the structures.
        rows: a row a structure: ``structure`` (crystal), ``group`` (the ensemble and its
            parameter), ``parameter``, ``parent``, ``digest`` (of species, cell and positions).
        labels: a column a property, of :func:`.cell`; NaN where there is none.
        units: of the labels.
        calculator: settings of the code that labelled; None where the file does not tell.
    """

    __test__ = False  # pytest takes the name for a test

    path: Path
    name: str
    atoms: tuple[Atoms, ...]
    rows: pd.DataFrame
    labels: pd.DataFrame
    units: Mapping[str, str]
    calculator: Mapping[str, Any] | None


def read_test_set(path: str | Path) -> TestSet:
    """A database of ours or of the host, or any file that ASE reads.

    Raises:
        HeldOutError: if it cannot be read or holds no label that we know.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise HeldOutError(f"no file {path}: expected a database or structures with labels")
    test_set = _read_database(path) if path.suffix == ".db" else _read_file(path)
    if test_set.labels.empty or test_set.labels.isna().all(axis=None):
        raise HeldOutError(
            f"{path} holds no label (band_gap, vbm, energy, forces, stress, ...): give a database "
            "of spkphonon, or structures whose comment lines hold them"
        )
    return test_set


def seen(own: TestSet, index: np.ndarray, other: TestSet) -> np.ndarray:
    """Which structures of ``other`` are, or descend from, rows ``index`` of ``own``.

    Returns:
        Booleans, shape=(n_structures,).
    """
    used = own.rows.iloc[index]
    alike = other.rows["digest"].isin(used["digest"])
    related = other.rows["parent"].isin(used["parent"].dropna()) & other.rows["parent"].notna()
    return (alike | related).to_numpy()


def ensemble_name(settings: Mapping[str, Any]) -> str:
    """What people call an ensemble with these settings."""
    kind = str(settings["kind"])
    detail = settings.get("distribution") or settings.get("match")
    if settings.get("statistics") == "classical":
        detail = "classical"
    if "base" in settings:
        detail = ensemble_name(settings["base"])
    return f"{kind} ({str(detail).replace('_', '-')})" if detail else kind


def _read_database(path: Path) -> TestSet:
    try:
        with ase.db.connect(str(path), use_lock_file=False) as db:
            metadata, found = db.metadata, list(db.select())
    except Exception as error:  # sqlite3, JSON and ASE errors share no base class
        raise HeldOutError(f"{path} is no ASE database ({error})") from error
    ours = read_metadata(path) if METADATA_KEY in metadata else None
    pairs = pd.DataFrame([row.key_value_pairs for row in found])
    atoms = tuple(Atoms(r.numbers, r.positions, cell=r.cell, pbc=r.pbc) for r in found)
    labels = pd.DataFrame(
        [{k: cell(k, v, r.natoms) for k, v in r.data.items() if k not in _IDEAL} for r in found]
    )
    name = ensemble_name(ours["settings"]["ensemble"]) if ours else path.stem
    units = metadata.get("_property_unit_dict", {})
    parameters = {kind: unit for kind, (_, unit) in ours["parameters"].items()} if ours else {}
    return TestSet(
        path,
        name,
        atoms,
        _rows(atoms, pairs, name, parameters),
        labels,
        {str(key): units.get(key, "") for key in labels},
        ours["settings"]["calculator"] if ours else None,
    )


def _read_file(path: Path) -> TestSet:
    try:
        frames = ase.io.read(path, ":")
    except Exception as error:  # ASE raises whatever its many readers raise
        raise HeldOutError(f"ASE cannot read {path}: {error}") from error
    labels = pd.DataFrame([_results(atoms) for atoms in frames])
    pairs = pd.DataFrame(
        [{k: v for k, v in a.info.items() if np.ndim(v) == 0} for a in frames],
        index=range(len(frames)),
    )
    atoms = tuple(frames)
    return TestSet(
        path,
        path.stem,
        atoms,
        _rows(atoms, pairs, path.stem, {}),
        labels,
        {key: PROPERTIES[key].unit for key in map(str, labels)},
        None,
    )


def _rows(
    atoms: tuple[Atoms, ...], pairs: pd.DataFrame, name: str, units: Mapping[str, str]
) -> pd.DataFrame:
    rows = pd.DataFrame(index=range(len(atoms)))
    formulas = [a.get_chemical_formula("metal", empirical=True) for a in atoms]
    rows["structure"] = pairs.get("structure", pd.Series(formulas))
    rows["parent"] = _parents(pairs) if "parent" in pairs else None
    rows["parameter"] = np.nan
    rows["group"] = name
    kinds = pairs["kind"] if "kind" in pairs else pd.Series(name, index=rows.index)
    several = kinds.nunique() > 1
    for column in _PARAMETERS:
        if column not in pairs:
            continue
        value = pd.to_numeric(pairs[column], errors="coerce")
        present = value.notna()
        rows.loc[present, "parameter"] = value[present]
        unit = kinds.map(lambda kind: units.get(str(kind), "")).astype(str)
        head = kinds.astype(str) if several else pd.Series(name, index=rows.index)
        group = head + ", " + value.map("{:g} ".format) + unit
        rows.loc[present, "group"] = group[present].str.strip()
    rows["digest"] = [structure_digest(a) for a in atoms]
    return rows


def _parents(pairs: pd.DataFrame) -> pd.Series:
    """Parents that are the same in any database.

    ``CRYSTAL/ARRANGEMENT`` is; ``CRYSTAL/KIND/PARAMETER/INDEX`` names a snapshot of one seed.
    """
    parent = pairs["parent"]
    drawn = parent.str.count("/").fillna(0) > 1
    seed = pairs["seed"].astype(str) if "seed" in pairs else "0"
    return parent.where(~drawn, parent + " of seed " + seed)


def _results(atoms: Atoms) -> dict[str, float | np.ndarray]:
    """Labels in our units of a structure with a calculator's results."""
    found = {k: v for k, v in atoms.info.items() if k in PROPERTIES and k not in _IDEAL}
    results = atoms.calc.results if atoms.calc else {}
    if energy in results:
        found[energy] = results[energy]
        found[energy_per_atom] = results[energy] / len(atoms)
    if forces in results:
        found[forces] = results[forces]
    if stress in results:
        found[stress] = atoms.get_stress(voigt=False)
        found[hydrostatic_stress] = found[stress].trace() / 3
    return {key: cell(key, value, len(atoms)) for key, value in found.items()}


@dataclass(frozen=True)
class Components:
    """Values of one property, those of a structure one below the other.

    Attributes:
        rows: shape=(n_rows, n_components).
        counts: rows of each structure, 0 for those without a value; shape=(n_structures,).
    """

    rows: np.ndarray
    counts: np.ndarray

    @property
    def structure(self) -> np.ndarray:
        """Number of the structure of each row, shape=(n_rows,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def of(self, structures: np.ndarray) -> Components:
        """Of some structures by number, in the order of ``structures``."""
        starts = np.cumsum(self.counts) - self.counts
        counts = self.counts[structures]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return Components(self.rows[np.repeat(starts[structures], counts) + within], counts)

    def mean(self, rows: np.ndarray) -> np.ndarray:
        """Over each row's values and the structures; NaN where there are none.

        Args:
            rows: any numbers, shape=(n_rows, n_components).
        """
        sums = np.bincount(self.structure, rows.mean(axis=1), minlength=len(self.counts))
        return sums / np.where(self.counts > 0, self.counts, np.nan)

    def largest(self, rows: np.ndarray) -> np.ndarray:
        """As :meth:`mean`, the largest instead."""
        found = np.full(len(self.counts), -np.inf)
        np.maximum.at(found, self.structure, rows.max(axis=1))
        return np.where(self.counts > 0, found, np.nan)


def cell(key: str, value: np.ndarray, n_atoms: int) -> float | np.ndarray:
    """A label of one structure as tables hold it.

    Args:
        key: of the label; one that is not ours is one of atoms if it has a row for each.
        value: as databases hold it.
        n_atoms: of the structure.

    Returns:
        A number, or shape=(n_rows, n_components).
    """
    value = np.asarray(value, float)
    if value.size == 1:
        return value.item()
    of_atoms = "N" in PROPERTIES[key].shape if key in PROPERTIES else len(value) == n_atoms > 1
    return value.reshape(n_atoms if of_atoms else 1, -1)


def stacked(cells: pd.Series) -> Components:
    """A column of :func:`cell`, NaN where a structure has no value."""
    present = cells.notna()
    arrays = [np.atleast_2d(value) for value in cells[present]]
    counts = np.zeros(len(cells), dtype=int)
    counts[present.to_numpy()] = [len(array) for array in arrays]
    return Components(np.concatenate(arrays) if arrays else np.empty((0, 1)), counts)
