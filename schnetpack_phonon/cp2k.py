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

from schnetpack_phonon.cp2k_output import read_output, read_version
from schnetpack_phonon.external_code import ExternalCode, kpoint_mesh

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
