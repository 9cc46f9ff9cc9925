"""Crystals and force constants in yaml files of phonopy and phono3py."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from ase import Atoms
from phonopy.file_IO import get_io_module_to_decompress
from phonopy.interface.calculator import get_calculator_physical_units
from phonopy.interface.phonopy_yaml import PhonopyYamlData, load_phonopy_yaml
from phonopy.structure.atoms import PhonopyAtoms

from schnetpack_phonon.structures.atom_properties import to_ase

_FORCES = ("displacements", "dataset")  # of the harmonic supercell, behind "phonon_"
SIGNATURE = re.compile(rb"(?m)^(phonopy|phono3py):\s*$")


_UNREADABLE = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Names the file in whatever phonopy raises; its advice on its own options goes unheard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (*_UNREADABLE, yaml.YAMLError) as error:
            raise ValueError(
                f"phonopy cannot read {path} ({type(error).__name__}: {error})"
            ) from error


def is_yaml(path: Path) -> bool:
    """Whether a file is one of phonopy's own by its name, which may end with .xz or the like."""
    return bool({".yaml", ".yml"} & set(path.suffixes))


def read_phonopy_yaml(path: Path) -> PhonopyYamlData:
    """What a file of phonopy says; of one of phono3py, what belongs to its harmonic supercell.

    Only plain values are read: phonopy's own loader runs the programs that tags in a file name.
    Units are spelt as phonopy does now, which up to version 2.6 wrote "Angstrom".
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with get_io_module_to_decompress(path).open(path, "rb") as file:
        content = yaml.load(file, Loader=loader)
    if not isinstance(content, dict):
        raise ValueError("expected the mapping that a file of phonopy is")
    if "phono3py" in content:
        content = _harmonic(content)
    if units := content.get("physical_unit"):
        code = (content.get("phonopy") or {}).get("calculator")
        own = asdict(get_calculator_physical_units(code)).values()
        spelling = {unit.lower(): unit for unit in own if isinstance(unit, str)}
        content["physical_unit"] = {k: spelling.get(u.lower(), u) for k, u in units.items()}
    return load_phonopy_yaml(content)


def _harmonic(content: dict[str, Any]) -> dict[str, Any]:
    """As phonopy would have written it; displacements of pairs, of third order, are left out."""
    kept = ("unit_cell", "physical_unit", "primitive_matrix", "supercell_matrix")
    matrix = content.get("phonon_supercell_matrix")
    return (
        {"phonopy": content["phono3py"]}
        | {key: content[key] for key in kept if key in content}
        | ({"supercell_matrix": matrix} if matrix else {})
        | {key: content[f"phonon_{key}"] for key in _FORCES if f"phonon_{key}" in content}
    )


def phonopy_unitcell(path: Path) -> Atoms:
    """The unit cell in a file of phonopy or phono3py, in Ang.

    ``info["supercell"]`` is its supercell matrix.
    """
    found = read_phonopy_yaml(path)
    atoms = in_angstrom(found.unitcell, found.calculator)
    if found.supercell_matrix is not None:
        atoms.info["supercell"] = found.supercell_matrix.tolist()
    return atoms


def in_angstrom(cell: PhonopyAtoms, code: str | None) -> Atoms:
    """A cell in the unit of length of one of phonopy's codes; None is VASP."""
    atoms = to_ase(cell)
    length = get_calculator_physical_units(code).distance_to_A
    atoms.set_cell(length * atoms.cell.array, scale_atoms=True)
    return atoms
