"""Force constants from finite displacements, and harmonic models from force constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from phonopy.harmonic.dynmat_to_fc import DynmatToForceConstants

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import check_positive
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.properties import Labels
from schnetpack_phonon.phonons.harmonic import HarmonicModel, harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.alloys import replaced
from schnetpack_phonon.structures.atom_properties import to_ase
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix

#: (purpose, [(description, supercell), ...]) -> labels of each, None if the calculation failed.
LabelFunction = Callable[[str, Sequence[tuple[str, Atoms]]], list[Labels | None]]
Models = dict[tuple[str, float], HarmonicModel]  #: by name of the crystal and temperature in K


class PhononSource(Protocol):
    """Source of harmonic models."""

    calculator: LabellingCalculator | None
    """Of the forces; None for that of the labels."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes a model, as plain values."""

    def check(self, crystals: Sequence[Crystal], relax: bool) -> None:
        """Raises ValueError for files that cannot be used, before anything is calculated.

        Args:
            crystals: as they are given.
            relax: whether they will be relaxed.
        """

    def models(
        self, crystals: Sequence[Crystal], temperatures: Sequence[float], label: LabelFunction
    ) -> Models:
        """A model for each crystal's name and temperature in K."""


class FiniteDisplacements:
    """Force constants from finite displacements, made by phonopy.

    Displacements are reduced by symmetry. Their forces are labels like all others.

    Args:
        instabilities: treatment of imaginary and very low modes.
        distance: length of a displacement in Ang.
        calculator: of the forces; by default that of the labels.
    """

    def __init__(
        self,
        instabilities: Instabilities | None = None,
        distance: float = 0.03,
        calculator: LabellingCalculator | None = None,
    ):
        check_positive("Ang", distance=distance)
        self.distance, self.calculator = distance, calculator
        self.instabilities = instabilities or Instabilities()

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "source": "finite displacements",
            "distance": float(self.distance),
            **self.instabilities.settings,
        }

    def check(self, crystals: Sequence[Crystal], relax: bool) -> None:
        """There are no files."""

    def models(
        self, crystals: Sequence[Crystal], temperatures: Sequence[float], label: LabelFunction
    ) -> Models:
        phonons = {crystal.name: crystal.phonopy() for crystal in unmixed(crystals)}
        jobs = []
        for name, phonon in phonons.items():
            phonon.generate_displacements(distance=self.distance)
            cells = map(to_ase, phonon.supercells_with_displacements)
            jobs += [(f"displacement {k} of {name}", atoms) for k, atoms in enumerate(cells)]
        results = [labels for labels in label("force constants", jobs) if labels is not None]
        if len(results) < len(jobs):
            raise ValueError(
                f"{len(jobs) - len(results)} of {len(jobs)} displacements have no forces; force "
                "constants need all of them"
            )
        known, forces = {}, iter([labels[properties.forces] for labels in results])
        for name, phonon in phonons.items():
            phonon.forces = [next(forces) for _ in phonon.supercells_with_displacements]
            phonon.produce_force_constants()
            phonon.symmetrize_force_constants()
            known[name] = np.array(phonon.force_constants)
        return harmonic_models(crystals, temperatures, known, self.instabilities)


def phonon_model(
    crystal: Crystal,
    phonons: PhononSource,
    calculator: LabellingCalculator | None = None,
    temperature: float = 0.0,
) -> HarmonicModel:
    """The harmonic model of one crystal.

    Forces are calculated here, one structure after the other, and are not stored;
    :class:`.EnsembleData` uses several processes and a label store.

    Args:
        crystal: as it is, not relaxed.
        phonons: source of its force constants.
        calculator: of the forces, for sources that need them and have no calculator.
        temperature: in K, for force constants that depend on it.

    Raises:
        ValueError: if forces are needed and there is no calculator for them.
    """
    phonons.check([crystal], relax=False)
    calculator = phonons.calculator or calculator
    if calculator is not None:
        calculator.check(crystal.supercell)

    def label(what: str, jobs: Sequence[tuple[str, Atoms]]) -> list[Labels | None]:
        if calculator is None:
            raise ValueError(f"{what} of {crystal.name} need forces: give a calculator")
        return [calculator.label(atoms) for _, atoms in jobs]

    return phonons.models([crystal], [temperature], label)[crystal.name, float(temperature)]


