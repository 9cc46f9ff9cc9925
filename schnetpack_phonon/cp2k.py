"""DFT labels with CP2K: its input, its output, and the calculator around both.

Gaussian and plane waves with GTH pseudopotentials, serial, one process a structure. On Debian and
Ubuntu ``apt-get install cp2k libopenblas0-openmp`` is all that is needed (the second halves the
time).
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.units import Bohr, GPa, Hartree

from schnetpack_phonon import properties
from schnetpack_phonon.calculators import (
    Labels,
    UnavailableError,
    as_ase_calculator,
    labels_from_results,
)

log = logging.getLogger(__name__)

FUNCTIONALS = {"PBE": "ORIG", "PBEsol": "PBESOL", "revPBE": "REVPBE"}


class CP2K:
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

    properties = (
        properties.energy,
        properties.energy_per_atom,
        properties.forces,
        properties.stress,
        properties.hydrostatic_stress,
        properties.band_gap,
        properties.band_gap_gamma,
        properties.partial_occupation,
        properties.vbm,
        properties.cbm,
    )

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
        if functional not in FUNCTIONALS:
            raise ValueError(
                f"unknown functional {functional!r}; there are {', '.join(FUNCTIONALS)}"
            )
        if len(kpoints) != 3 or min(kpoints) < 1:
            raise ValueError(f"kpoints is {list(kpoints)}; expected three integers >= 1")
        if added_mos < 1:
            raise ValueError(f"added_mos is {added_mos}; a gap needs an empty band: >= 1")
        if not mixing or min(mixing) < 0.1 or max(mixing) > 1:
            # CP2K judges convergence by the mixed density, whose change shrinks with the parameter.
            raise ValueError(
                f"mixing is {list(mixing)}; expected parameters between 0.1 and 1: with a smaller "
                "one CP2K counts as converged what is not"
            )
        self.functional = functional
        self.basis_set = basis_set
        self.potential = potential
        self.kpoints = tuple(int(n) for n in kpoints)
        self.cutoff = float(cutoff)
        self.rel_cutoff = float(rel_cutoff)
        self.eps_default = float(eps_default)
        self.eps_scf = float(eps_scf)
        self.electronic_temperature = float(electronic_temperature)
        self.added_mos = added_mos
        self.mixing = tuple(float(x) for x in mixing)
        self.command = command
        self.time_limit = float(time_limit)
        self.version = version

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

    @property
    def code_version(self) -> str:
        return f"CP2K {self.version or self._installed_version}"

    @cached_property
    def _installed_version(self) -> str:
        try:
            text = subprocess.check_output([self.command, "--version"], text=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise UnavailableError(
                f"cannot run {self.command!r} ({error}): install CP2K (Debian, Ubuntu: apt-get "
                "install cp2k) or set data.calculator.command"
            ) from error
        match = re.search(r"CP2K version (\S+)", text)
        if match is None:
            raise UnavailableError(
                f"{self.command!r} does not answer --version as CP2K does: {text!r}"
            )
        return match[1]

    def check(self, atoms: Atoms) -> None:
        _ = self.code_version
        if not atoms.pbc.all():
            raise ValueError(f"{atoms.get_chemical_formula()} is not periodic in 3 directions")

    def ase_calculator(self) -> Calculator:
        return as_ase_calculator(self._results)

    def label(self, atoms: Atoms) -> Labels:
        return labels_from_results(atoms, self._results(atoms))

    def input_text(self, atoms: Atoms, mixing: float | None = None) -> str:
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
            mixing=self.mixing[0] if mixing is None else mixing,
        )

    def _results(self, atoms: Atoms) -> dict[str, Any]:
        if self.version is not None and self.version != self._installed_version:
            raise UnavailableError(
                f"labels of CP2K {self.version} are asked for and {self.command!r} is "
                f"{self._installed_version}: set data.calculator.version=null to use it, which "
                "computes all labels anew"
            )
        for attempt, mixing in enumerate(self.mixing):
            with tempfile.TemporaryDirectory(prefix="cp2k-") as folder:
                (Path(folder) / "label.inp").write_text(self.input_text(atoms, mixing))
                self._execute(Path(folder))
                try:
                    return read_output(Path(folder), atoms)
                except NotConverged:
                    if attempt + 1 == len(self.mixing):
                        raise
                    log.info("not converged with mixing %g; trying the next", mixing)
        raise AssertionError("unreachable: mixing is never empty")

    def _execute(self, folder: Path) -> None:
        try:
            subprocess.run(
                [self.command, "-i", "label.inp", "-o", "label.out"],
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
                timeout=self.time_limit,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,  # the output file tells more than an exit status
            )
        except subprocess.TimeoutExpired as error:
            raise CalculationFailed(
                f"CP2K took longer than {self.time_limit:g} s: raise data.calculator.time_limit"
            ) from error
        except OSError as error:
            raise UnavailableError(f"cannot run {self.command!r}: {error}") from error


class NotConverged(CalculationFailed):
    """The self-consistent cycle ended without convergence."""


def read_output(folder: Path, atoms: Atoms) -> dict[str, Any]:
    """ASE results of a finished calculation.

    Args:
        folder: holds ``label.out`` and, for a mesh of k-points, the levels at Gamma in ``bands``.
        atoms: that were calculated; the output must list the same elements in the same order.

    Returns:
        energy (eV), forces (eV/Ang), stress (3x3, ASE's sign, eV/Ang^3), vbm, cbm and
        band_gap_gamma (eV), partial_occupation (electrons).

    Raises:
        NotConverged: if the density did not converge.
        CalculationFailed: if the output is missing, cut off, aborted or of other atoms.
    """
    path = folder / "label.out"
    if not path.exists():
        raise CalculationFailed("CP2K wrote no output")
    text = path.read_text(errors="replace")
    if "SCF run NOT converged" in text:
        raise NotConverged("CP2K's density did not converge")
    if "PROGRAM ENDED AT" not in text:
        raise CalculationFailed(_abort_message(text))
    energy = re.search(r"ENERGY\| Total FORCE_EVAL.*?(-?\d+\.\d+)\s*$", text, re.MULTILINE)
    if energy is None:
        raise CalculationFailed("CP2K's output has no energy")
    mesh = _levels(text)
    gamma = mesh
    if (folder / "bands").exists():
        gamma = [np.loadtxt(folder / "bands", usecols=(1, 2), ndmin=2).T]
    elif "FOR K POINT" in text:
        raise CalculationFailed("CP2K wrote no levels at Gamma beside those of the mesh")
    n_full = _n_valence_bands(text)
    # The highest valence and the lowest conduction level of each k-point.
    edges = np.array([energies[n_full - 1 : n_full + 1] for energies, _ in [*mesh, *gamma]])
    occupations = np.array([occupations for _, occupations in mesh])
    vbm, cbm = edges[:, 0].max(), edges[:, 1].min()
    return {
        "energy": float(energy[1]) * Hartree,
        "forces": _forces(text, atoms) * Hartree / Bohr,
        "stress": -_stress(text) * GPa,
        "vbm": float(vbm),
        "cbm": float(cbm),
        properties.band_gap_gamma: float(edges[-1, 1] - edges[-1, 0]),
        properties.partial_occupation: float(np.minimum(occupations, 2 - occupations).max()),
    }


def _levels(text: str) -> list[np.ndarray]:
    """Energies in eV and occupations of each k-point, each shape=(2, n_bands)."""
    blocks = text.split("EIGENVALUES AND OCCUPATION NUMBERS")[1:]
    row = re.compile(r"^ MO\|\s+\d+\s+\S+\s+(-?\d+\.\d+)\s+(\d+\.\d+)\s*$", re.MULTILINE)
    levels = [np.array(row.findall(block), dtype=float).T for block in blocks]
    if not levels or any(found.size == 0 for found in levels):
        raise CalculationFailed("CP2K's output has no orbital energies")
    return levels


def _n_valence_bands(text: str) -> int:
    """Half the number of electrons."""
    found = re.search(r"Number of electrons:\s+(\d+)", text)
    if found is None:
        raise CalculationFailed("CP2K's output does not tell the number of electrons")
    if int(found[1]) % 2:
        raise CalculationFailed(f"{found[1]} electrons: a closed shell needs an even number")
    return int(found[1]) // 2


def _forces(text: str, atoms: Atoms) -> np.ndarray:
    """Hartree/Bohr, shape=(n_atoms, 3)."""
    _, _, block = text.rpartition("ATOMIC FORCES in [a.u.]")
    row = re.compile(r"^\s+\d+\s+\d+\s+([A-Z][a-z]?)\s+(\S+)\s+(\S+)\s+(\S+)\s*$", re.MULTILINE)
    found = row.findall(block.partition("SUM OF ATOMIC FORCES")[0])
    symbols = [symbol for symbol, *_ in found]
    if symbols != atoms.get_chemical_symbols():
        raise CalculationFailed(
            f"CP2K's output has forces on {len(symbols)} atoms ({''.join(symbols[:5])}...); "
            f"expected {atoms.get_chemical_formula(mode='reduce')} in that order"
        )
    return np.array([values for _, *values in found], dtype=float)


def _stress(text: str) -> np.ndarray:
    """CP2K's stress (pressure positive) in GPa, shape=(3, 3)."""
    row = re.compile(r"^ STRESS\|\s+[xyz]((?:\s+-?\d\.\d+E[+-]\d+){3})\s*$", re.MULTILINE)
    found = row.findall(text)
    if len(found) != 3:
        raise CalculationFailed("CP2K's output has no stress tensor")
    return np.array([line.split() for line in found], dtype=float)


def _abort_message(text: str) -> str:
    """What CP2K wrote into its box before it stopped."""
    _, found, box = text.rpartition("[ABORT]")
    if not found:
        return "CP2K's output is cut off: the calculation was killed or the disk is full"
    lines = [line.strip(" *|/\\_") for line in box.splitlines()[1:7]]
    return "CP2K stopped: " + " ".join(line for line in lines if line and line != "O")


def _numbers(row: np.ndarray) -> str:
    return " ".join(f"{x:.10f}" for x in row)


_INPUT = """\
&GLOBAL
  PROJECT label
  RUN_TYPE ENERGY_FORCE
  PRINT_LEVEL LOW
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
