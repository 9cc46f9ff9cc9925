"""DFT labels with VASP, which needs a licence, as do its pseudopotentials."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.io.vasp import write_vasp
from ase.units import GPa, kB

from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.calculators.output import check_structure, text_of, xml_root
from schnetpack_phonon.calculators.reading.convergence import check_vasp
from schnetpack_phonon.calculators.reading.levels import mesh_edges
from schnetpack_phonon.calculators.reading.settings import vasp_differences
from schnetpack_phonon.common.errors import UnavailableError, check_choice
from schnetpack_phonon.structures.atom_properties import magnetic_moments

FUNCTIONALS = {"PBE": "PE", "PBEsol": "PS", "revPBE": "RE"}
# Tags that distribute the work among processors and change no label.
_PARALLEL = {"KPAR", "NCORE", "NPAR", "NSIM", "LPLANE", "LSCALU"}
# Tags that the user may change.
_CHOICES = {"PREC": "Accurate", "ALGO": "Normal", "LREAL": False, "LASPH": True, "NELM": 100}

_LEVELS = "eigenvalues/array/set/set[@comment='spin {spin}']/set[@comment='kpoint {kpoint}']"


@dataclass(eq=False)
class Vasp(ExternalCode):
    """DFT with VASP: energy, forces, stress and the Kohn-Sham band edges.

    Magnetic moments of the structure are written as MAGMOM, with ISPIN=2.

    VASP writes levels with 4 decimals. They are relative to the average local potential of the
    cell without exchange and correlation: compare them within one crystal.

    Args:
        version: as vasprun.xml names it, such as ``6.4.3``, since VASP does not print it without a
            calculation. Outputs of another version are refused; labels that are already in a
            store are found on machines without VASP.
        functional: ``PBEsol``, ``PBE`` or ``revPBE``.
        potentials: folder of the pseudopotentials in ``pp_path``. Put their release in its name,
            so that labels from different releases are told apart.
        setups: pseudopotentials that are not named like their element, ``{Ag: Ag_pv}``; after a
            change all labels are computed again.
        pp_path: folder that contains ``potentials``; by default ``VASP_PP_PATH`` of the
            environment.
        encut: cutoff of the wave functions, in eV.
        ediff: change of the energy of the cell at convergence, in eV.
        incar: further tags of the INCAR, ``{IVDW: 12}``. Those that distribute the work among
            processors (``KPAR``, ``NCORE``, ...) do not identify labels.
        mixing: AMIX of VASP; this and all other options as in :class:`.ExternalCode`.
    """

    version: str
    functional: str = "PBEsol"
    potentials: str = "potpaw_PBE"
    setups: Mapping[str, str] = None  # type: ignore[assignment]  # none are {}
    pp_path: str | None = None
    kpoints: Sequence[int] = (2, 2, 2)
    encut: float = 520.0
    ediff: float = 1e-6
    electronic_temperature: float = 100.0
    incar: Mapping[str, Any] = None  # type: ignore[assignment]  # none are {}
    mixing: Sequence[float] = (0.4, 0.2, 0.1)
    n_levels: int = 0
    command: str = "vasp_std"
    time_limit: float = 3600.0

    name = "VASP"
    install = "with a licence, from www.vasp.at"
    output = "vasprun.xml"
    not_in_settings = ExternalCode.not_in_settings | {"pp_path"}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.version = str(self.version)
        check_choice(FUNCTIONALS, functional=self.functional)
        self.setups = dict(self.setups or {})
        self.incar = {tag.upper(): _plain(value) for tag, value in (self.incar or {}).items()}
        taken = {*self._needed_tags(self.mixing[0]), "MAGMOM"}
        self.refuse("incar", self.incar.keys() & taken)

    @property
    def settings(self) -> dict[str, Any]:
        tags = sorted(self.incar.keys() - _PARALLEL)
        return super().settings | {"incar": {tag: self.incar[tag] for tag in tags}}

    def ask_version(self) -> str:
        """The expected version, if there is a program; its output is checked later."""
        program = shlex.split(self.command)[0]
        if shutil.which(program) is None:
            raise FileNotFoundError(f"there is no {program}")
        return self.version

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
        tags = self._tags(mixing)
        if (moments := magnetic_moments(atoms)) is not None:
            runs = [(moment, len(list(run))) for moment, run in groupby(moments[order])]
            tags |= {"ISPIN": 2, "MAGMOM": [f"{n}*{moment:g}" for moment, n in runs]}
        lines = [f"{tag} = {_value(value)}\n" for tag, value in tags.items()]
        (folder / "INCAR").write_text("".join(lines))

    def read_output(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """ASE results from ``vasprun.xml``, whose atoms are in the order of :func:`grouped`."""
        root = self.parsed(folder, xml_root)
        step = self.find(root, "calculation[last()]")
        order = grouped(atoms)
        sites = root.findall("atominfo/array[@name='atoms']/set/rc")
        symbols = [(site.findtext("c") or "").strip() for site in sites]
        cell = self._rows(step, "structure/crystal/varray[@name='basis']")
        positions = self._rows(step, "structure/varray[@name='positions']") @ cell
        check_structure(atoms[order], symbols, cell, positions, self.name)
        if self._parameter(root, "LNONCOLLINEAR") != "F":
            raise self.noncollinear("LNONCOLLINEAR=T")
        check_vasp(root, text_of(folder / "OUTCAR"))
        kpoints = self._rows(root, "kpoints/varray[@name='kpointlist']")
        n_spins = int(self._parameter(root, "ISPIN"))
        levels = np.array(
            [
                [
                    self._rows(step, _LEVELS.format(spin=spin, kpoint=kpoint), "r")
                    for kpoint in range(1, len(kpoints) + 1)
                ]
                for spin in range(1, n_spins + 1)
            ]
        )
        if n_spins == 1:
            levels = levels[0]
        forces = np.empty((len(atoms), 3))
        forces[order] = self._rows(step, "varray[@name='forces']")
        pressure = self._rows(step, "varray[@name='stress']") / 10  # VASP writes kbar
        n_electrons = float(self._parameter(root, "NELECT"))
        weights = self._rows(root, "kpoints/varray[@name='weights']")[:, 0]
        return {
            "energy": self.numbers(self.find(step, "energy/i[@name='e_fr_energy']")).item(),
            "forces": forces,
            "stress": -pressure * GPa,
            **self.levels(n_electrons, levels[..., 0], kpoints, weights),
            **mesh_edges(
                n_electrons,
                energies=levels[..., 0],
                occupations=2 * levels[..., 1],
                at_gamma=self.at_gamma(levels[..., 0], kpoints),
            ),
        }

    def other_settings(self, folder: Path, atoms: Atoms) -> dict[str, str]:
        tags = {tag: x for tag, x in self._tags(self.mixing[0]).items() if tag not in _PARALLEL}
        if (moments := magnetic_moments(atoms)) is not None:
            tags |= {"ISPIN": 2, "MAGMOM": moments[grouped(atoms)].tolist()}
        return vasp_differences(self.parsed(folder, xml_root), tags, tuple(self.kpoints))

    def read_version(self, folder: Path) -> str:
        version = self.find(self.parsed(folder, xml_root), "generator/i[@name='version']")
        return (version.text or "").strip()

    def reason(self, text: str) -> str:
        """The text in the last error box of VASP, or the line of an error without a box."""
        _, boxed, box = text.rpartition("EEEEEEE")
        if boxed:
            lines = box.partition("---->")[0].splitlines()[1:]
            return " ".join(" ".join(line.strip(" |") for line in lines).split())
        line = re.search(r"^.*(?:\berror\b|BAD NEWS).*$", text, re.MULTILINE | re.IGNORECASE)
        return line[0].strip() if line else ""

    def _tags(self, mixing: float) -> dict[str, Any]:
        return {**_CHOICES, **self.incar, **self._needed_tags(mixing)}

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
                "the pseudopotentials of VASP, which come with its licence, are not found: set "
                "VASP_PP_PATH in the environment or data.calculator.pp_path to their folder"
            )
        for symbol in dict.fromkeys(ordered.get_chemical_symbols()):
            path = Path(root, self.potentials, self.setups.get(symbol, symbol), "POTCAR")
            if not path.is_file():
                raise UnavailableError(
                    f"there is no pseudopotential {path}: set data.calculator.potentials, or "
                    f"data.calculator.setups={{{symbol}: ...}} if it has another name"
                )
            yield path

    def _parameter(self, root: ElementTree.Element, tag: str) -> str:
        return (self.find(root, f"parameters//i[@name='{tag}']").text or "").strip()

    def _rows(self, element: ElementTree.Element, path: str, tag: str = "v") -> np.ndarray:
        """A table, shape=(n_rows, n_columns)."""
        return np.array([self.numbers(row) for row in self.find(element, path).findall(tag)])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _value(value: Any) -> str:
    """As in the INCAR."""
    if isinstance(value, bool):
        return ".TRUE." if value else ".FALSE."
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def grouped(atoms: Atoms) -> np.ndarray:
    """Order in which atoms of the same element are adjacent, as VASP needs; shape=(n_atoms,)."""
    _, first, element = np.unique(atoms.numbers, return_index=True, return_inverse=True)
    return np.argsort(first[element], kind="stable")
