"""Where force constants come from: finite displacements of our own, or phonopy's files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from phonopy import Phonopy
from phonopy.cui.load_helper import select_and_extract_force_constants
from phonopy.file_IO import parse_FORCE_SETS
from phonopy.interface.calculator import get_calculator_physical_units
from phonopy.interface.phonopy_yaml import PhonopyYaml
from phonopy.structure.dataset import forces_in_dataset
from yaml import YAMLError

from schnetpack_phonon import properties
from schnetpack_phonon.calculators import Labels
from schnetpack_phonon.phonons import (
    HarmonicModel,
    Instabilities,
    check_force_constants,
    harmonic_model,
)
from schnetpack_phonon.structures import Crystal, digest, files_of_crystals, to_ase

#: (what for, [(description, supercell), ...]) -> labels of each; None where it failed.
LabelFunction = Callable[[str, Sequence[tuple[str, Atoms]]], list[Labels | None]]

_FORCE_FILES = ("FORCE_SETS", "FORCE_CONSTANTS", "force_constants.hdf5")
_UNREADABLE = (
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    OSError,
    YAMLError,
)

Models = dict[tuple[str, float], HarmonicModel]


class PhononSource(Protocol):
    """What makes harmonic models."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes a model, as plain values."""

    def models(
        self,
        crystals: Sequence[Crystal],
        temperatures: Sequence[float],
        label: LabelFunction,
    ) -> Models:
        """A model for each crystal's name and temperature in K."""


class FiniteDisplacements:
    """Force constants from finite displacements, made by phonopy.

    Displacements are reduced by symmetry; their forces are labels like any others.

    Args:
        distance: length of a displacement in Ang.
        instabilities: what happens to imaginary and very low modes.
    """

    def __init__(self, instabilities: Instabilities, distance: float = 0.03):
        if not distance > 0:
            raise ValueError(f"displacement distance is {distance} Ang; expected > 0")
        self.distance = distance
        self.instabilities = instabilities

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "source": "finite displacements",
            "distance": float(self.distance),
            **self.instabilities.settings,
        }

    def models(
        self,
        crystals: Sequence[Crystal],
        temperatures: Sequence[float],
        label: LabelFunction,
    ) -> Models:
        pure = unmixed(crystals)
        phonons = {crystal.name: self._displaced(crystal) for crystal in pure}
        jobs = [
            (f"displacement {k} of {name}", to_ase(atoms))
            for name, phonon in phonons.items()
            for k, atoms in enumerate(phonon.supercells_with_displacements)
        ]
        results = [labels for labels in label("force constants", jobs) if labels is not None]
        if len(results) < len(jobs):
            raise ValueError(
                f"{len(jobs) - len(results)} of {len(jobs)} displacements have no forces; force "
                "constants need all of them"
            )
        found = {}
        for name, phonon in phonons.items():
            n = len(phonon.supercells_with_displacements)
            phonon.forces = [found[properties.forces] for found in results[:n]]
            results = results[n:]
            phonon.produce_force_constants()
            phonon.symmetrize_force_constants()
            found[name] = np.array(phonon.force_constants)
        return harmonic_models(crystals, temperatures, found, self.instabilities)

    def _displaced(self, crystal: Crystal) -> Phonopy:
        phonon = crystal.phonopy()
        phonon.generate_displacements(distance=self.distance)
        return phonon


