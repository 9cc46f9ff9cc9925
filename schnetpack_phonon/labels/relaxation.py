"""Relaxation of cells and atoms, and the labels of crystals at rest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.digests import settings_hash, structure_hash
from schnetpack_phonon.common.errors import LabellingError, MissingLabelsError
from schnetpack_phonon.common.properties import PARTLY_FILLED, PROPERTIES, Labels
from schnetpack_phonon.labels.labelling import Job, Labeller, label_job
from schnetpack_phonon.labels.store import Input
from schnetpack_phonon.structures.atom_properties import magnetic_kinds, to_ase
from schnetpack_phonon.structures.crystals import Crystal

log = logging.getLogger(__name__)

SMALL_FORCE = 0.05  #: largest force of a structure at its minimum, in eV/Ang
LARGE_CHANGE = 0.03  #: of a cell length by relaxing, above which a calculator is not to be trusted
NO_GAP = 0.01  #: eV, of a crystal at rest
#: What to do where a calculator does not describe a crystal.
OTHER_CALCULATOR = "choose another data/calculator, see examples/calculators.md"


class _Supercell(Calculator):
    """Energy, forces and stress of a unit cell, calculated in a supercell of it."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, crystal: Crystal, calculator: Calculator):
        super().__init__()
        self._crystal = crystal
        self._calculator = calculator

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        unitcell = self.atoms.copy()
        unitcell.set_constraint()
        cell = replace(self._crystal, unitcell=unitcell).phonopy()
        supercell = to_ase(cell.supercell)
        supercell.calc = self._calculator
        copies = len(supercell) // len(self.atoms)
        index = [cell.supercell.u2u_map[i] for i in cell.supercell.s2u_map]
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, index, supercell.get_forces() / copies)
        self.results = {
            "energy": supercell.get_potential_energy() / copies,
            "forces": forces,
            "stress": supercell.get_stress(),
        }


def relax(
    calculator: LabellingCalculator, crystal: Crystal, fmax: float = 5e-3, max_steps: int = 100
) -> Atoms:
    """Unit cell with cell and positions relaxed within the symmetry of the crystal.

    Energies are computed in the supercell, since with the Gamma point alone the lattice constant
    depends on the cell size.

    Args:
        calculator: computes energy, forces and stress.
        crystal: start of the relaxation.
        fmax: largest force (eV/Ang) and cell gradient (eV per atom) at convergence.
        max_steps: of the optimiser.

    Raises:
        CalculationFailed: if it does not converge in ``max_steps`` steps.
    """
    calculator.check(crystal.supercell)
    atoms = crystal.unitcell.copy()
    elements = atoms.numbers.copy()
    atoms.numbers = magnetic_kinds(atoms)  # FixSymmetry does not look at moments
    atoms.set_constraint(FixSymmetry(atoms))
    atoms.numbers = elements
    atoms.calc = _Supercell(crystal, calculator.ase_calculator())
    _minimize(FrechetCellFilter(atoms), crystal.name, fmax, max_steps)
    atoms.set_constraint()
    atoms.calc = None
    return atoms


def relax_ions(
    calculator: LabellingCalculator, atoms: Atoms, fmax: float = 1e-3, max_steps: int = 200
) -> Atoms:
    """Atoms relaxed in a fixed cell.

    Args:
        calculator: computes energy and forces.
        atoms: start of the relaxation.
        fmax: largest force at convergence, in eV/Ang.
        max_steps: of the optimiser.

    Raises:
        CalculationFailed: if it does not converge in ``max_steps`` steps.
    """
    atoms = atoms.copy()
    atoms.calc = calculator.ase_calculator()
    _minimize(atoms, atoms.get_chemical_formula(), fmax, max_steps)
    atoms.calc = None
    return atoms


def _minimize(what: Any, name: str, fmax: float, max_steps: int) -> None:
    if not BFGS(what, logfile=None).run(fmax=fmax, steps=max_steps):
        raise CalculationFailed(f"{name} did not relax to {fmax} eV/Ang in {max_steps} steps")


def relax_job(calculator: LabellingCalculator, crystal: Crystal) -> Job:
    """Cell and positions of the unit cell of a crystal, relaxed with the calculator."""
    settings, code = calculator.settings, calculator.code_version
    identity = [settings, code, structure_hash(crystal.unitcell), crystal.supercell_matrix]
    given = Input("relax", crystal.name, code, settings, crystal.supercell)
    key = settings_hash(["relax", *identity])
    return Job(key, f"relax {crystal.name}", _relaxed, (calculator, crystal), given)


def _relaxed(calculator: LabellingCalculator, crystal: Crystal) -> Labels:
    atoms = relax(calculator, crystal)
    return {"cell": atoms.cell.array, "positions": atoms.positions}


