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
other calculators of lattice and forces   structure, phonons; each row      none
phonopy's files: masses, force constants  phonons, by content               none
distance, imaginary modes, renormalised   phonons                           none
trajectory                                ensemble, by content              hash of structure
options, seed, potential of the ensemble  ensemble                          by the positions
settings of the code, its version         calculator; version in each row   settings, version
labels of a file                          ensemble, by content; as told     none are computed
imported labels, their file               none                              as calculated ones
pseudopotentials of Quantum ESPRESSO      calculator, by content            settings, by content
potentials of ASE calculators             calculator, by content            settings, by content
trained models, SevenNet                  calculator, by content or name    settings, versions
tables of VASP, CP2K and GPAW             calculator, by name and version   settings, version
names and folders of files, commands      none                              none
========================================  ================================  ===================
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write

from schnetpack_phonon.calculators.base import (
    FORCE_LABELS,
    POTENTIAL_LABELS,
    LabellingCalculator,
    check_gives,
)
from schnetpack_phonon.common.digests import settings_hash
from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.properties import Labels, band_gap, band_gap_spin
from schnetpack_phonon.ensembles.base import Ensemble
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.labels.labelling import Job, Labeller, label_job
from schnetpack_phonon.labels.relaxation import (
    OTHER_CALCULATOR,
    change_of_cell,
    ideal_labels,
    large_changes,
    partly_filled,
    relax_job,
    unrelaxed,
)
from schnetpack_phonon.phonons.force_constants import (
    Models,
    PhononSource,
    different_models,
    save_phonopy,
    unmixed,
    with_masses_of,
)
from schnetpack_phonon.structures.alloys import end_members, plain, replaced
from schnetpack_phonon.structures.atom_properties import magnetic_moments
from schnetpack_phonon.structures.crystals import Crystal, StructureSource

log = logging.getLogger(__name__)