def sources(crystal: Crystal) -> tuple[tuple[Crystal, float], ...]:
    """Crystals and weights whose average force constants are those of a crystal."""
    if crystal.end_members and not crystal.own_force_constants:
        return crystal.end_members
    return ((crystal, 1.0),)


def unmixed(crystals: Sequence[Crystal]) -> list[Crystal]:
    """The crystals whose own force constants are needed, each once."""
    return list({own.name: own for crystal in crystals for own, _ in sources(crystal)}.values())


def with_masses_of(crystals: Sequence[Crystal], models: Models) -> Sequence[Crystal]:
    """Crystals, and end members of mixed ones, with the masses of their models."""
    ideals = {name: model.ideal for (name, _), model in models.items()}
    known = [c for c in (*crystals, *unmixed(crystals)) if c.name in ideals]
    own = {c.name: c.with_masses(ideals[c.name].get_masses()) for c in known}
    changed = any(own[c.name] is not c for c in known)
    return replaced(crystals, own) if changed else crystals


def harmonic_models(
    crystals: Sequence[Crystal],
    temperatures: Sequence[float],
    force_constants: dict[str, np.ndarray],
    instabilities: Instabilities,
) -> Models:
    """One model for each crystal, the same at all temperatures.

    Args:
        crystals: pure or mixed ones.
        temperatures: in K.
        force_constants: by name of the unmixed crystals; a mixed crystal takes the average over
            its end members, weighted by composition, with its own masses.
        instabilities: treatment of imaginary and very low modes.
    """
    models: Models = {}
    for crystal in crystals:
        averaged = mixed_force_constants(crystal, force_constants)
        model = harmonic_model(crystal.supercell, averaged, instabilities, crystal.translations)
        models |= {(crystal.name, float(t)): model for t in temperatures}
    return models


def different_models(crystal: Crystal, models: Models) -> dict[float, HarmonicModel]:
    """The different models of a crystal, each by its first temperature."""
    found: dict[float, HarmonicModel] = {}
    for (name, temperature), model in models.items():
        if name == crystal.name and all(model is not other for other in found.values()):
            found[temperature] = model
    return found


def mixed_force_constants(crystal: Crystal, known: dict[str, np.ndarray]) -> np.ndarray:
    """Force constants of a crystal: its own, or the average over its end members."""
    return np.sum([weight * known[c.name] for c, weight in sources(crystal)], axis=0)


def interpolated(
    crystal: Crystal, force_constants: np.ndarray, matrix: Sequence[Any] | np.ndarray
) -> tuple[Crystal, np.ndarray]:
    """A crystal in another supercell, with force constants of the same dynamical matrices.

    Dynamical matrices at the wave vectors of the other supercell come from the force constants as
    phonopy interpolates them, each between the nearest images of two atoms. Those of wave vectors
    that both supercells have are equal.

    Args:
        crystal: not a mixed one.
        force_constants: in its supercell, shape=(n_atoms, n_atoms, 3, 3), eV/Ang^2.
        matrix: of the other supercell, as :func:`.supercell_matrix` takes it.

    Returns:
        The crystal and its force constants, shape=(n, n, 3, 3), eV/Ang^2.
    """
    other = replace(crystal, supercell_matrix=supercell_matrix(matrix))
    phonon, supercell = crystal.phonopy(), other.phonopy()
    phonon.force_constants = force_constants
    transform = DynmatToForceConstants(supercell.primitive, supercell.supercell, is_full_fc=True)
    points = transform.commensurate_points
    phonon.run_qpoints(points, with_dynamical_matrices=True)
    transform.dynamical_matrices = phonon.qpoints.dynamical_matrices
    transform.run()
    return other, np.array(transform.force_constants)


def save_phonopy(crystal: Crystal, force_constants: np.ndarray, path: Path) -> None:
    """Writes ``phonopy_params.yaml`` with full force constants, completely or not at all."""
    phonon = crystal.phonopy()
    phonon.force_constants = force_constants
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        phonon.save(part, settings={"force_constants": True})
