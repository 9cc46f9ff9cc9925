"""Crystals -> relaxed crystals -> harmonic models, from which an ensemble is drawn.

What identifies a database (:attr:`Recipe.settings`, compared with those in an existing file) and a
label (:func:`.label_key`, in the label store). A new kind of input needs a line here and a test.

========================================  ================================  ===================
input                                     database                          label
========================================  ================================  ===================
cell, species, positions, their order     each crystal                      hash of structure
masses (also of end members)              each crystal, if not natural      none, change none
magnetic moments                          each crystal, if not zero         hash of structure
charges, tags, constraints, spin-orbit    refused                           refused
partial occupation                        refused                           refused
relaxation, supercell, end members        structure                         by the supercell
phonopy's files: masses, force constants  phonons, by content               none
distance, imaginary modes, renormalised   phonons                           none
trajectory                                ensemble, by content              hash of structure
options and seed of the ensemble          ensemble                          by the positions
settings of the code, its version         calculator; version in each row   settings, version
labels of a file                          ensemble, by content; as told     none are computed
pseudopotentials of Quantum ESPRESSO      calculator, by content            settings, by content
potentials of ASE calculators             calculator, by content            settings, by content
tables of VASP, CP2K and GPAW             calculator, by name and version   settings, version
names and folders of files, commands      none                              none
========================================  ================================  ===================
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ase import Atoms

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common.digests import settings_hash
from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.common.properties import (
    PARTLY_FILLED,
    Labels,
    band_gap,
    band_gap_spin,
    partial_occupation,
)
from schnetpack_phonon.ensembles.base import Ensemble
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.labels.labelling import Labeller, label_job
from schnetpack_phonon.labels.relaxation import relax_job, unrelaxed
from schnetpack_phonon.phonons.force_constants import (
    Models,
    PhononSource,
    different_models,
    save_phonopy,
    with_masses_of,
)
from schnetpack_phonon.structures.alloys import replaced
from schnetpack_phonon.structures.atom_properties import magnetic_moments, own_masses
from schnetpack_phonon.structures.crystals import Crystal, StructureSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """All that determines a database; parts as in :class:`.EnsembleData`."""

    structure: StructureSource
    phonons: PhononSource
    ensemble: Ensemble
    calculator: LabellingCalculator
    elastic: FiniteStrain | None = None

    @property
    def source(self) -> LabellingCalculator:
        """The calculator, or the file that holds the labels."""
        return self.ensemble.source_of_labels or self.calculator

    @property
    def relax(self) -> bool:
        """Whether crystals are relaxed, which needs a calculator."""
        return self.structure.relax and self.ensemble.source_of_labels is None

    @property
    def properties(self) -> tuple[str, ...]:
        """Keys of the labels; that of the gaps of each spin where there are magnetic moments."""
        given = self.source.properties
        moments = (magnetic_moments(crystal.unitcell) for crystal in self.structure.crystals)
        spins = band_gap in given and any(own is not None for own in moments)
        if spins and band_gap_spin not in given:
            given = (*given, band_gap_spin)
        return (*given, *(self.elastic.properties if self.elastic else ()))

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes the database, as plain values."""
        return {
            "structure": {
                "relax": self.relax,
                "crystals": {c.name: _plain(c) for c in self.structure.crystals},
            },
            "phonons": self.phonons.settings if self.ensemble.temperatures else None,
            "ensemble": self.ensemble.settings,
            "calculator": self.source.settings,
        } | ({"elastic": self.elastic.settings} if self.elastic else {})

    def check(self) -> None:
        """Raises errors before anything is computed: of options, files and the calculator."""
        _ = self.settings  # names files that are not there
        if self.elastic and self.ensemble.source_of_labels is not None:
            raise ValueError(
                "elastic tensors need a calculator, but labels come from a file "
                "(data.ensemble.labels=file): leave data/elastic out"
            )
        if self.ensemble.temperatures:
            self.phonons.check(self.structure.crystals)
        for crystal in self.structure.crystals:
            self.source.check(crystal.supercell)


def prepare(recipe: Recipe, labeller: Labeller, folder: Path) -> tuple[list[Crystal], Models]:
    """Relaxed crystals and, where the ensemble needs them, their harmonic models.

    Args:
        recipe: of the database.
        labeller: computes what is not in the label store yet.
        folder: force constants go to a folder ``phonons`` in it.
    """
    if recipe.relax:
        crystals = _relaxed(recipe, labeller)
    elif recipe.ensemble.source_of_labels is not None:
        crystals = recipe.structure.crystals
        log.info("labels come from a file: nothing is calculated, crystals are not relaxed")
    else:
        crystals = recipe.structure.crystals
        _warn_of_unrelaxed(recipe, labeller, [c for c in crystals if not c.end_members])
    for crystal in crystals:
        log.info("%s: space group %s", crystal.name, crystal.space_group)
    temperatures = recipe.ensemble.temperatures
    if not temperatures:
        return crystals, {}

    def label(what: str, jobs: Sequence[tuple[str, Atoms]]) -> list[Labels | None]:
        calculator = recipe.calculator
        records = labeller.run([label_job(calculator, a, text) for text, a in jobs], what)
        return [record.labels for record in records]

    models = recipe.phonons.models(crystals, temperatures, label)
    crystals = list(with_masses_of(crystals, models))
    _report(recipe, crystals, models, folder)
    return crystals, models


