"""Force constants from phonopy's files, of any version of phonopy."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from phonopy import Phonopy
from phonopy.cui.load_helper import select_and_extract_force_constants
from phonopy.file_IO import (
    get_io_module_to_decompress,
    parse_FORCE_SETS,
    read_force_constants_hdf5,
)
from phonopy.interface.calculator import get_calculator_physical_units
from phonopy.interface.phonopy_yaml import PhonopyYamlData, load_phonopy_yaml
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.dataset import forces_in_dataset

from schnetpack_phonon.common.digests import contents_digest
from schnetpack_phonon.phonons.checks import (
    check_fit,
    check_force_constants,
    check_symmetry,
    same_atoms,
)
from schnetpack_phonon.phonons.force_constants import (
    LabelFunction,
    Models,
    harmonic_models,
    unmixed,
)
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.alloys import replaced
from schnetpack_phonon.structures.atom_properties import (
    check_same_moments,
    own_masses,
    to_ase,
)
from schnetpack_phonon.structures.crystals import Crystal, files_of_crystals

log = logging.getLogger(__name__)

_FORCE_FILES = ("FORCE_SETS", "FORCE_CONSTANTS", "force_constants.hdf5")
_NOISE = 0.01  # change of force constants by symmetrising, relative to the largest
_UNREADABLE = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError)


class PhonopyFiles:
    """Force constants from phonopy's files.

    Units are those of the code that the file names (``calculator``), by phonopy's definition.

    Masses are those of the file, or of the structure where the file has those of natural
    elements. The content of the files identifies a database.

    Born charges are not used: at the wave vectors of the supercell its force constants contain the
    whole dipole interaction, and the periodic cells of the labels have no macroscopic field that
    would split the modes at Gamma.

    Args:
        path: ``phonopy_params.yaml``, or ``phonopy_disp.yaml`` (or ``phonopy.yaml``) with
            FORCE_SETS, FORCE_CONSTANTS or force_constants.hdf5 beside; ``{name}`` stands for the
            name of the crystal.
        instabilities: treatment of imaginary and very low modes.
        force_sets: FORCE_SETS in another folder.
        force_constants: FORCE_CONSTANTS or force_constants.hdf5 in another folder, full or compact.
        work_dir: folder in which relative paths start.
    """

    def __init__(
        self,
        path: str,
        instabilities: Instabilities,
        force_sets: str | None = None,
        force_constants: str | None = None,
        work_dir: str = ".",
    ):
        self.files = {"path": str(Path(work_dir, path))}
        for option, file in (("force_sets", force_sets), ("force_constants", force_constants)):
            if file:
                self.files[option] = str(Path(work_dir, file))
        self.instabilities, self.calculator = instabilities, None  # no forces are calculated

    @property
    def settings(self) -> dict[str, Any]:
        files = []
        for option, pattern in self.files.items():
            found = files_of_crystals(pattern)
            if not found:
                raise _no_file(option, Path(pattern))
            files += found
        beside = [file.with_name(name) for file in files for name in _FORCE_FILES]
        return {
            "source": "phonopy",
            "files": contents_digest([*files, *beside]),
            **self.instabilities.settings,
        }

    def check(self, crystals: Sequence[Crystal]) -> None:
        for crystal in self._pure(crystals):
            self._opened(crystal.name)

    def models(
        self, crystals: Sequence[Crystal], temperatures: Sequence[float], label: LabelFunction
    ) -> Models:
        pure = self._pure(crystals)
        read = {crystal.name: self._read(crystal) for crystal in pure}
        found = {name: force_constants for name, (_, force_constants) in read.items()}
        if any(read[crystal.name][0] is not crystal for crystal in pure):
            crystals = replaced(crystals, {name: crystal for name, (crystal, _) in read.items()})
        return harmonic_models(crystals, temperatures, found, self.instabilities)

    def _pure(self, crystals: Sequence[Crystal]) -> list[Crystal]:
        """Crystals that have files."""
        pure = unmixed(crystals)
        if len(pure) > 1 and "{name}" not in self.files["path"]:
            raise ValueError(
                f"data.phonons.path is {self.files['path']!r} for {len(pure)} crystals; write "
                f"{{name}} in place of the crystal's name ({', '.join(c.name for c in pure)})"
            )
        return pure

    def _opened(self, name: str) -> tuple[Phonopy, Path, Path]:
        """Force constants or forces of a crystal, the file of its atoms, and that of the forces."""
        named = {k: Path(p.replace("{name}", name)) for k, p in self.files.items()}
        for option, file in named.items():
            if not file.is_file():
                raise _no_file(option, file)
        path, sets = named["path"], named.get("force_sets")
        constants = named.get("force_constants")
        with _reading(path):
            content = load_phonopy_yaml(_plain_yaml(path))
        if not sets and not constants:
            sets, constants = _forces_beside(path, content)
        source = sets or constants or path
        with _reading(source):
            phonon = _with_forces(content, sets, constants)
        if phonon.dataset:
            check_fit(phonon, str(source))
        return phonon, path, source

    def _read(self, crystal: Crystal) -> tuple[Crystal, np.ndarray]:
        """The crystal with the masses of its file, and force constants in the order of atoms."""
        phonon, path, source = self._opened(crystal.name)
        if phonon.dataset:
            random = "displacements" in phonon.dataset
            with _reading(source):
                phonon.produce_force_constants(
                    fc_calculator="symfc" if random else "traditional", show_drift=False
                )
        units = get_calculator_physical_units(phonon.calculator)
        there = to_ase(phonon.supercell)
        there.set_cell(there.cell * units.distance_to_A, scale_atoms=True)
        where = f"{path} and the structure {crystal.name}"
        order = same_atoms(there, crystal.supercell, where)
        check_same_moments(there[order], crystal.supercell, str(path))
        crystal = _with_masses_of(there[order], crystal, where)
        factor = units.force_to_eVperA / units.distance_to_A
        raw = np.array(phonon.force_constants) * factor
        check_force_constants(there, raw)
        phonon.symmetrize_force_constants()
        found = np.array(phonon.force_constants) * factor
        change = np.abs(found - raw).max() / np.abs(raw).max()
        if change > _NOISE:
            log.warning(
                "%s: symmetrising changes force constants by up to %.1f %% of the largest: are the "
                "forces converged?",
                source,
                100 * change,
            )
        found = found[np.ix_(order, order)]
        check_symmetry(crystal, found, str(source))
        return crystal, found


def _plain_yaml(path: Path) -> Any:
    """Plain values only: phonopy's own loader runs the programs that tags in a file name.

    Units are spelt as phonopy does now, which up to version 2.6 wrote "Angstrom".
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with get_io_module_to_decompress(path).open(path, "rb") as file:
        content = yaml.load(file, Loader=loader)
    units = isinstance(content, dict) and content.get("physical_unit")
    if units:
        code = (content.get("phonopy") or {}).get("calculator")
        own = asdict(get_calculator_physical_units(code)).values()
        spelling = {unit.lower(): unit for unit in own if isinstance(unit, str)}
        content["physical_unit"] = {k: spelling.get(u.lower(), u) for k, u in units.items()}
    return content


