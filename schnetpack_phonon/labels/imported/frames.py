"""Structures with labels in files of other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from sqlite3 import DatabaseError
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.db import connect

from schnetpack_phonon.calculators.base import EDGE_LABELS, FORCE_LABELS, labels_from_results
from schnetpack_phonon.calculators.output import OutputReader, xml_root
from schnetpack_phonon.calculators.reading.ase_results import ase_results, prefixes, unit_of
from schnetpack_phonon.calculators.reading.convergence import check_file, check_vasp
from schnetpack_phonon.calculators.reading.settings import vasp_settings
from schnetpack_phonon.common.errors import LabellingError, UnreadableFileError
from schnetpack_phonon.common.properties import (
    DISTANCE,
    SCHNETPACK_UNITS,
    Labels,
    band_gap_gamma,
    band_gap_spin,
    partial_occupation,
    stored_units,
    unit_factor,
)
from schnetpack_phonon.labels.imported.outputs import reader_of, settings_of
from schnetpack_phonon.structures.files import file_format, read_frames

NOT_TOLD = "not told by the file"  #: in place of name and version of a code
_ORDER = (*FORCE_LABELS, *EDGE_LABELS, band_gap_gamma, band_gap_spin, partial_occupation)


@dataclass(frozen=True)
class Frame:
    """A structure of a file.

    Attributes:
        atoms: without results.
        labels: whatever there is, in the units of :mod:`.common.properties`; empty if none is.
        error: why its labels cannot be used, such as a density that did not converge.
    """

    atoms: Atoms
    labels: Labels
    error: str | None = None


def read_labelled(
    path: str | Path, prefix: str = "", format: str | None = None, option: str = ""
) -> Iterator[Frame]:
    """All structures of a file with their labels.

    Args:
        path: an output of CP2K (of one structure, with a copy of its input), the XML of pw.x, a
            database of SchNetPack (in any units that it converts), or any file that
            :func:`.read_frames` takes.
        prefix: of the names of labels, such as ``REF_``.
        format: ASE's name of the format; told from the file by default.
        option: what stands before ``format`` in messages.

    Raises:
        UnreadableFileError: as :func:`.read_frames` does.
        UnitError: for a unit of a database that is not known.
    """
    path = Path(path)
    reader = reader_of(path) if path.is_file() else None
    if reader is not None:
        yield _output(reader, path.parent)
        return
    steps = _root(path) if path.is_file() and file_format(path) == "vasp-xml" else None
    for index, atoms in enumerate(_structures(path, prefix, format, option)):
        error, labels = None, {}
        try:
            found = ase_results(atoms, prefix)
            if steps is not None:
                check_vasp(steps, "", index)
            else:
                check_file(path, found, index)
            labels = labels_from_results(atoms, found)
        except (CalculationFailed, ValueError) as reason:
            error = str(reason)
        atoms.calc = None
        yield Frame(atoms, labels, error)


def _structures(path: Path, prefix: str, format: str | None, option: str) -> Iterator[Atoms]:
    """As ASE reads them; of a database of SchNetPack with its properties in ASE's units."""
    units: dict[str, str | None] = {}
    if path.suffix == ".db" and path.is_file() and format in (None, "db"):
        try:
            with connect(str(path), use_lock_file=False) as database:
                if SCHNETPACK_UNITS in database.metadata:
                    units = stored_units(database.metadata)
        except DatabaseError as error:
            raise UnreadableFileError(f"cannot read {path}: {error}") from error
    if not units:
        yield from read_frames(path, format=format, option=option)
        return
    length = unit_factor(DISTANCE, units[DISTANCE], path)
    keys = {name: unit_of(name, prefix) for name in units}
    factors = {name: unit_factor(key, units[name], path) for name, key in keys.items() if key}
    with connect(str(path), use_lock_file=False) as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.set_cell(length * atoms.cell.array)
            atoms.positions *= length
            atoms.info = {"key_value_pairs": row.key_value_pairs}
            for name, unit in factors.items():
                value = unit * np.asarray(row.data[name])
                atoms.info[name] = value.item() if value.size == 1 else value.squeeze()
            yield atoms