def _report(recipe: Recipe, crystals: Sequence[Crystal], models: Models, folder: Path) -> None:
    """Logs a summary of the modes and writes the force constants for phonopy."""
    settings = [recipe.phonons.settings, recipe.calculator.settings]
    for crystal in crystals:
        own = different_models(crystal, models)
        for temperature, model in own.items():
            log.info(
                "%s: %d of %d modes imaginary, the lowest at %.2f THz; %s, %d changed",
                crystal.name,
                model.n_imaginary,
                model.frequencies.size,
                model.frequencies.min(),
                model.policy,
                model.n_changed,
            )
            if model.n_real_changed:
                log.warning(
                    "%s: %d of %d modes are real but below data.phonons.instabilities."
                    "min_frequency and sampled with it: displacements are smaller than harmonic "
                    "ones (spkphonon generate --dry-run compares them)",
                    crystal.name,
                    model.n_real_changed,
                    model.frequencies.size,
                )
            key = settings_hash([_plain(crystal), *settings])[:9]
            suffix = f"-{temperature:g}K" if len(own) > 1 or model.renormalization else ""
            own_folder = folder / "phonons" / f"{crystal.name}-{key}{suffix}"
            save_phonopy(crystal, model.force_constants, own_folder / "phonopy_params.yaml")


def _warn_of_unrelaxed(recipe: Recipe, labeller: Labeller, crystals: Sequence[Crystal]) -> None:
    """Computes forces and stress of crystals that are not relaxed with the calculator."""
    jobs = [label_job(recipe.calculator, c.supercell, "ideal crystal") for c in crystals]
    try:
        records = labeller.run(jobs, "ideal crystals")
    except LabellingError as error:
        log.warning("cannot tell whether the crystals are relaxed: %s", error)
        return
    for crystal, record in zip(crystals, records, strict=True):
        warning = record.labels and unrelaxed(record.labels)
        if warning:
            log.warning("%s: %s", crystal.name, warning)


def _relaxed(recipe: Recipe, labeller: Labeller) -> list[Crystal]:
    crystals = recipe.structure.crystals
    pure = end_members(crystals)
    records = labeller.run([relax_job(recipe.calculator, c) for c in pure], "lattice")
    relaxed = {}
    for crystal, record in zip(pure, records, strict=True):
        if record.labels is None:
            raise LabellingError(f"relaxation of {crystal.name} failed: {record.error}")
        unitcell = crystal.unitcell.copy()
        unitcell.set_cell(record.labels["cell"])
        unitcell.positions = record.labels["positions"]
        log.info("%s: cell lengths %s Ang", crystal.name, unitcell.cell.lengths().round(3))
        relaxed[crystal.name] = replace(crystal, unitcell=unitcell)
    return replaced(crystals, relaxed)


def end_members(crystals: Sequence[Crystal]) -> list[Crystal]:
    """The crystals that can be relaxed with their own symmetry, each once."""
    found = {c.name: c for mix in crystals for c, _ in mix.end_members or ((mix, 1.0),)}
    return list(found.values())


def _plain(crystal: Crystal) -> dict[str, Any]:
    """A crystal as plain values."""
    plain: dict[str, Any] = {
        "formula": str(crystal.unitcell.symbols),
        "cell": crystal.unitcell.cell.array.round(6).tolist(),
        "positions": crystal.unitcell.positions.round(6).tolist(),
        "supercell": [list(row) for row in crystal.supercell_matrix],
    }
    for key, values in (
        ("masses", own_masses(crystal.unitcell)),
        ("magnetic_moments", magnetic_moments(crystal.unitcell)),
    ):
        if values is not None:  # of natural elements without moments there is nothing to say
            plain[key] = values.round(6).tolist()
    if crystal.end_members:
        plain["end_members"] = {c.name: [_plain(c), w] for c, w in crystal.end_members}
        plain["own_force_constants"] = crystal.own_force_constants
        if crystal.own_lattice:
            plain["own_lattice"] = True
    return plain


def keys_of(labels: Iterable[Labels | None]) -> list[str]:
    """Keys that any labels have; the log says how many structures lack one.

    Args:
        labels: of each structure; None where a calculation failed.
    """
    counts = Counter(key for own in labels if own is not None for key in own)
    n_most = max(counts.values(), default=0)
    for key, n in counts.items():
        if n < n_most and key != band_gap_spin:  # of spins that do not differ there is none
            log.info("%s: NaN in %d of %d structures", key, n_most - n, n_most)
    return list(counts)


def complete(labels: Iterable[Labels | None]) -> Iterator[Labels]:
    """Labels that there are; warns of partly filled bands.

    Args:
        labels: of each structure; None where a calculation failed.
    """
    n_flagged = 0
    for own in labels:
        if own is not None:
            n_flagged += (
                partial_occupation in own and own[partial_occupation].item() > PARTLY_FILLED
            )
            yield own
    if n_flagged:
        log.warning(
            "%d structures have partly filled bands (partial_occupation > %g electrons): metals, "
            "or gaps that depend on the smearing",
            n_flagged,
            PARTLY_FILLED,
        )
