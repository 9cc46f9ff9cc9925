"""DFT labels with CP2K.

Gaussian and plane waves with GTH pseudopotentials, serial, one process for each structure. On
Debian and Ubuntu ``apt-get install cp2k libopenblas0-openmp`` installs all that is needed (the
second package halves the computing time).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.calculators.output import check_structure, check_symbols
from schnetpack_phonon.calculators.reading import cp2k_text
from schnetpack_phonon.calculators.reading.convergence import check_cp2k
from schnetpack_phonon.calculators.reading.levels import mesh_edges
from schnetpack_phonon.calculators.reading.settings import cp2k_differences
from schnetpack_phonon.common.errors import check_at_least, check_choice
from schnetpack_phonon.structures.atom_properties import magnetic_kinds, magnetic_moments

FUNCTIONALS = {"PBE": "ORIG", "PBEsol": "PBESOL", "revPBE": "REVPBE"}


@dataclass(eq=False)
class CP2K(ExternalCode):
    """DFT with CP2K: energy, forces, analytical stress and the Kohn-Sham band edges.

    A structure with magnetic moments is calculated with two spins: each element and moment is a
    kind with MAGNETIZATION, and MULTIPLICITY is that of their sum.

    Band edges are taken over the mesh and Gamma, which need not be in the mesh. Levels are
    relative to the average electrostatic potential of the cell: compare them within one crystal.

    Args:
        functional: ``PBEsol``, ``PBE`` or ``revPBE``.
        basis_set: from BASIS_MOLOPT, for all elements.
        potential: from GTH_POTENTIALS, for all elements.
        kpoints: Monkhorst-Pack mesh; ``[1, 1, 1]`` is Gamma alone.
        cutoff: of the density grid, in Ry.
        rel_cutoff: of the grid to which a Gaussian is mapped, in Ry.
        eps_default: EPS_DEFAULT of CP2K.
        eps_scf: EPS_SCF of CP2K, the convergence threshold of the density.
        added_mos: number of empty bands.
        mixing: parameters of Broyden mixing, at least 0.1, tried in turn.
        version: such as ``2023.1``; this and all other options as in :class:`.ExternalCode`.
    """

    functional: str = "PBEsol"
    basis_set: str = "DZVP-MOLOPT-SR-GTH"
    potential: str = "GTH-PBE"
    kpoints: Sequence[int] = (2, 2, 2)
    cutoff: float = 280.0
    rel_cutoff: float = 30.0
    eps_default: float = 1e-8
    eps_scf: float = 1e-3
    electronic_temperature: float = 100.0
    added_mos: int = 16
    mixing: Sequence[float] = (0.4, 0.2, 0.1)
    n_levels: int = 0
    command: str = "cp2k.psmp"
    time_limit: float = 3600.0
    version: str | None = None

    name = "CP2K"
    install = "Debian, Ubuntu: apt-get install cp2k"
    output = "label.out"
    input_arguments = ("-i", "label.inp", "-o", "label.out")
    version_arguments = ("--version",)
    version_pattern = r"CP2K version (\S+)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(FUNCTIONALS, functional=self.functional)
        check_at_least(max(1, self.n_levels), added_mos=self.added_mos)  # of empty bands
        if min(self.mixing) < 0.1:
            # CP2K judges convergence by the mixed density, whose change shrinks with the parameter.
            raise ValueError(
                f"mixing is {list(self.mixing)}; expected parameters between 0.1 and 1: with a "
                "smaller one CP2K counts as converged what is not"
            )

    def write_input(self, folder: Path, atoms: Atoms, mixing: float) -> None:
        names, kinds, spin = self._kinds(atoms)
        mesh = self.kpoints != (1, 1, 1)
        given = {
            "cell": _rows("ABC", atoms.cell.array),
            "coordinates": _rows([f"{name:2}" for name in names], atoms.positions),
            "kinds": kinds,
            "spin": spin,
            "kpoints": _KPOINTS.format(*self.kpoints) if mesh else "",
            "bands": mesh * _BANDS + (mesh and self.n_levels > 0) * _LIST,
            "functional": FUNCTIONALS[self.functional],
            "mixing": mixing,
        }
        (folder / "label.inp").write_text(_INPUT.format(**vars(self) | given))

    def _kinds(self, atoms: Atoms) -> tuple[list[str], str, str]:
        """Name of the kind of each atom, the section of all kinds, and how spins are treated."""
        names, magnetic, spin = atoms.get_chemical_symbols(), {}, ""
        if (moments := magnetic_moments(atoms)) is not None:
            pairs = zip(names, moments, strict=True)
            lines = [_MAGNETIC.format(symbol=symbol, moment=moment) for symbol, moment in pairs]
            names = [f"{s}{k}" for s, k in zip(names, magnetic_kinds(atoms), strict=True)]
            magnetic = dict(zip(names, lines, strict=True))
            # Cores have closed shells: an odd number of electrons is that of the nuclear charges.
            unpaired = round(abs(moments.sum()))
            unpaired += (unpaired + int(atoms.numbers.sum())) % 2
            spin = _SPIN.format(unpaired + 1)
        texts = (
            _KIND.format(symbol=name, magnetic=magnetic.get(name, ""), **vars(self))
            for name in sorted(set(names))
        )
        return names, "\n".join(texts), spin

    def read_output(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """ASE results from ``label.out`` and, for a mesh, the levels at Gamma in ``bands``."""
        text = self.parsed(folder, _last_run)
        structure = cp2k_text.structure(text)
        if structure is not None:
            check_structure(atoms, *structure, self.name)
        check_cp2k(text)
        if "PROGRAM ENDED AT" not in text:
            raise self.incomplete(text)
        if structure is None:
            raise self.lacks("copy of its input: set ECHO_INPUT there")
        if "SCF run converged" not in text:
            raise self.lacks("word about convergence of its density")
        levels = cp2k_text.levels(text)  # electrons in each last
        at_gamma = None if "FOR K POINT" in text else levels[..., 0, :, 0]
        if (folder / "bands").exists():
            at_gamma = cp2k_text.levels_at_gamma((folder / "bands").read_text())
        elif "FOR K POINT" in text and self.needs_gamma:
            raise self.lacks("levels at Gamma beside those of the mesh")
        n_electrons, further = cp2k_text.n_electrons(text, n_spins=levels.ndim - 2), {}
        if self.n_levels:
            points = cp2k_text.kpoints(text, self.kpoints)
            further = self.levels(n_electrons, levels[..., 0], *points)
        symbols, forces = cp2k_text.forces(text)
        check_symbols(atoms, symbols or structure[0][: len(forces)], self.name)
        return {
            "energy": cp2k_text.energy(text),
            "forces": forces,
            "stress": cp2k_text.stress(text),
            **mesh_edges(n_electrons, levels[..., 0], levels[..., 1], at_gamma),
            **further,
        }

    def read_atoms(self, folder: Path) -> Atoms:
        return cp2k_text.atoms(self.parsed(folder, _last_run))

    def other_settings(self, folder: Path, atoms: Atoms) -> dict[str, str]:
        expected = {
            "PARAMETRIZATION": FUNCTIONALS[self.functional],
            "BASIS_SET": self.basis_set,
            "POTENTIAL": self.potential,
            "CUTOFF": self.cutoff,
            "REL_CUTOFF": self.rel_cutoff,
            "EPS_DEFAULT": self.eps_default,
            "EPS_SCF": self.eps_scf,
            "ELECTRONIC_TEMPERATURE": self.electronic_temperature,
            "SCHEME MONKHORST-PACK": self.kpoints,
        }
        return cp2k_differences(self.parsed(folder, _last_run), expected)

    def read_version(self, folder: Path) -> str:
        return cp2k_text.version(self.parsed(folder, _last_run))

    def reason(self, text: str) -> str:
        """The text in the box that CP2K prints before it stops."""
        _, found, box = text.rpartition("[ABORT]")
        lines = [line.strip(" *|/\\_") for line in box.splitlines()[1:7]] if found else []
        return " ".join(line for line in lines if line and line != "O")


def _rows(names: Iterable[str], rows: np.ndarray) -> str:
    """Lines of the input, each with a name and numbers."""
    pairs = zip(names, rows, strict=True)
    return "\n".join(f"      {name} " + " ".join(f"{x:.10f}" for x in row) for name, row in pairs)


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
  &DFT{spin}
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
    &KIND {symbol}{magnetic}
      BASIS_SET {basis_set}
      POTENTIAL {potential}
    &END KIND"""

_MAGNETIC = """
      ELEMENT {symbol}
      MAGNETIZATION {moment:g}"""

_SPIN = "\n    UKS\n    MULTIPLICITY {}"

_KPOINTS = """
    &KPOINTS
      SCHEME MONKHORST-PACK {} {} {}
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

_LIST = "\n      &KPOINTS\n      &END KPOINTS"


def _last_run(path: Path) -> str:
    """What the last run in a folder wrote: CP2K appends to an existing output."""
    return path.read_text(errors="replace").rpartition("PROGRAM STARTED AT")[2]
