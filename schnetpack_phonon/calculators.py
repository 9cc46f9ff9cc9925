"""Electronic-structure codes as labelling calculators.

A labelling calculator turns atoms into a dictionary of labels. It holds settings only, so it
travels to workers; the code's own state is made afresh for every structure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.units import Bohr, Hartree, kB

from schnetpack_phonon import properties
from schnetpack_phonon.structures import Crystal, to_ase

Labels = dict[str, np.ndarray]


class LabellingCalculator(Protocol):
    """What the labelling machinery asks of a code."""

    properties: tuple[str, ...]
    """Keys of the labels."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes a label, as plain values; hashed to identify labels."""

    @property
    def code_version(self) -> str:
        """Name and version of the code."""

    def check(self, atoms: Atoms) -> None:
        """Raises ValueError where the code would give a wrong number for these atoms."""

    def ase_calculator(self) -> Calculator:
        """A fresh ASE calculator with energy, forces and stress."""

    def label(self, atoms: Atoms) -> Labels:
        """Labels with the shapes and units of :mod:`schnetpack_phonon.properties`."""


def labels_from_results(atoms: Atoms, results: Mapping[str, Any]) -> Labels:
    """ASE results (energy, forces, stress, perhaps vbm and cbm) -> labels.

    A gap below zero, which a smeared metallic state can give, is stored as zero.
    """
    energy = float(results["energy"])
    stress = voigt_to_tensor(np.asarray(results["stress"]))
    labels: dict[str, Any] = {
        properties.energy: energy,
        properties.energy_per_atom: energy / len(atoms),
        properties.forces: results["forces"],
        properties.stress: stress,
        properties.hydrostatic_stress: np.trace(stress) / 3,
    }
    if "vbm" in results:
        labels[properties.vbm] = results["vbm"]
        labels[properties.cbm] = results["cbm"]
        labels[properties.band_gap] = max(results["cbm"] - results["vbm"], 0.0)
    labels = {
        key: np.asarray(value, dtype=float).reshape(properties.array_shape(key, len(atoms)))
        for key, value in labels.items()
    }
    wrong = [key for key, value in labels.items() if not np.isfinite(value).all()]
    if wrong:
        raise CalculationFailed(f"not finite: {', '.join(wrong)}")
    return labels


def voigt_to_tensor(stress: np.ndarray) -> np.ndarray:
    """Voigt stress (xx yy zz yz xz xy) or a 3x3 tensor -> 3x3 tensor."""
    if stress.shape == (3, 3):
        return stress
    xx, yy, zz, yz, xz, xy = stress
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


class TightBinding:
    """GFN-xTB through tblite, at the Gamma point.

    Args:
        method: ``GFN1-noX`` (GFN1-xTB without its halogen-bond term, the default),
            ``GFN1-xTB``, ``GFN2-xTB`` or ``IPEA1-xTB``. The halogen-bond term of GFN1 and IPEA1
            (Br, I, At beside N, O, P, S) misses lattice translations in tblite; those two are
            refused for such crystals.
        electronic_temperature: Fermi smearing in K.
        accuracy: tblite's accuracy factor; smaller is tighter.
        max_iterations: of the self-consistent cycle.
        min_atoms: smallest cell accepted. With the Gamma point alone a primitive cell is
            nonsense (NaCl: gap 2.6 eV with 2 atoms, 4.5 eV with 8).

    References:
        Grimme, Bannwarth, Shushkov, J. Chem. Theory Comput. 13, 1989 (2017) (GFN1);
        Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019) (GFN2).
    """

    properties = (
        properties.energy,
        properties.energy_per_atom,
        properties.forces,
        properties.stress,
        properties.hydrostatic_stress,
        properties.band_gap,
        properties.vbm,
        properties.cbm,
    )
    METHODS = ("GFN1-noX", "GFN1-xTB", "GFN2-xTB", "IPEA1-xTB")
    _halogens = frozenset({35, 53, 85})
    _acceptors = frozenset({7, 8, 15, 16})

    def __init__(
        self,
        method: str = "GFN1-noX",
        electronic_temperature: float = 300.0,
        accuracy: float = 1.0,
        max_iterations: int = 250,
        min_atoms: int = 40,
    ):
        if method not in self.METHODS:
            raise ValueError(f"unknown xTB method {method!r}; there are {', '.join(self.METHODS)}")
        self.method = method
        self.electronic_temperature = electronic_temperature
        self.accuracy = accuracy
        self.max_iterations = max_iterations
        self.min_atoms = min_atoms

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "code": "tblite",
            "method": self.method,
            "electronic_temperature": float(self.electronic_temperature),
            "accuracy": float(self.accuracy),
            "max_iterations": int(self.max_iterations),
        }

    @property
    def code_version(self) -> str:
        return f"tblite {version('tblite')}"

    def check(self, atoms: Atoms) -> None:
        if len(atoms) < self.min_atoms:
            raise ValueError(
                f"the supercell of {atoms.get_chemical_formula()} has {len(atoms)} atoms; "
                f"{self.method} is Gamma-only and needs >= {self.min_atoms}: "
                "enlarge data.structure.supercell"
            )
        species = set(atoms.numbers.tolist())
        has_term = self.method in ("GFN1-xTB", "IPEA1-xTB")
        if has_term and species & self._halogens and species & self._acceptors:
            raise ValueError(
                f"{self.method} of tblite is wrong for periodic "
                f"{atoms.get_chemical_formula()}: its halogen-bond term misses lattice "
                "translations. Use GFN1-noX (the same without that term) or GFN2-xTB"
            )

    def ase_calculator(self) -> Calculator:
        self_ = self

        class _TightBinding(Calculator):
            implemented_properties = ("energy", "forces", "stress", "vbm", "cbm")

            def calculate(self, atoms=None, properties=None, system_changes=all_changes):
                Calculator.calculate(self, atoms, properties, system_changes)
                self.results = self_._results(self.atoms)

        return _TightBinding()

    def label(self, atoms: Atoms) -> Labels:
        return labels_from_results(atoms, self._results(atoms))

    def _results(self, atoms: Atoms) -> dict[str, Any]:
        try:
            from tblite import interface
        except ImportError as error:
            raise ImportError(
                f"tblite cannot be loaded: {error}. Where PyTorch was loaded first this can be its "
                "older OpenMP library: label in worker processes (data/executor=process_pool)"
            ) from error
        calculation = interface.Calculator(
            _gfn1_without_halogen_bonds() if self.method == "GFN1-noX" else self.method,
            atoms.numbers,
            atoms.positions / Bohr,
            lattice=atoms.cell.array / Bohr,
            periodic=atoms.pbc,
        )
        calculation.set("verbosity", 0)
        calculation.set("temperature", self.electronic_temperature * kB / Hartree)
        calculation.set("accuracy", self.accuracy)
        calculation.set("max-iter", self.max_iterations)
        try:
            result = calculation.singlepoint()
        except RuntimeError as error:
            raise CalculationFailed(f"{self.method}: {error}") from error
        vbm, cbm = band_edges(result["orbital-energies"], result["orbital-occupations"])
        return {
            "energy": float(result["energy"]) * Hartree,
            "forces": -result["gradient"] * Hartree / Bohr,
            "stress": result["virial"] * Hartree / atoms.get_volume(),
            "vbm": vbm * Hartree,
            "cbm": cbm * Hartree,
        }


