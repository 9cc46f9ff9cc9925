"""Test sets: labelled structures, and which of them a model has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pandas as pd
from ase import Atoms

from schnetpack_phonon.common.digests import structure_digest
from schnetpack_phonon.common.errors import HeldOutError, UnitError
from schnetpack_phonon.common.properties import (
    PROPERTIES,
    energy,
    energy_per_atom,
    forces,
    hydrostatic_stress,
    ideal_cell,
    ideal_positions,
    kpoints,
    levels,
    stored_units,
    stress,
)
from schnetpack_phonon.data.database import METADATA_KEY, Row, read_metadata
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.structures.files import formula, read_frames

_PARAMETERS = ("temperature", "amplitude")
# Levels belong to k-points, which predictions for structures alone do not know.
_NOT_COMPARED = (ideal_positions, ideal_cell, levels, kpoints)


@dataclass(frozen=True)
class TestSet:
    """Labelled structures of one database or file.

    Attributes:
        path: of the file.
        name: of the ensemble, such as ``phonon`` or ``random (uniform)``; else of the file.
        atoms: the structures.
        rows: a row a structure: ``structure`` (crystal), ``kind`` (name of the ensemble; the kind
            alone where a file holds several), ``parameter`` (temperature or amplitude, NaN where
            there is none), ``group`` (both, for display), ``parent``, ``digest`` (of species, cell
            and positions).
        labels: a column a property, of :func:`.cell`; NaN where there is none.
        units: of the labels; those of :mod:`.common.properties` for its properties.
        stored_units: those in the file, and that of ``distance``; models are trained in them unless
            their data modules convert.
        calculator: settings of the code that computed the labels; None if the file does not tell.
    """

    __test__ = False  # pytest takes the name for a test

    path: Path
    name: str
    atoms: tuple[Atoms, ...]
    rows: pd.DataFrame
    labels: pd.DataFrame
    units: Mapping[str, str]
    stored_units: Mapping[str, str | None]
    calculator: Mapping[str, Any] | None


def read_test_set(path: str | Path) -> TestSet:
    """A database of this package or of SchNetPack, or any file that ASE reads.

    Raises:
        HeldOutError: if it cannot be read, has no known label, or one that is infinite or in part
            NaN.
        UnitError: if it has units that are not known.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise HeldOutError(f"no file {path}: expected a database or structures with labels")
    rows, metadata = _read_database(path) if path.suffix == ".db" else _read_file(path)
    labels = pd.DataFrame(
        [
            {k: cell(k, v, len(r.atoms)) for k, v in r.data.items() if k not in _NOT_COMPARED}
            for r in rows
        ]
    )
    if labels.empty or labels.isna().all(axis=None):
        raise HeldOutError(
            f"{path} holds no label (band_gap, vbm, energy, forces, stress, ...): give a database "
            "of spkphonon, or structures with labels in their comment lines"
        )
    ours = read_metadata(path) if METADATA_KEY in metadata else None
    _check_finite(labels, path)
    stored = stored_units(metadata)
    stored_or_ours = {**stored, **{key: one.unit for key, one in PROPERTIES.items()}}
    name = ensemble_name(ours["settings"]["ensemble"]) if ours else path.stem
    return TestSet(
        path,
        name,
        tuple(row.atoms for row in rows),
        _rows(rows, name, ours["parameters"] if ours else {}),
        labels,
        {key: stored_or_ours.get(key) or "" for key in map(str, labels)},
        stored,
        (ours["settings"]["calculator"] or None) if ours else None,
    )


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
    """The name of an ensemble with these settings in tables and figures."""
    kind = str(settings["kind"])
    detail = settings.get("distribution") or settings.get("match")
    if settings.get("statistics") == "classical":
        detail = "classical"
    if "base" in settings:
        detail = ensemble_name(settings["base"])
    return f"{kind} ({str(detail).replace('_', '-')})" if detail else kind


def _read_database(path: Path) -> tuple[list[Row], Mapping[str, Any]]:
    """Rows and metadata."""
    try:
        with ase.db.connect(str(path), use_lock_file=False) as db:
            return [*read_rows(path)], db.metadata
    except UnitError:
        raise
    except Exception as error:  # sqlite3, JSON and ASE errors share no base class
        raise HeldOutError(f"{path} is no ASE database ({error})") from error


def _read_file(path: Path) -> tuple[list[Row], Mapping[str, Any]]:
    try:
        frames = list(read_frames(path))
    except ValueError as error:
        raise HeldOutError(str(error)) from error
    pairs = ({k: v for k, v in a.info.items() if np.ndim(v) == 0} for a in frames)
    rows = [Row(a, _results(a), own) for a, own in zip(frames, pairs, strict=True)]
    return rows, {"_property_unit_dict": {key: one.unit for key, one in PROPERTIES.items()}}


