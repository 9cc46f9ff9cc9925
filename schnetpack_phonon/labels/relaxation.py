"""Lattice constants and free positions that fit the code which labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.properties import PROPERTIES, Labels
from schnetpack_phonon.structures.crystals import Crystal, to_ase

#: Forces up to here count as those of a minimum, in eV/Ang.
SMALL_FORCE = 0.05


class _Supercell(Calculator):
    """Energy, forces and stress of a unit cell, calculated in a supercell of it."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, crystal: Crystal, calculator: Calculator):
        super().__init__()
        self._crystal = crystal
        self._calculator = calculator

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        cell = Crystal(self._crystal.name, self.atoms, self._crystal.supercell_matrix).phonopy()
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
    """Unit cell with cell and free positions relaxed under the crystal's own symmetry.

    Energies are taken in the supercell, since codes that know only the Gamma point give
    another lattice constant for every cell size.

    Args:
        calculator: of energy, forces and stress.
        crystal: where the relaxation starts.
        max_steps: of the optimiser.
        fmax: largest force (eV/Ang) and cell gradient (eV per atom) at convergence.

    Raises:
        CalculationFailed: if that is not reached in ``max_steps`` steps.
    """
    calculator.check(crystal.supercell)
    atoms = crystal.unitcell.copy()
    atoms.set_constraint(FixSymmetry(atoms))
    atoms.calc = _Supercell(crystal, calculator.ase_calculator())
    _minimize(FrechetCellFilter(atoms), crystal.name, fmax, max_steps)
    atoms.set_constraint()
    atoms.calc = None
    return atoms


def relax_ions(
    calculator: LabellingCalculator, atoms: Atoms, fmax: float = 1e-3, max_steps: int = 200
) -> Atoms:
    """Atoms relaxed in the cell as it is.

    Args:
        calculator: of energy and forces.
        atoms: where the relaxation starts.
        fmax: largest force at convergence, in eV/Ang.
        max_steps: of the optimiser.

    Raises:
        CalculationFailed: if that is not reached in ``max_steps`` steps.
    """
    atoms = atoms.copy()
    atoms.calc = calculator.ase_calculator()
    _minimize(atoms, atoms.get_chemical_formula(), fmax, max_steps)
    atoms.calc = None
    return atoms


def _minimize(what: Any, name: str, fmax: float, max_steps: int) -> None:
    if not BFGS(what, logfile=None).run(fmax=fmax, steps=max_steps):
        raise CalculationFailed(f"{name} did not relax to {fmax} eV/Ang in {max_steps} steps")


def largest_force(labels: Labels) -> float:
    """On any atom, in eV/Ang."""
    return float(np.linalg.norm(labels[properties.forces], axis=1).max())


def unrelaxed(labels: Labels) -> str | None:
    """What to tell of an ideal crystal whose forces or stress are large, None if they are not."""
    force = largest_force(labels)
    stress = PROPERTIES[properties.stress]
    pressure = float(np.abs(labels[properties.stress]).max()) * stress.report_factor
    if force < SMALL_FORCE and pressure < 0.5:
        return None
    return (
        f"looks unrelaxed for this calculator: forces up to {force:.2f} eV/Ang, stress up to "
        f"{pressure:.1f} {stress.report_unit}. Displacements then start from a point that is no "
        "minimum: set data.structure.relax=true, or relax it yourself"
    )