def relaxed_label_job(calculator: LabellingCalculator, atoms: Atoms, description: str) -> Job:
    """The labels of one structure after relaxation of its atoms in a fixed cell."""
    compute = partial(_relaxed_label, calculator)
    return label_job(calculator, atoms, description, "label relaxed", compute)


def _relaxed_label(calculator: LabellingCalculator, atoms: Atoms) -> Labels:
    return calculator.label(relax_ions(calculator, atoms))


def change_of_cell(before: Atoms, after: Atoms) -> tuple[str, float]:
    """What relaxing did to a cell: in words, and the largest relative change of a length.

    Lengths that are the same before and after, such as all of a cubic crystal, are named once.
    """
    lengths = np.array([before.cell.lengths(), after.cell.lengths()]).T
    changes = lengths[:, 1] / lengths[:, 0] - 1
    different = dict.fromkeys((f"{a:.3f} -> {b:.3f} Ang, {b / a - 1:+.1%}") for a, b in lengths)
    text = "; ".join(different).replace("%", " %")
    angles = np.array([before.cell.angles(), after.cell.angles()])
    if np.abs(angles[1] - angles[0]).max() > 0.05:
        one, other = (", ".join(f"{angle:.1f}" for angle in row) for row in angles)
        text += f"; angles {one} -> {other} degrees"
    return text, float(np.abs(changes).max())


def large_changes(before: Sequence[Crystal], after: Sequence[Crystal]) -> list[str]:
    """Warnings about crystals whose cells relaxing changed a lot.

    End members of a mixed crystal may start from its cell and change a lot: only their average
    counts.
    """
    changed = [
        crystal.composition or crystal.name
        for crystal, relaxed in zip(before, after, strict=True)
        if change_of_cell(crystal.unitcell, relaxed.unitcell)[1] > LARGE_CHANGE
    ]
    return [
        f"{name}: relaxing changes the cell by more than {100 * LARGE_CHANGE:g} %. The given "
        "structure is far from the minimum of this calculator: if it is a measured one, "
        f"{OTHER_CALCULATOR}"
        for name in dict.fromkeys(changed)
    ]


def ideal_labels(
    calculator: LabellingCalculator, labeller: Labeller, crystals: Sequence[Crystal]
) -> dict[str, Labels]:
    """Labels of crystals at rest by name, from which changes count; nothing depends on them.

    Mixed crystals, and those whose calculation fails, are left out. So are labels that a shipped
    store lacks: a database of shipped labels is made without the code.
    """
    jobs = [(c.name, label_job(calculator, c.supercell, "ideal crystal")) for c in crystals]
    jobs = [own for own, c in zip(jobs, crystals, strict=True) if not c.end_members]
    if labeller.store.is_shipped:
        jobs = [(name, job) for name, job in jobs if job.key in labeller.store]
    try:
        records = labeller.run([job for _, job in jobs], "ideal crystals")
    except MissingLabelsError:
        return {}
    except LabellingError as error:
        log.warning("crystals at rest have no labels: %s", error)
        return {}
    found = zip(jobs, records, strict=True)
    return {name: record.labels for (name, _), record in found if record.labels is not None}


def largest_force(labels: Labels) -> float:
    """On any atom, in eV/Ang."""
    return float(np.linalg.norm(labels[properties.forces], axis=1).max())


def partly_filled(labels: Labels) -> str | None:
    """Warning about a crystal at rest that the calculator makes a metal; None for insulators."""
    share, gap = labels.get(properties.partial_occupation), labels.get(properties.band_gap)
    if share is not None and share.item() > PARTLY_FILLED:
        what = f"partly filled bands at rest (partial_occupation {share.item():.2g} electrons)"
    elif gap is not None and gap.item() < NO_GAP:
        what = f"no gap at rest ({gap.item():.2g} eV)"
    else:
        return None
    return f"has {what}. If it is no metal, its gaps and band edges are wrong: {OTHER_CALCULATOR}"


def unrelaxed(labels: Labels, by_other: bool = False) -> str | None:
    """Warning about an ideal crystal with large forces or stress; None if small or not known.

    Args:
        labels: of the crystal at rest.
        by_other: whether it was relaxed with another calculator.
    """
    if properties.forces not in labels or properties.stress not in labels:
        return None
    force = largest_force(labels)
    stress = PROPERTIES[properties.stress]
    pressure = float(np.abs(labels[properties.stress]).max()) * stress.report_factor
    if force < SMALL_FORCE and pressure < 0.5:
        return None
    advice = "set data.structure.relax=true, or relax it yourself"
    if by_other:
        advice = "that is the price of relaxing it with another calculator"
    return (
        f"looks unrelaxed for the calculator of the labels: forces up to {force:.2f} eV/Ang, "
        f"stress up to {pressure:.1f} {stress.report_unit}. Displacements then start from a point "
        f"that is not a minimum: {advice}"
    )
