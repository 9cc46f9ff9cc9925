"""What was exported to be calculated elsewhere: one JSON file beside the folders of the inputs.

Scripts may read it. ``calculations`` is a list of objects with ``key`` (of the labels), ``folder``
(relative to the manifest), ``description``, ``formula``, ``n_atoms``, ``mixing`` (of the density,
null where the code is not known), ``files`` (name -> SHA-256 of what was written), and the
structure: ``numbers``, ``positions`` and ``cell`` in Ang.
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
        mixing: mixing parameter of the density; None where the code is not known.
        files: name -> SHA-256 of what was written.
    """

    key: str
    folder: str
    description: str
    atoms: Atoms
    mixing: float | None
    files: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """Calculations that one code of one version and one set of settings is to do.

    Attributes:
        settings: of the calculator.
        code_version: name and version of the code.
        properties: keys of the labels.
        label_store: where labels go.
        code: import path (``_target_``) and arguments of the :class:`.ExternalCode` that reads the
            outputs; None where only the structures were written.
        calculations: in the order in which they were exported. A key is there once for each
            mixing parameter.
    """

    settings: dict[str, Any]
    code_version: str
    properties: list[str]
    label_store: str
    code: dict[str, Any] | None
    calculations: list[Calculation]

    def by_key(self) -> dict[str, list[Calculation]]:
        """The attempts at each structure."""
        found: dict[str, list[Calculation]] = {}
        for calculation in self.calculations:
            found.setdefault(calculation.key, []).append(calculation)
        return found

    def calculator(self) -> ExternalCode | None:
        """Writes inputs and reads outputs; None where the code is not known.

        Raises:
            ManifestError: if it cannot be made, is none, or has other settings.
        """
        if self.code is None:
            return None
        arguments = dict(self.code)
        module, _, name = str(arguments.pop("_target_", "")).rpartition(".")
        try:
            found = getattr(import_module(module), name)
            # A manifest may not call whatever it names.
            if not (isinstance(found, type) and issubclass(found, ExternalCode)):
                raise TypeError("it is no ExternalCode")
            calculator = found(**arguments)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ManifestError(
                f"the calculator {module}.{name} of the manifest cannot be made: {error}"
            ) from error
        if settings_hash(calculator.settings) != settings_hash(self.settings):
            raise ManifestError(
                f"{name} has other settings in this version of schnetpack_phonon: use the one that "
                "exported the folder, or export to another"
            )
        return calculator

    def input(self, calculation: Calculation) -> Input:
        """What the label store keeps beside the labels."""
        return Input(
            "label", calculation.description, self.code_version, self.settings, calculation.atoms
        )

    def write(self, root: Path) -> None:
        """Whole or not at all."""
        calculations = [
            {
                "key": c.key,
                "folder": c.folder,
                "description": c.description,
                "formula": c.atoms.get_chemical_formula(),
                "n_atoms": len(c.atoms),
                "mixing": c.mixing,
                "files": c.files,
                "numbers": c.atoms.numbers.tolist(),
                "positions": c.atoms.positions.tolist(),
                "cell": c.atoms.cell.array.tolist(),
            }
            for c in self.calculations
        ]
        with replacing(root / NAME) as part, open(part, "w") as file:
            json.dump(_HEADER | vars(self) | {"calculations": calculations}, file)


def read_manifest(root: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        ManifestError: if there is none, or it is of another format version, damaged or changed.
    """
    path = root / NAME
    if not path.is_file():
        raise ManifestError(f"no {path}: expected a folder that spkphonon export has written")
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != _HEADER["format"]:
            raise ValueError("another format")
        if (version := content.pop("version")) != _HEADER["version"]:
            raise ManifestError(
                f"{path} has format version {version}; this version of schnetpack_phonon reads "
                f"{_HEADER['version']}: use the one that exported it, or export to another folder"
            )
        return Manifest(**content | {"calculations": [*_calculations(content)]})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{path} is damaged or no manifest ({type(error).__name__}: {error}): export to "
            "another folder"
        ) from error


def _calculations(content: dict[str, Any]) -> Iterator[Calculation]:
    for line in content["calculations"]:
        atoms = Atoms(line["numbers"], line["positions"], cell=line["cell"], pbc=True)
        if line["key"] != label_key(content["settings"], content["code_version"], atoms):
            raise ValueError(f"the structure of {line['folder']} is not that of its key")
        names = ("key", "folder", "description", "mixing", "files")
        yield Calculation(atoms=atoms, **{name: line[name] for name in names})
