"""GFN-xTB tight binding through tblite: labels that any machine computes in a second."""

from __future__ import annotations

from typing import Any

from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.units import Bohr, Hartree, kB

from schnetpack_phonon.calculators import (
    EDGE_LABELS,
    FORCE_LABELS,
    Labels,
    as_ase_calculator,
    band_edges,
    check_size,
    labels_from_results,
    package_version,
)


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

    properties = (*FORCE_LABELS, *EDGE_LABELS)
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
        return f"tblite {package_version('tblite')}"

    def check(self, atoms: Atoms) -> None:
        check_size(atoms, self.min_atoms, f"{self.method} is Gamma-only and needs")
        species = set(atoms.numbers.tolist())
        has_term = self.method in ("GFN1-xTB", "IPEA1-xTB")
        if has_term and species & self._halogens and species & self._acceptors:
            raise ValueError(
                f"{self.method} of tblite is wrong for periodic "
                f"{atoms.get_chemical_formula()}: its halogen-bond term misses lattice "
                "translations. Use GFN1-noX (the same without that term) or GFN2-xTB"
            )

    def ase_calculator(self) -> Calculator:
        return as_ase_calculator(self._results)

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


def _gfn1_without_halogen_bonds() -> dict[str, Any]:
    from tblite import library

    parameters, table = library.new_param(), library.new_table()
    library.export_gfn1_param(parameters)
    library.dump_param(parameters, table)
    gfn1 = library.table_to_dict(table)
    del gfn1["halogen"]
    return gfn1
