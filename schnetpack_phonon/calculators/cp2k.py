"""DFT labels with CP2K: its input and the calculator that writes it.

Gaussian and plane waves with GTH pseudopotentials, serial, one process a structure. On Debian and
Ubuntu ``apt-get install cp2k libopenblas0-openmp`` is all that is needed (the second halves the
time).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.units import Bohr, GPa, Hartree

from schnetpack_phonon.calculators.base import mesh_edges
from schnetpack_phonon.calculators.external_code import (
    ExternalCode,
    NotConverged,
    check_places,
    check_symbols,
    cut_off,
    kpoint_mesh,
    no_output,
)

FUNCTIONALS = {"PBE": "ORIG", "PBEsol": "PBESOL", "revPBE": "REVPBE"}


class CP2K(ExternalCode):
    """DFT with CP2K: energy, forces, analytical stress and the Kohn-Sham band edges.

    The gap is the lowest conduction level minus the highest valence level over the k-points of
    the mesh and Gamma, bands counted by electrons; the one at Gamma alone is kept beside it.
    Levels refer to the cell's average electrostatic potential: compare them within one crystal.
    The energy is the Mermin free energy of the smeared electrons.

    Args:
        functional: ``PBEsol``, ``PBE`` or ``revPBE``.
        basis_set: of BASIS_MOLOPT, for all elements.
        potential: of GTH_POTENTIALS, for all elements.
        kpoints: Monkhorst-Pack mesh; ``[1, 1, 1]`` is Gamma alone.
        cutoff: of the density grid, in Ry.
        rel_cutoff: of the grid that a Gaussian is mapped to, in Ry.
        eps_default: CP2K's EPS_DEFAULT.
        eps_scf: of the density at convergence.
        electronic_temperature: Fermi smearing in K.
        added_mos: empty bands.
        mixing: Broyden mixing parameters, tried in turn until the density converges.
        command: the executable; files of one calculation live in a folder of its own.
        time_limit: of one calculation, in seconds.
        version: that the labels must come from, such as ``2023.1``; the installed one by default.
            Given, labels that are in a store are found on machines without CP2K.
    """

    name = "CP2K"
    install = "Debian, Ubuntu: apt-get install cp2k"

    def __init__(
        self,
        functional: str = "PBEsol",
        basis_set: str = "DZVP-MOLOPT-SR-GTH",
        potential: str = "GTH-PBE",
        kpoints: Sequence[int] = (2, 2, 2),
        cutoff: float = 280.0,
        rel_cutoff: float = 30.0,
        eps_default: float = 1e-8,
        eps_scf: float = 1e-3,
        electronic_temperature: float = 100.0,
        added_mos: int = 16,
        mixing: Sequence[float] = (0.4, 0.2, 0.1),
        command: str = "cp2k.psmp",
        time_limit: float = 3600.0,
        version: str | None = None,
    ):
        super().__init__(command, mixing, time_limit, version)
        if functional not in FUNCTIONALS:
            raise ValueError(
                f"unknown functional {functional!r}; there are {', '.join(FUNCTIONALS)}"
            )
        if added_mos < 1:
            raise ValueError(f"added_mos is {added_mos}; a gap needs an empty band: >= 1")
        if min(mixing) < 0.1:
            # CP2K judges convergence by the mixed density, whose change shrinks with the parameter.
            raise ValueError(
                f"mixing is {list(mixing)}; expected parameters between 0.1 and 1: with a smaller "
                "one CP2K counts as converged what is not"
            )
        self.functional = functional
        self.basis_set = basis_set
        self.potential = potential
        self.kpoints = kpoint_mesh(kpoints)
        self.cutoff = float(cutoff)
        self.rel_cutoff = float(rel_cutoff)
        self.eps_default = float(eps_default)
        self.eps_scf = float(eps_scf)
        self.electronic_temperature = float(electronic_temperature)
        self.added_mos = added_mos

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "code": "CP2K",
            "functional": self.functional,
            "basis_set": self.basis_set,
            "potential": self.potential,
            "kpoints": list(self.kpoints),
            "cutoff": self.cutoff,
            "rel_cutoff": self.rel_cutoff,
            "eps_default": self.eps_default,
            "eps_scf": self.eps_scf,
            "electronic_temperature": self.electronic_temperature,
            "added_mos": self.added_mos,
        }

    def ask_version(self) -> str:
        text = self.answer("--version")
        match = re.search(r"CP2K version (\S+)", text)
        if match is None:
            raise ValueError(f"it does not answer --version as CP2K does: {text!r}")
        return match[1]

    def arguments(self) -> list[str]:
        return [*super().arguments(), "-i", "label.inp", "-o", "label.out"]

    def write_input(self, folder: Path, atoms: Atoms, mixing: float) -> None:
        (folder / "label.inp").write_text(self.input_text(atoms, mixing))

    def read_output(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        return read_output(folder, atoms)

    def read_version(self, folder: Path) -> str:
        return read_version(folder)

    def input_text(self, atoms: Atoms, mixing: float) -> str:
        """CP2K input for energy, forces, stress and band edges of one structure."""
        rows = zip("ABC", atoms.cell.array, strict=True)
        cell = "\n".join(f"      {name} {_numbers(row)}" for name, row in rows)
        sites = zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)
        coordinates = "\n".join(f"      {symbol:2} {_numbers(row)}" for symbol, row in sites)
        kinds = "\n".join(
            _KIND.format(symbol=symbol, basis_set=self.basis_set, potential=self.potential)
            for symbol in sorted(set(atoms.get_chemical_symbols()))
        )
        gamma_only = self.kpoints == (1, 1, 1)
        return _INPUT.format(
            cell=cell,
            coordinates=coordinates,
            kinds=kinds,
            kpoints="" if gamma_only else _KPOINTS.format(mesh="{} {} {}".format(*self.kpoints)),
            bands="" if gamma_only else _BANDS,
            functional=FUNCTIONALS[self.functional],
            cutoff=self.cutoff,
            rel_cutoff=self.rel_cutoff,
            eps_default=self.eps_default,
            eps_scf=self.eps_scf,
            electronic_temperature=self.electronic_temperature,
            added_mos=self.added_mos,
            mixing=mixing,
        )


def _numbers(row: np.ndarray) -> str:
    return " ".join(f"{x:.10f}" for x in row)


_INPUT = """\
&GLOBAL
  PROJECT label
  RUN_TYPE ENERGY_FORCE
  PRINT_LEVEL LOW
  ECHO_INPUT