MANY_IMAGINARY = 0.1  #: share of modes above which a calculator may not be suited for a crystal


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
    def other_calculators(self) -> dict[str, LabellingCalculator]:
        """What is computed with other calculators than the labels: ``structure``, ``phonons``."""
        given = {
            "structure": self.structure.calculator if self.relax else None,
            "phonons": self.phonons.calculator if self.ensemble.temperatures else None,
        }
        labels = self.calculator.settings
        return {part: own for part, own in given.items() if own and own.settings != labels}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes the database, as plain values."""
        other: dict[str, dict[str, Any]] = {"structure": {}, "phonons": {}}
        for part, calculator in self.other_calculators.items():
            other[part]["calculator"] = calculator.settings
        return {
            "structure": {
                "relax": self.relax,
                "crystals": {c.name: plain(c) for c in self.structure.crystals},
                **other["structure"],
            },
            "phonons": {**self.phonons.settings, **other["phonons"]}
            if self.ensemble.temperatures
            else None,
            "ensemble": self.ensemble.settings,
            "calculator": self.source.settings,
        } | ({"elastic": self.elastic.settings} if self.elastic else {})

    def check(self) -> None:
        """Raises errors before anything is computed: of options, files and the calculator."""
        _ = self.settings  # names files that are not there
        structure, others = self.structure, self.other_calculators
        if self.elastic and self.ensemble.source_of_labels is not None:
            raise ValueError(
                "elastic tensors need a calculator, but labels come from a file "
                "(data.ensemble.labels=file): leave data/elastic out"
            )
        if structure.calculator is not None and not self.relax:
            raise ValueError(
                "data.structure.calculator is of the relaxation, and nothing is relaxed: set "
                "data.structure.relax=true, or leave the calculator out"
            )
        if self.relax:
            check_gives(others.get("structure", self.calculator), FORCE_LABELS, "relaxation")
        if self.ensemble.temperatures:
            self.phonons.check(structure.crystals, structure.relax)
        self.ensemble.check(structure.crystals)
        for crystal in structure.crystals:
            self.source.check(crystal.supercell)
        for crystal in end_members(structure.crystals) if "structure" in others else ():
            others["structure"].check(crystal.supercell)
        for crystal in unmixed(structure.crystals) if "phonons" in others else ():
            others["phonons"].check(crystal.supercell)

    def ideal_labels(self, labeller: Labeller, crystals: Sequence[Crystal]) -> dict[str, Labels]:
        """:func:`.ideal_labels` of the calculator; none of labels from a file."""
        if self.ensemble.source_of_labels is not None:
            return {}
        return ideal_labels(self.calculator, labeller, crystals)

    def check_exported(self, missing: Mapping[str, Sequence[Job]]) -> None:
        """Raises ValueError for jobs of other calculators than that of the labels."""
        own, jobs = self.calculator.settings, chain.from_iterable(missing.values())
        if others := [job.description for job in jobs if job.input and job.input.settings != own]:
            raise ValueError(
                f"{', '.join(others[:4])}: for data.structure.calculator or "
                "data.phonons.calculator, which are run here only: first calculate these with "
                "spkphonon generate --dry-run and the same options"
            )


def prepare(recipe: Recipe, labeller: Labeller, folder: Path) -> tuple[list[Crystal], Models]:
    """Relaxed crystals and, where the ensemble needs them, their harmonic models.

    Args:
        recipe: of the database.
        labeller: computes what is not in the label store yet.
        folder: force constants and relaxed crystals go to a folder ``phonons`` in it.
    """
    crystals = _relaxed(recipe, labeller) if recipe.relax else recipe.structure.crystals
    if recipe.ensemble.source_of_labels is not None:
        log.info("labels come from a file: nothing is calculated, crystals are not relaxed")
    _warn_at_rest(recipe, recipe.ideal_labels(labeller, crystals))
    for crystal in crystals:
        log.info("%s: space group %s", crystal.name, crystal.space_group)
    temperatures = recipe.ensemble.temperatures
    if not temperatures:
        return crystals, {}

    calculator = recipe.other_calculators.get("phonons", recipe.calculator)

    def label(what: str, jobs: Sequence[tuple[str, Atoms]]) -> list[Labels | None]:
        check_gives(calculator, POTENTIAL_LABELS, what)
        records = labeller.run([label_job(calculator, a, text) for text, a in jobs], what)
        return [record.labels for record in records]

    models = recipe.phonons.models(crystals, temperatures, label)
    crystals = list(with_masses_of(crystals, models))
    _report(recipe, crystals, models, folder)
    return crystals, models


def _report(recipe: Recipe, crystals: Sequence[Crystal], models: Models, folder: Path) -> None:
    """Logs a summary of the modes and writes the force constants for phonopy."""
    calculator = recipe.other_calculators.get("phonons", recipe.calculator)
    settings = [recipe.phonons.settings, calculator.settings]
    unstable = []
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
            if model.n_imaginary > MANY_IMAGINARY * model.frequencies.size:
                unstable.append(crystal.name)
            key = settings_hash([plain(crystal), *settings])[:9]
            suffix = f"-{temperature:g}K" if len(own) > 1 or model.renormalization else ""
            own_folder = folder / "phonons" / f"{crystal.name}-{key}{suffix}"
            save_phonopy(crystal, model.force_constants, own_folder / "phonopy_params.yaml")
            if recipe.relax:
                with replacing(own_folder / "POSCAR") as part:
                    write(part, crystal.unitcell, format="vasp", direct=True)
    if unstable:
        names = list(dict.fromkeys(unstable))
        log.warning(
            "%s: more than %g %% of the modes are imaginary. If the crystal is soft, displacements "
            "depend on data.phonons.instabilities; if not, %s",
            ", ".join(names[:4]) + (f" and {n} more" if (n := len(names) - 4) > 0 else ""),
            100 * MANY_IMAGINARY,
            OTHER_CALCULATOR,
        )


def _warn_at_rest(recipe: Recipe, found: dict[str, Labels]) -> None:
    """Warns of crystals at rest that this calculator does not describe, or not at a minimum."""
    by_other = "structure" in recipe.other_calculators
    for name, labels in found.items():
        at_minimum = recipe.relax and not by_other
        for warning in (
            None if at_minimum else unrelaxed(labels, by_other),
            partly_filled(labels),
        ):
            if warning:
                log.warning("%s: %s", name, warning)


def _relaxed(recipe: Recipe, labeller: Labeller) -> list[Crystal]:
    crystals = recipe.structure.crystals
    pure = end_members(crystals)
    calculator = recipe.other_calculators.get("structure", recipe.calculator)
    records = labeller.run([relax_job(calculator, c) for c in pure], "lattice")
    relaxed = {}
    for crystal, record in zip(pure, records, strict=True):
        if record.labels is None:
            raise LabellingError(
                f"relaxation of {crystal.name} failed: {record.error}; {OTHER_CALCULATOR}"
            )
        unitcell = crystal.unitcell.copy()
        unitcell.set_cell(record.labels["cell"])
        unitcell.positions = record.labels["positions"]
        text, _ = change_of_cell(crystal.unitcell, unitcell)
        log.info("%s: relaxed, %s", crystal.name, text)
        relaxed[crystal.name] = replace(crystal, unitcell=unitcell)
    after = replaced(crystals, relaxed)
    for warning in large_changes(crystals, after):
        log.warning(warning)
    return after
