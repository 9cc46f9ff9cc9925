"""Labels from GFN-xTB tight binding with tblite, in about a second on any machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.data import chemical_symbols
from ase.units import Bohr, Hartree, kB

from schnetpack_phonon.calculators.base import (
    EDGE_LABELS,
    FORCE_LABELS,
    LEVEL_LABELS,
    as_ase_calculator,
    check_size,
    labels_from_results,
    package_version,
    refuse_moments,
)
from schnetpack_phonon.calculators.output import NotConverged
from schnetpack_phonon.calculators.reading.levels import (
    band_edges,
    levels_at_gap,
    partial_occupation,
)
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import check_at_least, check_choice
from schnetpack_phonon.common.executors import call_within
from schnetpack_phonon.common.properties import Labels

log = logging.getLogger(__name__)
_HEAVIEST = 86  # radon, of all methods
_STATE_TOLERANCE = 1e-3  # eV, eV/Ang, eV/Ang^3, with an accuracy factor of 1


@dataclass(eq=False)
class TightBinding:
    """GFN-xTB through tblite, at the Gamma point.

    Band edges are counted by electrons, two in each level. GFN1 leaves the highest valence bands
    of some insulators (MgO, CaO) partly filled: they have next to no gap, and a
    ``partial_occupation`` up to 1.

    Args:
        method: ``GFN1-noX`` (GFN1-xTB without its halogen-bond term, the default),
            ``GFN1-xTB``, ``GFN2-xTB`` or ``IPEA1-xTB``. The halogen-bond term of GFN1 and IPEA1
            (Br, I, At together with N, O, P, S) ignores lattice translations in tblite, so these
            two methods are refused for such crystals.
        electronic_temperature: Fermi smearing in K.
        accuracy: accuracy factor of tblite; smaller is more accurate.
        max_iterations: of the self-consistent cycle.
        min_atoms: smallest number of atoms in a cell. With the Gamma point alone, labels of a
            primitive cell are wrong (NaCl: gap 2.6 eV with 2 atoms, 4.5 eV with 8).
        mixing: damping of the mixer if the default of tblite (0.4) does not converge. It can lead
            to another electronic state, so two of these values must give the same labels.
        time_limit: for one calculation, in seconds; no limit by default.
        n_levels: number of levels below and above the gap that are further labels, ``levels`` and
            ``kpoints``; 0 for none. Another number changes the identity of all labels.

    References:
        Grimme, Bannwarth, Shushkov, J. Chem. Theory Comput. 13, 1989 (2017) (GFN1);
        Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019) (GFN2).
    """

    method: str = "GFN1-noX"
    electronic_temperature: float = 300.0
    accuracy: float = 1.0
    max_iterations: int = 250
    min_atoms: int = 40
    mixing: Sequence[float] = (0.2, 0.1)
    time_limit: float | None = None
    n_levels: int = 0

    METHODS = ("GFN1-noX", "GFN1-xTB", "GFN2-xTB", "IPEA1-xTB")
    _halogens = frozenset({35, 53, 85})
    _acceptors = frozenset({7, 8, 15, 16})

    def __post_init__(self) -> None:
        check_choice(self.METHODS, method=self.method)
        check_at_least(0, n_levels=self.n_levels)
        self.mixing = tuple(self.mixing)

    @property
    def properties(self) -> tuple[str, ...]:
        further = LEVEL_LABELS if self.n_levels else ()
        return (*FORCE_LABELS, *EDGE_LABELS, properties.partial_occupation, *further)

    @property
    def settings(self) -> dict[str, Any]:
        further = {"n_levels": self.n_levels} if self.n_levels else {}
        return further | {
            "code": "tblite",
            "method": self.method,
            "electronic_temperature": float(self.electronic_temperature),
            "accuracy": float(self.accuracy),
            "max_iterations": int(self.max_iterations),
        }

    @property
    def code_version(self) -> str:
        return f"tblite {package_version('tblite')}"

    def check(self, atoms: Atoms) -> None:
        refuse_moments(atoms, self.method)
        check_size(atoms, self.min_atoms, f"{self.method} is Gamma-only and needs")
        species = set(atoms.numbers.tolist())
        if heavy := [chemical_symbols[z] for z in sorted(species) if not 0 < z <= _HEAVIEST]:
            raise ValueError(
                f"{self.method} has no parameters for {', '.join(heavy)}; expected elements up to "
                f"{chemical_symbols[_HEAVIEST]}: use another data/calculator"
            )
        has_term = self.method in ("GFN1-xTB", "IPEA1-xTB")
        if has_term and species & self._halogens and species & self._acceptors:
            raise ValueError(
                f"{self.method} of tblite is wrong for periodic "
                f"{atoms.get_chemical_formula()}: its halogen-bond term ignores lattice "
                "translations. Use GFN1-noX (the same without that term) or GFN2-xTB"
            )

    def ase_calculator(self) -> Calculator:
        return as_ase_calculator(self._results)

    def label(self, atoms: Atoms) -> Labels:
        return labels_from_results(atoms, call_within(self.time_limit, self._results, atoms))

    def _results(self, atoms: Atoms) -> dict[str, Any]:
        try:
            return self._single_point(atoms)
        except NotConverged as error:
            reason = str(error)
        found: list[dict[str, Any]] = []
        for damping in self.mixing:
            try:
                result = self._single_point(atoms, damping)
            except NotConverged:
                continue
            if any(self._same(result, other) for other in found):
                log.info("%s; with mixing %s it converges to one state", reason, self.mixing)
                return result
            found.append(result)
        if found:
            reason += f", and not twice to the same state with mixing {self.mixing}"
        raise CalculationFailed(reason)

    def _same(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        """Whether two results are of one electronic state; results of two states differ more."""
        tolerance = _STATE_TOLERANCE * max(self.accuracy, 1)
        keys = one.keys() - {properties.partial_occupation}  # which smearing makes sensitive
        return all(np.abs(one[key] - other[key]).max() < tolerance for key in keys)

    def _single_point(self, atoms: Atoms, damping: float | None = None) -> dict[str, Any]:
        try:
            from tblite import interface
        except ImportError as error:
            raise ImportError(
                f"tblite cannot be loaded: {error}. If PyTorch was loaded first, its older OpenMP "
                "library may be the cause: label in worker processes (data/executor=process_pool)"
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
        if damping is not None:
            calculation.set("mixer-damping", damping)
        try:
            result = calculation.singlepoint()
        except RuntimeError as error:
            kind = NotConverged if "not converged" in str(error) else CalculationFailed
            raise kind(f"{self.method}: {error}") from error
        energies, occupations = result["orbital-energies"], result["orbital-occupations"]
        vbm, cbm = band_edges(energies, occupations)
        levels = {}
        if self.n_levels:
            gamma, one = np.zeros((1, 3)), np.ones(1)
            found = energies[None] * Hartree
            levels = levels_at_gap(occupations.sum(), found, gamma, one, self.n_levels, 1)
        return {
            "energy": float(result["energy"]) * Hartree,
            "forces": -result["gradient"] * Hartree / Bohr,
            "stress": result["virial"] * Hartree / atoms.get_volume(),
            "vbm": vbm * Hartree,
            "cbm": cbm * Hartree,
            properties.partial_occupation: partial_occupation(occupations),
            **levels,
        }


def _gfn1_without_halogen_bonds() -> dict[str, Any]:
    from tblite import library

    parameters, table = library.new_param(), library.new_table()
    library.export_gfn1_param(parameters)
    library.dump_param(parameters, table)
    gfn1 = library.table_to_dict(table)
    del gfn1["halogen"]
    return gfn1
