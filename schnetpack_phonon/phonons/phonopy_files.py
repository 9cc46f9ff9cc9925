"""Force constants from phonopy's files, of any version of phonopy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from phonopy import Phonopy
from phonopy.cui.load_helper import select_and_extract_force_constants
from phonopy.interface.calculator import get_calculator_physical_units
from phonopy.interface.phonopy_yaml import PhonopyYamlData
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.dataset import forces_in_dataset

from schnetpack_phonon.common.digests import contents_digest
from schnetpack_phonon.common.errors import check_positive
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
    to_phonopy,
)
from schnetpack_phonon.structures.crystals import Crystal
from schnetpack_phonon.structures.files import files_of_crystals, read_structure
from schnetpack_phonon.structures.formats.phonopy_forces import FORCES_FC2, n_rows, read_forces
from schnetpack_phonon.structures.formats.phonopy_yaml import (
    in_angstrom,
    is_yaml,
    read_phonopy_yaml,
    reading,
)

log = logging.getLogger(__name__)

_FORCE_FILES = ("FORCE_SETS", "FORCE_CONSTANTS", "force_constants.hdf5", "fc2.hdf5", FORCES_FC2)
_TOLERANCE = 1e-5  # Ang, phonopy's default
_FAR = 0.5  # Ang; atoms of a relaxed crystal may be as far from those of the given one
_NOISE = 0.01  # change of force constants by symmetrising, relative to the largest


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
            FORCE_SETS, FORCE_CONSTANTS or force_constants.hdf5 beside; a yaml file of phono3py
            with fc2.hdf5 or FORCES_FC2 beside; or the unit cell (POSCAR) with one of these beside,
            in eV and Ang. ``{name}`` stands for the name of the crystal.
        instabilities: treatment of imaginary and very low modes.
        force_sets: FORCE_SETS or FORCES_FC2 in another folder.
        force_constants: FORCE_CONSTANTS or force_constants.hdf5 in another folder, full or compact.
        symmetry_tolerance: in Ang, of phonopy's search for symmetry.
        work_dir: folder in which relative paths start.
    """

    def __init__(
        self,
        path: str | None,
        instabilities: Instabilities,
        force_sets: str | None = None,
        force_constants: str | None = None,
        symmetry_tolerance: float = _TOLERANCE,
        work_dir: str = ".",
    ):
        if path is None:
            raise ValueError("data.phonons.path is null: set it to a file of phonopy")
        check_positive("Ang", **{"data.phonons.symmetry_tolerance": symmetry_tolerance})
        self.symmetry_tolerance = float(symmetry_tolerance)
        self.files = {"path": str(Path(work_dir, path))}
        for option, file in (("force_sets", force_sets), ("force_constants", force_constants)):
            if file:
                self.files[option] = str(Path(work_dir, file))
        self.instabilities, self.calculator = instabilities, None  # no forces are calculated

    @property
    def settings(self) -> dict[str, Any]:
        files, tolerance = [], self.symmetry_tolerance
        for option, pattern in self.files.items():
            found = files_of_crystals(pattern)
            if not found:
                raise _no_file(option, Path(pattern))
            files += found
        beside = [file.with_name(name) for file in files for name in _FORCE_FILES]
        return {
            "source": "phonopy",
            "files": contents_digest([*files, *beside]),
            **({} if tolerance == _TOLERANCE else {"symmetry_tolerance": tolerance}),
            **self.instabilities.settings,
        }

    def check(self, crystals: Sequence[Crystal], relax: bool) -> None:
        for crystal in self._pure(crystals):
            if relax:
                self._check_before_relaxing(crystal)
            else:
                self._read(crystal)

    def _check_before_relaxing(self, crystal: Crystal) -> None:
        """Species and sites, of which relaxing changes little."""
        phonon, path, _ = self._opened(crystal)
        where = f"{path} and the structure {crystal.name}"
        there = in_angstrom(phonon.supercell, phonon.calculator)
        scaled = there.copy()
        scaled.set_cell(crystal.supercell.cell, scale_atoms=True)
        same_atoms(scaled, crystal.supercell, where, _FAR)
        try:
            same_atoms(there, crystal.supercell, where)
        except ValueError:
            return  # those of another lattice, such as the relaxed one
        raise ValueError(f"{where} match, until it is relaxed: set data.structure.relax=false")

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

    def _opened(self, crystal: Crystal) -> tuple[Phonopy, Path, Path]:
        """Force constants or forces of a crystal, the file of its atoms, and that of the forces."""
        named = {k: Path(p.replace("{name}", crystal.name)) for k, p in self.files.items()}
        for option, file in named.items():
            if not file.is_file():
                raise _no_file(option, file)
        path, sets, constants = named["path"], named.get("force_sets"), named.get("force_constants")
        if is_yaml(path):
            with reading(path):
                content = read_phonopy_yaml(path)
        else:
            unitcell = to_phonopy(read_structure(path, option="data.phonons."))
            matrix = np.array(crystal.supercell_matrix)
            content = PhonopyYamlData(unitcell=unitcell, supercell_matrix=matrix)
        if not sets and not constants:
            sets, constants = _forces_beside(path, content)
        source = sets or constants or path
        with reading(source):
            phonon = _with_forces(content, sets, constants, self.symmetry_tolerance)
        if phonon.dataset:
            check_fit(phonon, str(source))
        return phonon, path, source

    def _read(self, crystal: Crystal) -> tuple[Crystal, np.ndarray]:
        """The crystal with the masses of its file, and force constants in the order of atoms."""
        phonon, path, source = self._opened(crystal)
        if phonon.dataset:
            random = "displacements" in phonon.dataset
            with reading(source):
                phonon.produce_force_constants(
                    fc_calculator="symfc" if random else "traditional", show_drift=False
                )
        units = get_calculator_physical_units(phonon.calculator)
        there = in_angstrom(phonon.supercell, phonon.calculator)
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


