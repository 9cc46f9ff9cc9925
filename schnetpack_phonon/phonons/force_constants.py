"""Force constants from finite displacements, and the harmonic models that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from phonopy import Phonopy

from schnetpack_phonon.common import properties
from schnetpack_phonon.common.properties import Labels
from schnetpack_phonon.phonons.harmonic import HarmonicModel, harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, to_ase

#: (what for, [(description, supercell), ...]) -> labels of each; None where it failed.
LabelFunction = Callable[[str, Sequence[tuple[str, Atoms]]], list[Labels | None]]


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
            crystal.supercell,
            mixed_force_constants(crystal, force_constants),
            instabilities,
            crystal.translations,
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