&END GLOBAL
&FORCE_EVAL
  METHOD QUICKSTEP
  STRESS_TENSOR ANALYTICAL
  &DFT
    BASIS_SET_FILE_NAME BASIS_MOLOPT
    POTENTIAL_FILE_NAME GTH_POTENTIALS
    &QS
      EPS_DEFAULT {eps_default:g}
    &END QS
    &MGRID
      CUTOFF {cutoff:g}
      REL_CUTOFF {rel_cutoff:g}
    &END MGRID
    &SCF
      SCF_GUESS ATOMIC
      EPS_SCF {eps_scf:g}
      MAX_SCF 100
      ADDED_MOS {added_mos}
      &DIAGONALIZATION
        ALGORITHM STANDARD
      &END DIAGONALIZATION
      &MIXING
        METHOD BROYDEN_MIXING
        ALPHA {mixing:g}
      &END MIXING
      &SMEAR
        METHOD FERMI_DIRAC
        ELECTRONIC_TEMPERATURE [K] {electronic_temperature:g}
      &END SMEAR
      &PRINT
        &RESTART OFF
        &END RESTART
      &END PRINT
    &END SCF
    &XC
      &XC_FUNCTIONAL
        &PBE
          PARAMETRIZATION {functional}
        &END PBE
      &END XC_FUNCTIONAL
    &END XC{kpoints}
    &PRINT
      &MO
        EIGENVALUES
        OCCUPATION_NUMBERS
        NDIGITS 8
        &EACH
          QS_SCF 0
        &END EACH
        ADD_LAST NUMERIC
      &END MO{bands}
    &END PRINT
  &END DFT
  &SUBSYS
    &CELL
{cell}
    &END CELL
    &COORD
{coordinates}
    &END COORD
{kinds}
  &END SUBSYS
  &PRINT
    &FORCES
      NDIGITS 10
    &END FORCES
    &STRESS_TENSOR ON
    &END STRESS_TENSOR
  &END PRINT