def band_edges(energies: np.ndarray, occupations: np.ndarray) -> tuple[float, float]:
    """Highest level that is at least half full (of 2) and the lowest above it.

    Args:
        energies: orbital energies, shape=(n_orbitals,), any unit.
        occupations: electrons per orbital between 0 and 2, shape=(n_orbitals,).

    Raises:
        CalculationFailed: if all levels are full or all are empty.
    """
    full = occupations >= 1.0
    if full.all() or not full.any():
        raise CalculationFailed(f"no band edge: {full.sum()} of {full.size} levels are occupied")
    return float(energies[full].max()), float(energies[~full].min())


def _gfn1_without_halogen_bonds() -> dict[str, Any]:
    from tblite import library

    parameters, table = library.new_param(), library.new_table()
    library.export_gfn1_param(parameters)
    library.dump_param(parameters, table)
    gfn1 = library.table_to_dict(table)
    del gfn1["halogen"]
    return gfn1


class AseCalculator:
    """Any ASE calculator that gives energy, forces and stress; band edges are left out.

    Args:
        factory: makes a fresh calculator; in YAML a ``_target_`` with ``_partial_: true``.
        min_atoms: smallest cell accepted.
    """

    properties = (
        properties.energy,
        properties.energy_per_atom,
        properties.forces,
        properties.stress,
        properties.hydrostatic_stress,
    )

    def __init__(self, factory: Callable[[], Calculator], min_atoms: int = 1):
        self.factory = factory
        self.min_atoms = min_atoms

    @property
    def settings(self) -> dict[str, Any]:
        made = self.factory if isinstance(self.factory, partial) else partial(self.factory)
        return {
            "code": f"{made.func.__module__}.{made.func.__qualname__}",
            "arguments": [repr(a) for a in made.args],
            **{key: repr(value) for key, value in sorted(made.keywords.items())},
        }

    @property
    def code_version(self) -> str:
        return f"ase {version('ase')}"

    def check(self, atoms: Atoms) -> None:
        if len(atoms) < self.min_atoms:
            raise ValueError(
                f"the supercell of {atoms.get_chemical_formula()} has {len(atoms)} atoms; "
                f"{self.settings['code']} is set to need >= {self.min_atoms}"
            )

    def ase_calculator(self) -> Calculator:
        return self.factory()

    def label(self, atoms: Atoms) -> Labels:
        atoms = atoms.copy()
        atoms.calc = self.ase_calculator()
        try:
            results = {
                "energy": atoms.get_potential_energy(),
                "forces": atoms.get_forces(),
                "stress": atoms.get_stress(voigt=False),
            }
        except PropertyNotImplementedError as error:
            raise CalculationFailed(
                f"{self.settings['code']} does not give {error}; energy, forces and stress "
                "are needed"
            ) from error
        return labels_from_results(atoms, results)


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
    if not BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=fmax, steps=max_steps):
        raise CalculationFailed(
            f"{crystal.name} did not relax to {fmax} eV/Ang in {max_steps} steps"
        )
    atoms.set_constraint()
    atoms.calc = None
    return atoms
