"""Manifest of an exported folder: one JSON file beside the folders of the calculations.

Scripts may read it. ``calculations`` is a list of objects with ``key`` (of the labels), ``folder``
(relative to the manifest), ``description``, ``formula``, ``n_atoms``, ``mixing`` (of the density,
null if the code is not known), ``files`` (name -> SHA-256 of the exported file), and the structure:
``numbers``, ``positions`` and ``cell`` in Ang, and ``magnetic_moments`` in Bohr magnetons if there
are any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ase import Atoms

from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.common.digests import settings_hash
from schnetpack_phonon.common.errors import ManifestError
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.labels.labelling import label_key
from schnetpack_phonon.labels.store import Input
from schnetpack_phonon.structures.atom_properties import magnetic_moments

NAME = "manifest.json"
_HEADER = {"format": "schnetpack_phonon calculations", "version": 1}


@dataclass(frozen=True)
class Calculation:
    """One structure in one folder.

    Attributes:
        key: of its labels.
        folder: relative to the manifest.
        description: of the structure.
        atoms: the structure.
        mixing: mixing parameter of the density; None if the code is not known.
        files: name -> SHA-256 of the exported file.
    """

    key: str
    folder: str
    description: str
    atoms: Atoms
    mixing: float | None
    files: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """Calculations for one version of a code with one set of settings.

    Attributes:
        settings: of the calculator.
        code_version: name and version of the code.
        properties: keys of the labels.
        label_store: path of the store for the labels.
        code: import path (``_target_``) and arguments of the :class:`.ExternalCode` that reads the
            outputs; None if only the structures were exported.
        calculations: in the order of the export; one for each key and mixing parameter.
    """

    settings: dict[str, Any]
    code_version: str
    properties: list[str]
    label_store: str
    code: dict[str, Any] | None
    calculations: list[Calculation]

    def by_key(self) -> dict[str, list[Calculation]]:
        """All attempts for each structure."""
        found: dict[str, list[Calculation]] = {}
        for calculation in self.calculations:
            found.setdefault(calculation.key, []).append(calculation)
        return found

    def calculator(self) -> ExternalCode | None:
        """The calculator that writes inputs and reads outputs; None if the code is not known.

        Raises:
            ManifestError: if it cannot be created, is not an ExternalCode, or has other settings.
        """
        if self.code is None:
            return None
        arguments = dict(self.code)
        module, _, name = str(arguments.pop("_target_", "")).rpartition(".")
        try:
            found = getattr(import_module(module), name)
            # A manifest must not be able to call any function.
            if not (isinstance(found, type) and issubclass(found, ExternalCode)):
                raise TypeError("it is not an ExternalCode")
            calculator = found(**arguments)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ManifestError(
                f"the calculator {module}.{name} of the manifest cannot be created: {error}"
            ) from error
        if settings_hash(calculator.settings) != settings_hash(self.settings):
            raise ManifestError(
                f"{name} has other settings in this version of schnetpack_phonon: use the version "
                "that exported the folder, or export to another folder"
            )
        return calculator

    def input(self, calculation: Calculation) -> Input:
        """The input that is stored with the labels."""
        return Input(
            "label", calculation.description, self.code_version, self.settings, calculation.atoms
        )

    def write(self, root: Path) -> None:
        """Replaces the manifest of a folder, or leaves it as it is."""
        calculations = []
        for calculation in self.calculations:
            line = dict(vars(calculation))
            atoms = line.pop("atoms")
            line |= {"formula": atoms.get_chemical_formula(), "n_atoms": len(atoms)}
            line |= {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}
            line["cell"] = atoms.cell.array.tolist()
            moments = magnetic_moments(atoms)
            if moments is not None:
                line["magnetic_moments"] = moments.tolist()
            calculations.append(line)
        with replacing(root / NAME) as part, open(part, "w") as file:
            json.dump(_HEADER | vars(self) | {"calculations": calculations}, file)


def read_manifest(root: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        ManifestError: if it is missing, damaged, changed or of another format version.
    """
    path = root / NAME
    if not path.is_file():
        raise ManifestError(f"no {path}: expected a folder written by spkphonon export")
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != _HEADER["format"]:
            raise ValueError("another format")
        if (version := content.pop("version")) != _HEADER["version"]:
            raise ManifestError(
                f"{path} has format version {version}; this version of schnetpack_phonon reads "
                f"{_HEADER['version']}: use the version that wrote it, or export to another folder"
            )
        calculations = [*_calculations(content)]
        for calculation in calculations:
            _check_folder(root, calculation.folder)
        return Manifest(**content | {"calculations": calculations})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{path} is damaged or not a manifest ({type(error).__name__}: {error}): export to "
            "another folder"
        ) from error


def _check_folder(root: Path, folder: str) -> None:
    """Raises ManifestError unless a folder of a manifest lies below it, links resolved."""
    place = (root / folder).resolve()
    if root.resolve() not in place.parents or not folder.isprintable():
        raise ManifestError(
            f"{root / NAME} names the folder {folder!r}, which is {str(place)!r}; expected one "
            f"inside of {root.resolve()}: the manifest is not as spkphonon export wrote it"
        )


def _calculations(content: dict[str, Any]) -> Iterator[Calculation]:
    for line in content["calculations"]:
        atoms = Atoms(line["numbers"], line["positions"], cell=line["cell"], pbc=True)
        atoms.set_initial_magnetic_moments(line.get("magnetic_moments"))
        if line["key"] != label_key(content["settings"], content["code_version"], atoms):
            raise ValueError(f"the structure in {line['folder']} does not belong to its key")
        names = ("key", "folder", "description", "mixing", "files")
        yield Calculation(atoms=atoms, **{name: line[name] for name in names})