def _no_file(option: str, path: Path) -> ValueError:
    return ValueError(f"no phonopy file at {path.absolute()}: set data.phonons.{option}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # phonopy's advice on its own options
        try:
            yield
        except (*_UNREADABLE, yaml.YAMLError) as error:
            raise ValueError(
                f"phonopy cannot read {path} ({type(error).__name__}: {error})"
            ) from error


def _forces_beside(path: Path, content: PhonopyYamlData) -> tuple[Path | None, Path | None]:
    """FORCE_SETS or force constants in the folder of a file without either."""
    if content.force_constants is not None or forces_in_dataset(content.dataset):
        return None, None
    for name in _FORCE_FILES:
        if (beside := path.with_name(name)).is_file():
            return (beside, None) if name == "FORCE_SETS" else (None, beside)
    raise ValueError(
        f"{path} has neither forces nor force constants, and its folder has neither FORCE_SETS, "
        "FORCE_CONSTANTS nor force_constants.hdf5: set data.phonons.force_sets or "
        "data.phonons.force_constants"
    )


def _with_forces(content: PhonopyYamlData, sets: Path | None, constants: Path | None) -> Phonopy:
    """Phonopy object with full force constants, or forces, from a yaml file or the given file.

    phonopy.load prefers forces in the yaml file to the given file, and FORCE_SETS and
    FORCE_CONSTANTS of the working directory to both, so it is not used.
    """
    known = None if sets or constants else content.force_constants
    n_rows = _n_rows(constants, known)
    primitive = content.primitive_matrix
    if primitive is None and n_rows == len(content.unitcell):
        primitive = "P"  # up to phonopy 3, compact constants were those of the unit cell
    phonon = Phonopy(
        content.unitcell,
        content.supercell_matrix,
        primitive_matrix="auto" if primitive is None else primitive,
        calculator=content.calculator,
    )
    if n_rows is not None:
        if n_rows not in (len(phonon.primitive), len(phonon.supercell)):
            raise ValueError(
                f"force constants of {n_rows} atoms; expected all {len(phonon.supercell)} of the "
                f"supercell, or {len(phonon.primitive)} of the primitive cell"
            )
        phonon.force_constants = select_and_extract_force_constants(
            phonon,
            force_constants=known,
            force_constants_filename=constants,
            is_compact_fc=False,
        )
        return phonon
    phonon.dataset = content.dataset
    if sets:
        phonon.dataset = parse_FORCE_SETS(natom=len(phonon.supercell), filename=sets)
    return phonon


def _with_masses_of(there: Atoms, crystal: Crystal, where: str) -> Crystal:
    """The crystal with the masses of a file, unless these are those of the natural elements.

    Raises:
        ValueError: if the structure has masses, too, and they differ.
    """
    cell, places = there.cell.array, there.get_scaled_positions()
    natural = PhonopyAtoms(numbers=there.numbers, cell=cell, scaled_positions=places).masses
    masses = there.get_masses()
    if own_masses(there) is None or np.allclose(masses, natural, rtol=1e-5, atol=0):
        return crystal
    here = crystal.supercell.get_masses()
    if own_masses(crystal.unitcell) is None:
        log.info("%s: masses of the phonopy file are used", crystal.name)
        return crystal.with_masses(masses)
    if not np.allclose(masses, here, rtol=1e-3, atol=0):
        atom = int(np.argmax(np.abs(masses / here - 1)))
        raise ValueError(
            f"{where} do not match: atom {atom} ({there.symbols[atom]}) has {masses[atom]:g} amu "
            f"in the file and {here[atom]:g} amu in the structure; expected the same isotopes"
        )
    return crystal


def _n_rows(file: Path | None, known: np.ndarray | None) -> int | None:
    """Number of atoms whose force constants with all others are known; None without any."""
    if file is None:
        return None if known is None else len(known)
    if file.suffix == ".hdf5":
        return len(read_force_constants_hdf5(file))
    with file.open() as lines:
        return int(lines.readline().split()[0])