def _no_file(option: str, path: Path) -> ValueError:
    return ValueError(f"no phonopy file at {path.absolute()}: set data.phonons.{option}")


def _forces_beside(path: Path, content: PhonopyYamlData) -> tuple[Path | None, Path | None]:
    """FORCE_SETS or force constants in the folder of a file without either."""
    if content.force_constants is not None or forces_in_dataset(content.dataset):
        return None, None
    for name in _FORCE_FILES:
        if (beside := path.with_name(name)).is_file():
            return (beside, None) if name in ("FORCE_SETS", FORCES_FC2) else (None, beside)
    raise ValueError(
        f"{path} has neither forces nor force constants that are used, and its folder has none of "
        f"{', '.join(_FORCE_FILES)}: set data.phonons.force_sets or data.phonons.force_constants"
    )


def _with_forces(
    content: PhonopyYamlData, sets: Path | None, constants: Path | None, tolerance: float
) -> Phonopy:
    """Phonopy object with full force constants, or forces, from a yaml file or the given file.

    phonopy.load prefers forces in the yaml file to the given file, and FORCE_SETS and
    FORCE_CONSTANTS of the working directory to both, so it is not used.
    """
    known = None if sets or constants else content.force_constants
    n_atoms = n_rows(constants, known)
    primitive = content.primitive_matrix
    if primitive is None and n_atoms == len(content.unitcell):
        primitive = "P"  # up to phonopy 3, compact constants were those of the unit cell
    phonon = Phonopy(
        content.unitcell,
        content.supercell_matrix,
        primitive_matrix="auto" if primitive is None else primitive,
        calculator=content.calculator,
        symprec=tolerance,
    )
    if n_atoms is not None:
        if n_atoms not in (len(phonon.primitive), len(phonon.supercell)):
            raise ValueError(
                f"force constants of {n_atoms} atoms; expected all {len(phonon.supercell)} of the "
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
        phonon.dataset = read_forces(sets, len(phonon.supercell))
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
