"""DFT labels with VASP: its inputs and the calculator that writes them.

VASP and its pseudopotentials need a licence; both are the user's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.io.vasp import write_vasp
from ase.units import GPa, kB

from schnetpack_phonon.calculators.base import mesh_edges
from schnetpack_phonon.calculators.external_code import (
    ExternalCode,
    NotConverged,
    check_places,
    check_symbols,
    cut_off,
    kpoint_mesh,
    no_output,
    printed,
)
from schnetpack_phonon.common.errors import UnavailableError, check_positive

NAME = "VASP"


FUNCTIONALS = {"PBE": "PE", "PBEsol": "PS", "revPBE": "RE"}


# Tags that share work among processors and change no label.
_PARALLEL = {"KPAR", "NCORE", "NPAR", "NSIM", "LPLANE", "LSCALU"}


class Vasp(ExternalCode):
    """DFT with VASP: energy, forces, stress and the Kohn-Sham band edges.

    The gap is the lowest conduction level minus the highest valence level over the k-points of
    the mesh, bands counted by electrons; the one at Gamma, which is in the mesh, is kept beside
    it. VASP writes levels with 4 digits after the point. They refer to the cell's average local
    potential without exchange and correlation: compare them within one crystal. The energy is the
    free energy of the smeared electrons.

    Args:
        version: of the program, as its vasprun.xml names it, such as ``6.4.3``: VASP does not tell
            without a calculation. Outputs of another one are refused; labels that are in a store
            are found on machines without VASP.
        functional: ``PBEsol``, ``PBE`` or ``revPBE``.
        potentials: folder of the pseudopotentials in ``pp_path``; with its release in its name,
            labels of another release are not taken for the same.
        setups: of elements whose pseudopotential is not called after them, ``{Ag: Ag_pv}``; one
            more makes all labels new.
        pp_path: where ``potentials`` is; the environment's ``VASP_PP_PATH`` by default.
        kpoints: mesh around Gamma; ``[1, 1, 1]`` is Gamma alone.
        encut: cutoff of the wave functions, in eV.
        ediff: change of the cell's energy at convergence, in eV.
        electronic_temperature: Fermi smearing in K.
        incar: more tags for the INCAR, ``{IVDW: 12}``. Those that share work among processors
            (``KPAR``, ``NCORE``, ...) do not tell labels apart.
        mixing: VASP's AMIX, tried in turn until the density converges.
        command: the executable; files of one calculation live in a folder of its own.
        time_limit: of one calculation, in seconds.
    """

    name = NAME
    install = "with a licence, from www.vasp.at"

    def __init__(
        self,
        version: str,
        functional: str = "PBEsol",
        potentials: str = "potpaw_PBE",
        setups: Mapping[str, str] | None = None,
        pp_path: str | None = None,
        kpoints: Sequence[int] = (2, 2, 2),
        encut: float = 520.0,
        ediff: float = 1e-6,
        electronic_temperature: float = 100.0,
        incar: Mapping[str, Any] | None = None,
        mixing: Sequence[float] = (0.4, 0.2, 0.1),
        command: str = "vasp_std",
        time_limit: float = 3600.0,
    ):
        super().__init__(command, mixing, time_limit, str(version))
        check_positive(encut=encut, ediff=ediff, electronic_temperature=electronic_temperature)
        if functional not in FUNCTIONALS:
            raise ValueError(
                f"unknown functional {functional!r}; there are {', '.join(FUNCTIONALS)}"
            )
        self.functional = functional
        self.potentials = potentials
        self.setups = dict(setups or {})
        self.pp_path = pp_path
        self.kpoints = kpoint_mesh(kpoints)
        self.encut = float(encut)
        self.ediff = float(ediff)
        self.electronic_temperature = float(electronic_temperature)
        self.incar = {tag.upper(): _plain(value) for tag, value in (incar or {}).items()}
        taken = self.incar.keys() & self._needed_tags(self.mixing[0]).keys()
        if taken:
            raise ValueError(
                f"incar sets {', '.join(sorted(taken))}, which other options set or labels need "
                "as it is"
            )

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "code": self.name,
            "functional": self.functional,
            "potentials": self.potentials,
            "setups": self.setups,
            "kpoints": list(self.kpoints),
            "encut": self.encut,
            "ediff": self.ediff,
            "electronic_temperature": self.electronic_temperature,
            "incar": {tag: self.incar[tag] for tag in sorted(self.incar.keys() - _PARALLEL)},
        }

    def ask_version(self) -> str:
        """The one that is expected, if there is a program; its output is asked then."""
        program = shlex.split(self.command)[0]
        if shutil.which(program) is None:
            raise FileNotFoundError(f"there is no {program}")
        return str(self.version)

    def write_input(self, folder: Path, atoms: Atoms, mixing: float) -> None:
        order = grouped(atoms)
        ordered = Atoms(
            atoms.numbers[order], atoms.positions[order], cell=atoms.cell.array, pbc=True
        )
        write_vasp(folder / "POSCAR", ordered, direct=True)
        with (folder / "POTCAR").open("wb") as potcar:
            for path in self._potcars(ordered):
                potcar.write(path.read_bytes())
        mesh = " ".join(map(str, self.kpoints))
        (folder / "KPOINTS").write_text(f"{mesh}\n0\nGamma\n{mesh}\n0 0 0\n")
        tags = _CHOICES | self.incar | self._needed_tags(mixing)
        lines = [f"{tag} = {_value(value)}\n" for tag, value in tags.items()]
        (folder / "INCAR").write_text("".join(lines))

    def read_output(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        return read_output(folder, atoms)

    def read_version(self, folder: Path) -> str:
        return read_version(folder)

    def _needed_tags(self, mixing: float) -> dict[str, Any]:
        return {
            "GGA": FUNCTIONALS[self.functional],
            "ENCUT": self.encut,
            "EDIFF": self.ediff,
            "ISMEAR": -1,  # Fermi
            "SIGMA": self.electronic_temperature * kB,
            "AMIX": mixing,
            "ISPIN": 1,
            "LNONCOLLINEAR": False,
            "LSORBIT": False,
            "NSW": 0,
            "IBRION": -1,
            "ISIF": 2,  # writes the stress
            "PSTRESS": 0,
            "LWAVE": False,
            "LCHARG": False,
        }

    def _potcars(self, ordered: Atoms) -> Iterator[Path]:
        root = self.pp_path or os.environ.get("VASP_PP_PATH")
        if root is None:
            raise UnavailableError(
                "VASP's pseudopotentials, which come with its licence, are not found: set the "
                "environment's VASP_PP_PATH or data.calculator.pp_path to their folder"
            )
        for symbol in dict.fromkeys(ordered.get_chemical_symbols()):
            path = Path(root, self.potentials, self.setups.get(symbol, symbol), "POTCAR")
            if not path.is_file():
                raise UnavailableError(
                    f"there is no pseudopotential {path}: set data.calculator.potentials, or "
                    f"data.calculator.setups={{{symbol}: ...}} where it has another name"
                )
            yield path


_CHOICES = {"PREC": "Accurate", "ALGO": "Normal", "LREAL": False, "LASPH": True, "NELM": 100}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _value(value: Any) -> str:
    """As the INCAR has it."""
    if isinstance(value, bool):
        return ".TRUE." if value else ".FALSE."
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def grouped(atoms: Atoms) -> np.ndarray:
    """Indices that bring atoms of one element together, as VASP needs them; shape=(n_atoms,)."""
    _, first, element = np.unique(atoms.numbers, return_index=True, return_inverse=True)
    return np.argsort(first[element], kind="stable")


def read_output(folder: Path, atoms: Atoms) -> dict[str, Any]:
    """ASE results of a finished calculation.

    Args:
        folder: holds ``vasprun.xml``; where that is cut off, ``label.log`` may tell why.
        atoms: that were calculated; the output has them in the order of :func:`grouped`.

    Returns:
        energy (eV), forces (eV/Ang), stress (3x3, ASE's sign, eV/Ang^3), vbm, cbm and
        band_gap_gamma (eV), partial_occupation (electrons).

    Raises:
        NotConverged: if the density did not converge.
        OtherStructure: if species, their order, cell or positions are others.
        CalculationFailed: if the output is missing, cut off, aborted or spin-polarised.
    """
    root = _root(folder)
    step = _find(root, "calculation[last()]")
    order = grouped(atoms)
    ordered = atoms[order]
    sites = root.findall("atominfo/array[@name='atoms']/set/rc")
    check_symbols(ordered, [(site.findtext("c") or "").strip() for site in sites], NAME)
    cell = _rows(step, "structure/crystal/varray[@name='basis']")
    scaled = _rows(step, "structure/varray[@name='positions']")
    check_places(ordered, cell, scaled @ cell, NAME)
    for tag, expected in (("ISPIN", "1"), ("LNONCOLLINEAR", "F")):
        if _parameter(root, tag) != expected:
            raise CalculationFailed(
                f"{NAME}'s output is spin-polarised: {tag}={_parameter(root, tag)}; expected "
                f"{expected}"
            )
    if _steps_exhausted(root, step, folder):
        raise NotConverged(f"{NAME}'s density did not converge")

    kpoints = _rows(root, "kpoints/varray[@name='kpointlist']")
    levels = np.array(
        [
            _rows(step, f"eigenvalues/array/set/set/set[@comment='kpoint {number}']", "r")
            for number in range(1, len(kpoints) + 1)
        ]
    )
    at_gamma = np.flatnonzero(np.abs(kpoints).max(axis=1) < 1e-8)
    if not at_gamma.size:
        raise CalculationFailed(f"{NAME}'s output has no levels at Gamma: centre the mesh there")
    forces = np.empty((len(atoms), 3))
    forces[order] = _rows(step, "varray[@name='forces']")
    return {
        "energy": _numbers(_find(step, "energy/i[@name='e_fr_energy']")).item(),
        "forces": forces,
        "stress": -_rows(step, "varray[@name='stress']") / 10 * GPa,  # of the pressure, in kbar
        **mesh_edges(
            float(_parameter(root, "NELECT")),
            energies=levels[:, :, 0],
            occupations=2 * levels[:, :, 1],
            at_gamma=levels[at_gamma[0], :, 0],
        ),
    }


def read_version(folder: Path) -> str:
    """Version of the program that wrote an output."""
    found = (_root(folder).findtext("generator/i[@name='version']") or "").strip()
    if not found:
        raise CalculationFailed(f"{NAME}'s output does not tell its version")
    return found


def _root(folder: Path) -> ElementTree.Element:
    """Of the XML file, or the reason why there is none."""
    log = printed(folder)
    path = folder / "vasprun.xml"
    try:
        return ElementTree.parse(path).getroot()
    except (FileNotFoundError, ElementTree.ParseError) as error:
        message = _message(log)
        if message:
            raise CalculationFailed(f"{NAME} stopped: {message}") from error
        raise (cut_off(NAME) if path.exists() else no_output(NAME, folder)) from error


def _message(log: str) -> str:
    """What VASP wrote into its last box of an error, or the line of one without a box."""
    _, boxed, box = log.rpartition("EEEEEEE")
    if boxed:
        lines = box.partition("---->")[0].splitlines()[1:]
        return " ".join(" ".join(line.strip(" |") for line in lines).split())
    line = re.search(r"^.*(?:\berror\b|BAD NEWS).*$", log, re.MULTILINE | re.IGNORECASE)
    return line[0].strip() if line else ""


def _steps_exhausted(root: ElementTree.Element, step: ElementTree.Element, folder: Path) -> bool:
    """Whether the cycle took all steps that it had; only OUTCAR says that the last converged."""
    if len(step.findall("scstep")) < int(_parameter(root, "NELM")):
        return False
    outcar = folder / "OUTCAR"
    return not (
        outcar.exists() and "because EDIFF is reached" in outcar.read_text(errors="replace")
    )


def _parameter(root: ElementTree.Element, tag: str) -> str:
    return (_find(root, f"parameters//i[@name='{tag}']").text or "").strip()


def _rows(element: ElementTree.Element, path: str, tag: str = "v") -> np.ndarray:
    """Of a table, shape=(n_rows, n_columns)."""
    return np.array([_numbers(row) for row in _find(element, path).findall(tag)])


def _numbers(element: ElementTree.Element) -> np.ndarray:
    try:
        return np.array((element.text or "").split(), dtype=float)
    except ValueError as error:
        raise CalculationFailed(f"{NAME}'s output has a number it cannot hold: {error}") from error


def _find(element: ElementTree.Element, path: str) -> ElementTree.Element:
    found = element.find(path)
    if found is None:
        raise CalculationFailed(f"{NAME}'s output has no {path}")
    return found