class PhonopyFiles:
    """Force constants from phonopy's own files.

    Args:
        path: ``phonopy_params.yaml``, or ``phonopy_disp.yaml`` (or ``phonopy.yaml``) with
            FORCE_SETS, FORCE_CONSTANTS or force_constants.hdf5 in the same folder; ``{name}``
            stands for the crystal's name where there are several.
        instabilities: what happens to imaginary and very low modes.
        force_sets: a FORCE_SETS elsewhere.
        force_constants: a FORCE_CONSTANTS or force_constants.hdf5 elsewhere, full or compact.
        work_dir: where a relative path starts.

    Units are those of the code that the file names (``calculator``), as phonopy has them.

    Born charges are not used: at the wave vectors of the supercell its force constants hold the
    whole dipole interaction, and in a periodic cell, as the labels are computed in, there is no
    macroscopic field that would split the modes at Gamma.
    """

    def __init__(
        self,
        path: str,
        instabilities: Instabilities,
        force_sets: str | None = None,
        force_constants: str | None = None,
        work_dir: str = ".",
    ):
        self.path = str(Path(work_dir, path))
        self.force_sets = force_sets and str(Path(work_dir, force_sets))
        self.force_constants = force_constants and str(Path(work_dir, force_constants))
        self.instabilities = instabilities

    @property
    def settings(self) -> dict[str, Any]:
        patterns = [p for p in (self.path, self.force_sets, self.force_constants) if p]
        files = [file for pattern in patterns for file in files_of_crystals(pattern)]
        beside = [file.with_name(name) for file in files for name in _FORCE_FILES]
        return {
            "source": "phonopy",
            "files": digest([*files, *beside]),
            **self.instabilities.settings,
        }

    def models(
        self,
        crystals: Sequence[Crystal],
        temperatures: Sequence[float],
        label: LabelFunction,
    ) -> Models:
        pure = unmixed(crystals)
        if len(pure) > 1 and "{name}" not in self.path:
            raise ValueError(
                f"data.phonons.path is {self.path!r} for {len(pure)} crystals; write {{name}} "
                f"where it has the crystal's name ({', '.join(c.name for c in pure)})"
            )
        found = {crystal.name: self._read(crystal) for crystal in pure}
        return harmonic_models(crystals, temperatures, found, self.instabilities)

    def _read(self, crystal: Crystal) -> np.ndarray:
        path = self._file("path", self.path, crystal)
        sets = constants = None
        if self.force_sets:
            sets = self._file("force_sets", self.force_sets, crystal)
        if self.force_constants:
            constants = self._file("force_constants", self.force_constants, crystal)
        with _reading(path):
            content = PhonopyYaml()
            content.read(path)
        if not sets and not constants:
            sets, constants = _forces_beside(path, content)
        with _reading(sets or constants or path):
            phonon = _with_force_constants(content, sets, constants)
        units = get_calculator_physical_units(phonon.calculator)
        there = to_ase(phonon.supercell)
        there.set_cell(there.cell * units.distance_to_A, scale_atoms=True)
        order = same_atoms(there, crystal.supercell, f"{path} and the structure {crystal.name}")
        factor = units.force_to_eVperA / units.distance_to_A
        check_force_constants(there, np.array(phonon.force_constants) * factor)
        phonon.symmetrize_force_constants()
        return np.array(phonon.force_constants)[np.ix_(order, order)] * factor

    @staticmethod
    def _file(option: str, value: str, crystal: Crystal) -> Path:
        path = Path(value.replace("{name}", crystal.name))
        if not path.is_file():
            raise ValueError(f"no phonopy file at {path.absolute()}: set data.phonons.{option}")
        return path


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # phonopy's advice on its own options
        try:
            yield
        except _UNREADABLE as error:
            raise ValueError(
                f"phonopy cannot read {path} ({type(error).__name__}: {error})"
            ) from error


def _forces_beside(path: Path, content: PhonopyYaml) -> tuple[Path | None, Path | None]:
    """FORCE_SETS or force constants in the folder of a file that holds none itself."""
    if content.force_constants is not None or forces_in_dataset(content.dataset):
        return None, None
    for name in _FORCE_FILES:
        if (beside := path.with_name(name)).is_file():
            return (beside, None) if name == "FORCE_SETS" else (None, beside)
    raise ValueError(
        f"{path} holds neither forces nor force constants, and neither FORCE_SETS, FORCE_CONSTANTS "
        "nor force_constants.hdf5 lies beside it: set data.phonons.force_sets or "
        "data.phonons.force_constants"
    )


def _with_force_constants(
    content: PhonopyYaml, sets: Path | None, constants: Path | None
) -> Phonopy:
    """Phonopy object with full force constants, from a yaml file or the file that is named.

    Not by phonopy.load: it prefers forces in the yaml file to those that it is told to take, and
    FORCE_SETS and FORCE_CONSTANTS of the working directory, whatever lies there, to both.
    """
    primitive = content.primitive_matrix
    phonon = Phonopy(
        content.unitcell,
        content.supercell_matrix,
        primitive_matrix="auto" if primitive is None else primitive,
        calculator=content.calculator,
    )
    known = None if sets or constants else content.force_constants
    if constants or known is not None:
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
    all_displaced = "displacements" in phonon.dataset
    phonon.produce_force_constants(
        fc_calculator="symfc" if all_displaced else "traditional", show_drift=False
    )
    return phonon