&END FORCE_EVAL
"""


_KIND = """\
    &KIND {symbol}
      BASIS_SET {basis_set}
      POTENTIAL {potential}
    &END KIND"""


_KPOINTS = """
    &KPOINTS
      SCHEME MONKHORST-PACK {mesh}
      WAVEFUNCTIONS COMPLEX
      PARALLEL_GROUP_SIZE -1
    &END KPOINTS"""


_BANDS = """
      &BAND_STRUCTURE
        FILE_NAME bands
        &KPOINT_SET
          NPOINTS 0
          UNITS B_VECTOR
          SPECIAL_POINT G 0.0 0.0 0.0
        &END KPOINT_SET
      &END BAND_STRUCTURE"""


def read_output(folder: Path, atoms: Atoms) -> dict[str, Any]:
    """ASE results of a finished calculation.

    Args:
        folder: holds ``label.out`` and, for a mesh of k-points, the levels at Gamma in ``bands``.
        atoms: that were calculated.

    Returns:
        energy (eV), forces (eV/Ang), stress (3x3, ASE's sign, eV/Ang^3), vbm, cbm and
        band_gap_gamma (eV), partial_occupation (electrons).

    Raises:
        OtherStructure: if species, their order, cell or positions are others.
        NotConverged: if the density did not converge.
        CalculationFailed: if the output is missing, cut off or aborted.
    """
    text = _text(folder)
    structure = _structure(text)
    if structure is not None:
        symbols, positions, cell = structure
        check_symbols(atoms, symbols, "CP2K")
        check_places(atoms, cell, positions, "CP2K")
    if "SCF run NOT converged" in text:
        raise NotConverged("CP2K's density did not converge")
    if "PROGRAM ENDED AT" not in text:
        raise _abort(text)
    if structure is None:
        raise CalculationFailed("CP2K's output does not repeat its input: set ECHO_INPUT there")
    energy = re.search(r"ENERGY\| Total FORCE_EVAL.*?(-?\d+\.\d+)\s*$", text, re.MULTILINE)
    if energy is None:
        raise CalculationFailed("CP2K's output has no energy")
    mesh = _levels(text)
    at_gamma = mesh[0][0]
    if (folder / "bands").exists():
        _, _, bands = (folder / "bands").read_text().rpartition("# Set")
        at_gamma = np.loadtxt(bands.splitlines()[1:], usecols=1, ndmin=1)
    elif "FOR K POINT" in text:
        raise CalculationFailed("CP2K wrote no levels at Gamma beside those of the mesh")
    return {
        "energy": float(energy[1]) * Hartree,
        "forces": _forces(text, atoms) * Hartree / Bohr,
        "stress": -_stress(text) * GPa,
        **mesh_edges(
            _n_electrons(text),
            energies=np.array([energies for energies, _ in mesh]),
            occupations=np.array([occupations for _, occupations in mesh]),
            at_gamma=at_gamma,
        ),
    }


def read_version(folder: Path) -> str:
    """Version of the program that wrote an output."""
    found = re.search(r"CP2K\| version string:\s+CP2K version (\S+)", _text(folder))
    if found is None:
        raise CalculationFailed("CP2K's output does not tell its version")
    return found[1]


def _text(folder: Path) -> str:
    """What the last run in a folder wrote: CP2K appends to the outputs that it finds."""
    path = folder / "label.out"
    if not path.exists():
        raise no_output("CP2K", folder)
    _, _, text = path.read_text(errors="replace").rpartition("PROGRAM STARTED AT")
    return text


def _structure(text: str) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Symbols, positions and cell in Ang of the input, which the output repeats, if it does."""
    number = r" +(-?\d\S*)"
    cell = re.findall(rf"^ +[ABC]{3 * number}$", text, re.MULTILINE)
    section = re.search(r"&COORD\n(.*?)&END COORD", text, re.DOTALL)
    if len(cell) != 3 or section is None:
        return None
    sites = re.findall(rf"^ *([A-Z][a-z]?){3 * number}$", section[1], re.MULTILINE)
    positions = np.array([values for _, *values in sites], dtype=float).reshape(-1, 3)
    return [symbol for symbol, *_ in sites], positions, np.array(cell, dtype=float)


def _levels(text: str) -> list[np.ndarray]:
    """Energies in eV and occupations of each k-point, each shape=(2, n_bands)."""
    if re.search(r"^ MO\| (ALPHA|BETA)", text, re.MULTILINE):
        raise CalculationFailed("CP2K's output is spin-polarised; expected no UKS")
    blocks = text.split("EIGENVALUES AND OCCUPATION NUMBERS")[1:]
    row = re.compile(r"^ MO\|\s+\d+\s+\S+\s+(-?\d+\.\d+)\s+(\d+\.\d+)\s*$", re.MULTILINE)
    levels = [np.array(row.findall(block), dtype=float).T for block in blocks]
    if not levels or any(found.size == 0 for found in levels):
        raise CalculationFailed("CP2K's output has no orbital energies")
    return levels


def _n_electrons(text: str) -> int:
    found = re.search(r"Number of electrons:\s+(\d+)", text)
    if found is None:
        raise CalculationFailed("CP2K's output does not tell the number of electrons")
    return int(found[1])


def _forces(text: str, atoms: Atoms) -> np.ndarray:
    """Hartree/Bohr, shape=(n_atoms, 3)."""
    _, _, block = text.rpartition("ATOMIC FORCES in [a.u.]")
    row = re.compile(r"^\s+\d+\s+\d+\s+([A-Z][a-z]?)\s+(\S+)\s+(\S+)\s+(\S+)\s*$", re.MULTILINE)
    found = row.findall(block.partition("SUM OF ATOMIC FORCES")[0])
    check_symbols(atoms, [symbol for symbol, *_ in found], "CP2K")
    return np.array([values for _, *values in found], dtype=float)


def _stress(text: str) -> np.ndarray:
    """CP2K's stress (pressure positive) in GPa, shape=(3, 3)."""
    row = re.compile(r"^ STRESS\|\s+[xyz]((?:\s+-?\d\.\d+E[+-]\d+){3})\s*$", re.MULTILINE)
    found = row.findall(text)
    if len(found) != 3:
        raise CalculationFailed("CP2K's output has no stress tensor")
    return np.array([line.split() for line in found], dtype=float)


def _abort(text: str) -> CalculationFailed:
    """What CP2K wrote into its box before it stopped."""
    _, found, box = text.rpartition("[ABORT]")
    if not found:
        return cut_off("CP2K")
    lines = [line.strip(" *|/\\_") for line in box.splitlines()[1:7]]
    return CalculationFailed(
        "CP2K stopped: " + " ".join(line for line in lines if line and line != "O")
    )