def _output(reader: OutputReader, folder: Path) -> Frame:
    """The structure of an output that ASE does not read."""
    atoms = Atoms()
    try:
        atoms = reader.read_atoms(folder)
        return Frame(atoms, labels_from_results(atoms, reader.read_output(folder, atoms)))
    except (CalculationFailed, ValueError) as reason:
        return Frame(atoms, {}, str(reason))


def _root(path: Path) -> ElementTree.Element:
    try:
        return xml_root(path)
    except ElementTree.ParseError as error:
        raise UnreadableFileError(
            f"cannot read {path}: it is cut off, or the calculation is still running ({error})"
        ) from error


@dataclass(eq=False)
class FileLabels:
    """What stands for a calculator where labels come from a file: nothing is computed.

    Args:
        path: of the file.
        prefix: of the names of labels in it.
        format: ASE's name of its format.
        others: further files with labels of the same code.
        option: what stands before ``prefix`` and ``format`` in messages.
    """

    path: Path
    prefix: str = ""
    format: str | None = None
    others: tuple[FileLabels, ...] = ()
    option: str = "data.ensemble."

    @cached_property
    def frames(self) -> list[Frame]:
        """All structures, read once.

        Raises:
            LabellingError: if no structure has a label.
        """
        frames = [*read_labelled(self.path, self.prefix, self.format, self.option)]
        if not any(frame.labels for frame in frames):
            raise LabellingError(f"{self.path} has no label{self._why_not(frames)}")
        return frames

    def _why_not(self, frames: list[Frame]) -> str:
        errors = [frame.error for frame in frames if frame.error]
        if errors:
            return f" that can be used: {errors[0]}"
        if self.path.suffix == ".db":
            return (
                f" named {self.prefix}energy, {self.prefix}forces and so on: expected one of ASE "
                "with results of a calculator, or one of SchNetPack, with the units of its "
                f"properties in its metadata ({SCHNETPACK_UNITS})"
            )
        there = [p for p in (prefixes(frame.atoms) for frame in frames[:1]) if p]
        if there and not self.prefix:
            return (
                f", but names with {' and '.join(there[0])}: set {self.option}prefix={there[0][0]}"
            )
        return (
            f" named {self.prefix}energy, {self.prefix}forces, {self.prefix}stress, "
            f"{self.prefix}band_gap, {self.prefix}vbm or {self.prefix}cbm"
        )

    @property
    def properties(self) -> tuple[str, ...]:
        """Keys of the labels that any structure has."""
        there = {key for frame in self.frames for key in frame.labels}
        there |= {key for other in self.others for key in other.properties}
        return tuple(key for key in _ORDER if key in there)

    @cached_property
    def _origin(self) -> tuple[str, dict[str, Any]]:
        if reader := reader_of(self.path):
            version = reader.read_version(self.path.parent)
            return f"{reader.name} {version}", settings_of(reader, self.path)
        if file_format(self.path) == "vasp-xml":
            return vasp_settings(_root(self.path))
        return NOT_TOLD, {}

    @property
    def settings(self) -> dict[str, Any]:
        """Of the code, as far as the file tells them; empty if it does not."""
        return self._origin[1]

    @property
    def code_version(self) -> str:
        """Name and version of the code, if the file tells them."""
        return self._origin[0]

    def check(self, atoms: Atoms) -> None:
        """Takes any structure."""

    def ase_calculator(self) -> Calculator:
        """Raises LabellingError: there is no code."""
        raise LabellingError(f"labels come from {self.path}: nothing can be calculated")

    def label(self, atoms: Atoms) -> Labels:
        """Raises LabellingError: there is no code."""
        raise LabellingError(f"labels come from {self.path}: nothing can be calculated")


def same_source(sources: Sequence[FileLabels]) -> FileLabels:
    """Several files as one source of labels.

    Raises:
        LabellingError: if their labels are of several codes or settings; names two files.
    """
    first, *others = sources
    for other in others:
        one, two = ((each.code_version, each.settings) for each in (first, other))
        if one != two:
            raise LabellingError(
                f"labels of {first.path} are of {one[0]} with settings {one[1]}, those of "
                f"{other.path} of {two[0]} with {two[1]}: expected one code with one set of "
                "settings"
            )
    return replace(first, others=tuple(others)) if others else first