def same_atoms(there: Atoms, here: Atoms, where: str, tolerance: float = 0.02) -> np.ndarray:
    """For each atom of ``here`` the index of the same atom ``there``.

    Args:
        there: supercell of a file.
        here: supercell of the structure.
        where: names both in the error.
        tolerance: in Ang, of cell vectors and positions.

    Raises:
        ValueError: if the cells differ or an atom has no partner of its species; names it.
    """
    if len(there) != len(here):
        raise ValueError(
            f"{where} do not fit: {len(there)} atoms in the file's supercell, {len(here)} here. "
            "Set data.structure.supercell to the matrix of the force constants"
        )
    if not np.allclose(there.cell.array, here.cell.array, rtol=0, atol=tolerance):
        difference = np.abs(there.cell.array - here.cell.array).max()
        raise ValueError(
            f"{where} do not fit: the supercells differ by {difference:.3f} Ang "
            f"({np.round(np.diag(there.cell.array), 3)} in the file, "
            f"{np.round(np.diag(here.cell.array), 3)} here, on the diagonal). Give the structure "
            "that the force constants were computed for, and set data.structure.relax=false"
        )
    order = np.empty(len(here), dtype=int)
    for i, (position, number) in enumerate(zip(here.positions, here.numbers, strict=True)):
        _, distances = find_mic(there.positions - position, here.cell)
        nearest = int(distances.argmin())
        if distances[nearest] > tolerance or there.numbers[nearest] != number:
            raise ValueError(
                f"{where} do not fit: atom {i} ({here.symbols[i]} at {position.round(3)}) is "
                f"nearest to atom {nearest} ({there.symbols[nearest]}) of the file, "
                f"{distances[nearest]:.3f} Ang away"
            )
        order[i] = nearest
    return order


def sources(crystal: Crystal) -> tuple[tuple[Crystal, float], ...]:
    """The crystals whose force constants, weighted, are those of a crystal."""
    if crystal.end_members and not crystal.own_force_constants:
        return crystal.end_members
    return ((crystal, 1.0),)


def unmixed(crystals: Sequence[Crystal]) -> list[Crystal]:
    """The crystals whose own force constants are needed, each once."""
    found = {source.name: source for crystal in crystals for source, _ in sources(crystal)}
    return list(found.values())


def harmonic_models(
    crystals: Sequence[Crystal],
    temperatures: Sequence[float],
    force_constants: dict[str, np.ndarray],
    instabilities: Instabilities,
) -> Models:
    """One model a crystal, the same at all temperatures.

    Args:
        crystals: that need one.
        temperatures: in K.
        force_constants: by name of the unmixed crystals; a mixed crystal takes the average over
            its end members, weighted by composition, with its own masses.
        instabilities: what happens to imaginary and very low modes.
    """
    models = {}
    for crystal in crystals:
        model = harmonic_model(
            crystal.supercell, mixed_force_constants(crystal, force_constants), instabilities
        )
        models.update(dict.fromkeys(((crystal.name, float(t)) for t in temperatures), model))
    return models


def different_models(crystal: Crystal, models: Models) -> dict[float, HarmonicModel]:
    """Each different model of a crystal by the first temperature that it serves."""
    own = [(t, model) for (name, t), model in models.items() if name == crystal.name]
    first = {id(model): t for t, model in reversed(own)}
    return {t: model for t, model in own if first[id(model)] == t}


def mixed_force_constants(crystal: Crystal, known: dict[str, np.ndarray]) -> np.ndarray:
    """Force constants of a crystal from those of its end members, or its own."""
    return np.sum([weight * known[c.name] for c, weight in sources(crystal)], axis=0)


def save_phonopy(crystal: Crystal, force_constants: np.ndarray, path: Path) -> None:
    """Writes ``phonopy_params.yaml`` with full force constants; whole or not at all."""
    phonon = crystal.phonopy()
    phonon.force_constants = force_constants
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    phonon.save(partial, settings={"force_constants": True})
    partial.replace(path)
