"""DFT labels with Quantum ESPRESSO: its input and the calculator that writes it.

Plane waves with the pseudopotentials of the user. On Debian and Ubuntu ``apt-get install
quantum-espresso`` is all that is needed beside them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.io.espresso import write_espresso_in
from ase.units import Bohr, Hartree, Rydberg, kB

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

NAME = "Quantum ESPRESSO"


_UNITS = "Hartree atomic units"


class Espresso(ExternalCode):
    """DFT with pw.x of Quantum ESPRESSO: energy, forces, stress and the Kohn-Sham band edges.

    The gap is the lowest conduction level minus the highest valence level over the k-points of
    the mesh, bands counted by electrons; the one at Gamma, which is in the mesh, is kept beside
    it. Levels refer to the cell's average electrostatic potential, of electrons and point cores:
    compare them within one crystal. The energy is the free energy of the smeared electrons.

    Args:
        pseudopotentials: file of each element, ``{Ag: Ag.upf, ...}``. What is in them tells labels
            apart, so that one more element makes all labels new: name those of a whole study.
        pseudo_dir: their folder.
        ecutwfc: cutoff of the wave functions, in Ry, that these pseudopotentials need.
        ecutrho: cutoff of the density, in Ry: four times ``ecutwfc`` where all pseudopotentials
            are norm-conserving, 8 to 12 times where one is ultrasoft or PAW.
        functional: QE's ``input_dft``; that of the pseudopotentials by default.
        kpoints: mesh around Gamma; ``[1, 1, 1]`` is Gamma alone.
        conv_thr: estimated error of the cell's energy at convergence, in Ry.
        electronic_temperature: Fermi smearing in K.
        namelists: more of pw.x's input, ``{system: {vdw_corr: grimme-d3}}``.
        mixing: mixing parameters, tried in turn until the density converges.
        command: the executable; files of one calculation live in a folder of its own.
        time_limit: of one calculation, in seconds.
        version: that the labels must come from, such as ``6.7MaX``; the installed one by default.
            Given, labels that are in a store are found on machines without pw.x.
        work_dir: where a relative ``pseudo_dir`` starts.
    """

    name = NAME
    install = "Debian, Ubuntu: apt-get install quantum-espresso"

    def __init__(
        self,
        pseudopotentials: Mapping[str, str],
        pseudo_dir: str,
        ecutwfc: float,
        ecutrho: float,
        functional: str | None = None,
        kpoints: Sequence[int] = (2, 2, 2),
        conv_thr: float = 1e-8,
        electronic_temperature: float = 100.0,
        namelists: Mapping[str, Mapping[str, Any]] | None = None,
        mixing: Sequence[float] = (0.7, 0.4, 0.2),
        command: str = "pw.x",
        time_limit: float = 3600.0,
        version: str | None = None,
        work_dir: str = ".",
    ):
        super().__init__(command, mixing, time_limit, version)
        check_positive(
            ecutwfc=ecutwfc, conv_thr=conv_thr, electronic_temperature=electronic_temperature
        )
        if ecutrho < 4 * ecutwfc:
            raise ValueError(
                f"ecutrho is {ecutrho:g} Ry; expected at least four times ecutwfc, {4 * ecutwfc:g}"
            )
        self.pseudopotentials = dict(pseudopotentials)
        self.pseudo_dir = str(Path(work_dir, pseudo_dir))
        self.ecutwfc = float(ecutwfc)
        self.ecutrho = float(ecutrho)
        self.functional = functional
        self.kpoints = kpoint_mesh(kpoints)
        self.conv_thr = float(conv_thr)
        self.electronic_temperature = float(electronic_temperature)
        self.namelists = {
            name.lower(): {key.lower(): value for key, value in entries.items()}
            for name, entries in (namelists or {}).items()
        }
        for name, entries in self.namelists.items():
            taken = entries.keys() & self._namelists(self.mixing[0]).get(name, {}).keys()
            if taken:
                raise ValueError(
                    f"namelists.{name} sets {', '.join(sorted(taken))}, which other options set or "
                    "labels need as it is"
                )

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "code": self.name,
            "pseudopotentials": self._checksums,
            "ecutwfc": self.ecutwfc,
            "ecutrho": self.ecutrho,
            "functional": self.functional,
            "kpoints": list(self.kpoints),
            "conv_thr": self.conv_thr,
            "electronic_temperature": self.electronic_temperature,
            "namelists": self.namelists,
        }

    @cached_property
    def _checksums(self) -> dict[str, str]:
        """Of the pseudopotentials, as people call many different ones Ag.upf."""
        return {
            symbol: hashlib.sha256(self._pseudopotential(symbol).read_bytes()).hexdigest()[:16]
            for symbol in sorted(self.pseudopotentials)
        }

    def _pseudopotential(self, symbol: str) -> Path:
        if symbol not in self.pseudopotentials:
            raise UnavailableError(
                f"no pseudopotential for {symbol}, only for {', '.join(self.pseudopotentials)}: "
                f"name its file in data.calculator.pseudopotentials"
            )
        path = Path(self.pseudo_dir, self.pseudopotentials[symbol])
        if not path.is_file():
            raise UnavailableError(
                f"there is no pseudopotential {path}: set data.calculator.pseudo_dir and "
                f"data.calculator.pseudopotentials.{symbol}"
            )
        return path

    def ask_version(self) -> str:
        text = self.answer("-in", "/dev/null")
        match = re.search(r"Program PWSCF v\.(\S+)", text)
        if match is None:
            raise ValueError(f"it does not answer as pw.x does: {text!r}")
        return match[1]

    def check(self, atoms: Atoms) -> None:
        super().check(atoms)
        for symbol in sorted(set(atoms.get_chemical_symbols())):
            self._pseudopotential(symbol)

    def arguments(self) -> list[str]:
        return [*super().arguments(), "-in", "label.in"]

    def write_input(self, folder: Path, atoms: Atoms, mixing: float) -> None:
        files = {}
        for symbol in sorted(set(atoms.get_chemical_symbols())):
            source = self._pseudopotential(symbol)
            files[symbol] = f"{symbol}{source.suffix}"
            shutil.copyfile(source, folder / files[symbol])
        namelists = self._namelists(mixing)
        for name, entries in self.namelists.items():
            namelists[name] = namelists.get(name, {}) | entries
        with (folder / "label.in").open("w") as file:
            write_espresso_in(
                file,
                # Without the magnetic moments, which would make it polarised, and constraints.
                Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True),
                namelists,
                files,
                kpts=None if self.kpoints == (1, 1, 1) else self.kpoints,
            )

    def read_output(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        return read_output(folder, atoms)

    def read_version(self, folder: Path) -> str:
        return read_version(folder)

    def _namelists(self, mixing: float) -> dict[str, dict[str, Any]]:
        system = {
            "ecutwfc": self.ecutwfc,
            "ecutrho": self.ecutrho,
            "nspin": 1,
            "noncolin": False,
            "occupations": "smearing",  # adds empty bands
            "smearing": "fermi-dirac",
            "degauss": self.electronic_temperature * kB / Rydberg,
        }
        if self.functional:
            system["input_dft"] = self.functional
        return {
            "control": {
                "calculation": "scf",
                "prefix": "label",
                "outdir": ".",
                "pseudo_dir": ".",
                "disk_io": "minimal",
                "tprnfor": True,
                "tstress": True,
            },
            "system": system,
            "electrons": {
                "conv_thr": self.conv_thr,
                "mixing_beta": mixing,
                "electron_maxstep": 100,
                "diago_full_acc": True,  # the lowest conduction level is a label
            },
        }


def read_output(folder: Path, atoms: Atoms) -> dict[str, Any]:
    """ASE results of a finished calculation.

    Args:
        folder: holds ``label.xml`` and, where there is none, the reason in ``label.log``.
        atoms: that were calculated.

    Returns:
        energy (eV), forces (eV/Ang), stress (3x3, ASE's sign, eV/Ang^3), vbm, cbm and
        band_gap_gamma (eV), partial_occupation (electrons).

    Raises:
        NotConverged: if the density did not converge.
        OtherStructure: if species, their order, cell or positions are others.
        CalculationFailed: if the output is missing, cut off, aborted or spin-polarised.
    """
    root = _root(folder)
    if root.get("Units") != _UNITS:
        raise CalculationFailed(f"{NAME}'s output is in {root.get('Units')!r}; expected {_UNITS}")
    if _text(root, "output/convergence_info/scf_conv/convergence_achieved") != "true":
        raise NotConverged(f"{NAME}'s density did not converge")
    bands = "output/band_structure/"
    for spin in ("lsda", "noncolin"):
        if _text(root, bands + spin) != "false":
            raise CalculationFailed(
                f"{NAME}'s output is spin-polarised ({spin}); expected nspin=1, noncolin=.false."
            )
    structure = "output/atomic_structure/"
    sites = root.findall(structure + "atomic_positions/atom")
    check_symbols(atoms, [site.get("name", "") for site in sites], NAME)
    cell = np.array([_numbers(root, f"{structure}cell/a{axis}") for axis in (1, 2, 3)])
    positions = np.array([site.text.split() for site in sites if site.text], dtype=float)
    check_places(atoms, cell * Bohr, positions * Bohr, NAME)

    points = root.findall(bands + "ks_energies")
    energies = np.array([_numbers(point, "eigenvalues") for point in points]) * Hartree
    distance = [np.linalg.norm(_numbers(point, "k_point")) for point in points]
    if not points or min(distance) > 1e-8:
        raise CalculationFailed(f"{NAME}'s output has no levels at Gamma: leave the mesh unshifted")
    return {
        "energy": float(_text(root, "output/total_energy/etot")) * Hartree,
        "forces": _numbers(root, "output/forces").reshape(-1, 3) * Hartree / Bohr,
        "stress": -_numbers(root, "output/stress").reshape(3, 3) * Hartree / Bohr**3,
        **mesh_edges(
            float(_text(root, bands + "nelec")),
            energies=energies,
            occupations=2 * np.array([_numbers(point, "occupations") for point in points]),
            at_gamma=energies[np.argmin(distance)],
        ),
    }


def read_version(folder: Path) -> str:
    """Version of the program that wrote an output."""
    creator = _root(folder).find("general_info/creator")
    if creator is None or not creator.get("VERSION"):
        raise CalculationFailed(f"{NAME}'s output does not tell its version")
    return creator.get("VERSION", "")


def _root(folder: Path) -> ElementTree.Element:
    """Of the XML file, or the reason why there is none."""
    log = printed(folder)
    if "convergence NOT achieved" in log:
        raise NotConverged(f"{NAME}'s density did not converge")
    abort = re.search(r"(Error in routine[^%]*)%%%", log)
    if abort is not None:
        raise CalculationFailed(f"{NAME} stopped: {' '.join(abort[1].split())}")
    path = folder / "label.xml"
    if not path.exists():
        raise cut_off(NAME) if "Program PWSCF" in log else no_output(NAME, folder)
    if log and "JOB DONE" not in log:
        raise cut_off(NAME)
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise cut_off(NAME) from error


def _text(element: ElementTree.Element, path: str) -> str:
    found = element.findtext(path)
    if found is None:
        raise CalculationFailed(f"{NAME}'s output has no {path.removeprefix('output/')}")
    return found


def _numbers(element: ElementTree.Element, path: str) -> np.ndarray:
    return np.array(_text(element, path).split(), dtype=float)