def _check_finite(labels: pd.DataFrame, path: Path) -> None:
    """NaN throughout stands for a missing label; anything else would be left out of errors."""
    for key in labels:
        for k, value in enumerate(labels[key]):
            finite = np.isfinite(value)
            if not np.all(finite) and (np.any(finite) or np.isinf(value).any()):
                raise HeldOutError(
                    f"{path}: {key} of structure {k} holds NaN or infinite values; expected finite "
                    "numbers, or NaN throughout for a label that is missing"
                )


def _rows(found: list[Row], name: str, parameters: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """As :class:`TestSet` has them; ``parameters``: kind -> name and unit of its parameter."""
    atoms = [row.atoms for row in found]
    pairs = pd.DataFrame([row.key_value_pairs for row in found], index=range(len(found)))
    formulas = [*map(formula, atoms)]
    kinds = pairs["kind"] if "kind" in pairs else pd.Series(name, index=pairs.index)
    rows = pd.DataFrame(
        {
            "structure": pairs.get("structure", pd.Series(formulas)),
            "kind": kinds.astype(str) if kinds.nunique() > 1 else name,
            "parameter": np.nan,
            "parent": _parents(pairs) if "parent" in pairs else None,
            "digest": [structure_digest(a) for a in atoms],
        }
    )
    for column in _PARAMETERS:
        if column in pairs:
            value = pd.to_numeric(pairs[column], errors="coerce")
            rows["parameter"] = value.fillna(rows["parameter"])
    unit = kinds.map(lambda kind: parameters.get(str(kind), ["", ""])[1]).astype(str)
    group = rows["kind"] + ", " + rows["parameter"].map("{:g} ".format) + unit
    return rows.assign(group=group.str.strip().where(rows["parameter"].notna(), name))


def _parents(pairs: pd.DataFrame) -> pd.Series:
    """Names of parents that are unique among databases.

    ``CRYSTAL/ARRANGEMENT`` is; ``CRYSTAL/KIND/PARAMETER/INDEX`` is a snapshot of one seed.
    """
    parent = pairs["parent"]
    drawn = parent.str.count("/").fillna(0) > 1
    seed = pairs["seed"].astype(str) if "seed" in pairs else "0"
    return parent.where(~drawn, parent + " of seed " + seed)


def _results(atoms: Atoms) -> dict[str, Any]:
    """Labels of a structure with the results of a calculator, in our units."""
    found = {k: v for k, v in atoms.info.items() if k in PROPERTIES}
    results = atoms.calc.results if atoms.calc else {}
    if energy in results:
        found[energy] = results[energy]
        found[energy_per_atom] = results[energy] / len(atoms)
    if forces in results:
        found[forces] = results[forces]
    if stress in results:
        found[stress] = atoms.get_stress(voigt=False)
        found[hydrostatic_stress] = found[stress].trace() / 3
    return found


@dataclass(frozen=True)
class Components:
    """Values of one property, the rows of each structure below those of the one before.

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
        """Mean of each structure's values; NaN where there are none.

        Args:
            rows: any numbers, shape=(n_rows, n_components).
        """
        sums = np.bincount(self.structure, rows.mean(axis=1), minlength=len(self.counts))
        return sums / np.where(self.counts > 0, self.counts, np.nan)

    def largest(self, rows: np.ndarray) -> np.ndarray:
        """As :meth:`mean`, but the largest value."""
        found = np.full(len(self.counts), -np.inf)
        with np.errstate(invalid="ignore"):  # NaN stay NaN
            np.maximum.at(found, self.structure, rows.max(axis=1))
        return np.where(self.counts > 0, found, np.nan)


def cell(key: str, value: np.ndarray, n_atoms: int) -> float | np.ndarray:
    """A label of one structure as tables hold it.

    Args:
        key: of the label; an unknown one belongs to atoms if it has a row for each.
        value: as databases hold it.
        n_atoms: of the structure.

    Returns:
        A number, NaN for values that are all NaN, or shape=(n_rows, n_components).
    """
    value = np.asarray(value, float)
    if value.size == 1 or np.isnan(value).all():
        return float(value.flat[0])
    of_atoms = "N" in PROPERTIES[key].shape if key in PROPERTIES else len(value) == n_atoms > 1
    return value.reshape(n_atoms if of_atoms else 1, -1)


def stacked(cells: pd.Series) -> Components:
    """A column of :func:`cell`, NaN where a structure has no value."""
    present = cells.notna()
    arrays = [np.atleast_2d(value) for value in cells[present]]
    counts = np.zeros(len(cells), dtype=int)
    counts[present.to_numpy()] = [len(array) for array in arrays]
    return Components(np.concatenate(arrays) if arrays else np.empty((0, 1)), counts)
