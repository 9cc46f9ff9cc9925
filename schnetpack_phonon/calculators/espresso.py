"""DFT labels with Quantum ESPRESSO.

Plane waves with the pseudopotentials of the user. Apart from these, ``apt-get install
quantum-espresso`` installs all that is needed on Debian and Ubuntu.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.io.espresso import write_espresso_in
from ase.units import Bohr, Hartree, Rydberg, kB

from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.calculators.output import LOG, check_structure, text_of, xml_root
from schnetpack_phonon.calculators.reading.convergence import check_espresso, check_espresso_log
from schnetpack_phonon.calculators.reading.levels import mesh_edges
from schnetpack_phonon.calculators.reading.settings import espresso_differences
from schnetpack_phonon.common.digests import file_digest
from schnetpack_phonon.common.errors import UnavailableError
from schnetpack_phonon.structures.atom_properties import magnetic_kinds, magnetic_moments

_UNITS = "Hartree atomic units"
_MOST_SPECIES = 10  # compiled into pw.x


@dataclass(eq=False)
class Espresso(ExternalCode):
    """DFT with pw.x of Quantum ESPRESSO: energy, forces, stress and the Kohn-Sham band edges.

    A structure with magnetic moments is calculated with two spins: each element and moment is a
    species with starting_magnetization, the moment over the valence electrons, at most 1.

    Levels are relative to the average electrostatic potential of the cell, of electrons and point
    cores: compare them within one crystal.

    Args:
        pseudopotentials: file of each element, ``{Ag: Ag.upf, ...}``. Their content identifies
            the labels: if an element is added, all labels are computed again, so name the
            pseudopotentials of a whole study.
        pseudo_dir: folder of these files.
        ecutwfc: cutoff of the wave functions, in Ry, that these pseudopotentials need.
        ecutrho: cutoff of the density, in Ry: four times ``ecutwfc`` if all pseudopotentials are
            norm-conserving, 8 to 12 times if one is ultrasoft or PAW.
        functional: ``input_dft`` of pw.x; that of the pseudopotentials by default.
        conv_thr: estimated error of the energy of the cell at convergence, in Ry.
        namelists: further input of pw.x, ``{system: {vdw_corr: grimme-d3}}``.
        version: such as ``6.7MaX``; this and all other options as in :class:`.ExternalCode`.
        work_dir: folder to which ``pseudo_dir`` is relative.
    """

    pseudopotentials: Mapping[str, str]
    pseudo_dir: str
    ecutwfc: float
    ecutrho: float
    functional: str | None = None
    kpoints: Sequence[int] = (2, 2, 2)
    conv_thr: float = 1e-8
    electronic_temperature: float = 100.0
    namelists: Mapping[str, Mapping[str, Any]] = None  # type: ignore[assignment]  # none are {}
    mixing: Sequence[float] = (0.7, 0.4, 0.2)
    n_levels: int = 0
    command: str = "pw.x"
    time_limit: float = 3600.0
    version: str | None = None
    work_dir: str = "."

    name = "Quantum ESPRESSO"
    install = "Debian, Ubuntu: apt-get install quantum-espresso"
    output = "label.xml"
    started = "Program PWSCF"
    input_arguments = ("-in", "label.in")
    version_arguments = ("-in", "/dev/null")
    version_pattern = r"Program PWSCF v\.(\S+)"
    not_in_settings = ExternalCode.not_in_settings | {"pseudo_dir", "work_dir"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ecutrho < (least := 4 * self.ecutwfc):
            raise ValueError(
                f"ecutrho is {self.ecutrho:g} Ry; expected at least four times ecutwfc, {least:g}"
            )
        self.pseudopotentials = dict(self.pseudopotentials)
        self.namelists = {
            name.lower(): {key.lower(): value for key, value in entries.items()}
            for name, entries in (self.namelists or {}).items()
        }
        needed = self._needed_namelists(self.mixing[0])
        for name, entries in self.namelists.items():
            self.refuse(f"namelists.{name}", entries.keys() & needed.get(name, {}).keys())

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"pseudopotentials": self._checksums}

    @cached_property
    def _checksums(self) -> dict[str, str]:
        """Of the pseudopotentials, since many different ones are named Ag.upf."""
        symbols = sorted(self.pseudopotentials)
        return {symbol: file_digest(self._pseudopotential(symbol))[:16] for symbol in symbols}

    def _pseudopotential(self, symbol: str) -> Path:
        if symbol not in self.pseudopotentials:
            raise UnavailableError(
                f"no pseudopotential for {symbol}, only for {', '.join(self.pseudopotentials)}: "
                "name its file in data.calculator.pseudopotentials"
            )
        path = Path(self.work_dir, self.pseudo_dir, self.pseudopotentials[symbol])
        if not path.is_file():
            raise UnavailableError(
                f"there is no pseudopotential {path}: set data.calculator.pseudo_dir and "
                f"data.calculator.pseudopotentials.{symbol}"
            )
        return path

    def check(self, atoms: Atoms) -> None:
        super().check(atoms)
        for symbol in sorted(set(atoms.get_chemical_symbols())):
            self._pseudopotential(symbol)
        if (n_kinds := len(set(magnetic_kinds(atoms)))) > _MOST_SPECIES:
            raise ValueError(
                f"{atoms.get_chemical_formula()} has {n_kinds} different pairs of element and "
                f"magnetic moment; pw.x takes at most {_MOST_SPECIES} species: round the moments"
            )

    def write_input(self, folder: Path, atoms: Atoms, mixing: float) -> None:
        files = {}
        for symbol in sorted(set(atoms.get_chemical_symbols())):
            source = self._pseudopotential(symbol)
            files[symbol] = f"{symbol}{source.suffix}"
            shutil.copyfile(source, folder / files[symbol])
        namelists = self._needed_namelists(mixing)
        for name, entries in self.namelists.items():
            namelists[name] = namelists.get(name, {}) | dict(entries)
        plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        if (moments := magnetic_moments(atoms)) is not None:
            # ASE makes a species of each element and moment, and sets nspin=2.
            valence = {symbol: _valence(self._pseudopotential(symbol)) for symbol in files}
            shares = moments / [valence[symbol] for symbol in atoms.symbols]
            plain.set_initial_magnetic_moments(shares.clip(-1, 1))
        with (folder / "label.in").open("w") as file:
            write_espresso_in(
                file,
                plain,
                namelists,
                files,
                kpts=None if self.kpoints == (1, 1, 1) else self.kpoints,
            )

    def read_output(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        root = self._root(folder)
        if root.get("Units") != _UNITS:
            raise CalculationFailed(
                f"{self.name}'s output is in {root.get('Units')!r}; expected {_UNITS}"
            )
        check_espresso(root)
        bands = self.find(root, "output/band_structure")
        if self.find(bands, "noncolin").text != "false":
            raise self.noncollinear("noncolin=.true.")
        structure = self.find(root, "output/atomic_structure")
        symbols, cell, positions = self._structure(structure)
        check_structure(atoms, symbols, cell, positions, self.name)
        energies, occupations, kpoints = (
            np.array(
                [self.numbers(self.find(point, key)) for point in bands.findall("ks_energies")]
            )
            for key in ("eigenvalues", "occupations", "k_point")
        )
        if self.find(bands, "lsda").text == "true":  # at each k-point both spins
            energies, occupations = (
                np.array(np.split(levels, 2, axis=1)) for levels in (energies, occupations)
            )
        values = {
            key: self.numbers(self.find(root, f"output/{key}"))
            for key in ("total_energy/etot", "forces", "stress")
        }
        n_electrons = self.numbers(self.find(bands, "nelec")).item()
        alat = float(structure.get("alat", "nan")) * Bohr
        fractions = kpoints.reshape(-1, 3) @ cell.T / alat
        weights = [float(point.get("weight", "nan")) for point in bands.iterfind(".//k_point")]
        return {
            "energy": values["total_energy/etot"].item() * Hartree,
            "forces": values["forces"].reshape(-1, 3) * Hartree / Bohr,
            "stress": -values["stress"].reshape(3, 3) * Hartree / Bohr**3,
            **self.levels(n_electrons, energies * Hartree, fractions, np.array(weights)),
            **mesh_edges(
                n_electrons,
                energies * Hartree,
                2 * occupations,
                at_gamma=self.at_gamma(energies * Hartree, kpoints.reshape(-1, 3)),
            ),
        }

    def read_atoms(self, folder: Path) -> Atoms:
        found = self.find(self._root(folder), "output/atomic_structure")
        symbols, cell, positions = self._structure(found)
        return Atoms(symbols, positions, cell=cell, pbc=True)

    def _structure(self, found: ElementTree.Element) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Symbols, cell and positions in Ang."""
        sites = found.findall("atomic_positions/atom")
        # Species of one element have numbers or words: Fe1, Fe_up.
        symbols = [re.split(r"[^A-Za-z]", site.get("name", ""))[0] for site in sites]
        cell = np.array([self.numbers(self.find(found, f"cell/a{n}")) for n in (1, 2, 3)])
        return symbols, cell * Bohr, np.array([self.numbers(site) for site in sites]) * Bohr

    def other_settings(self, folder: Path, atoms: Atoms) -> dict[str, str]:
        system = self.namelists.get("system", {})
        expected = {
            "ecutwfc": self.ecutwfc / 2,
            "ecutrho": self.ecutrho / 2,
            "conv_thr": self.conv_thr / 2,
            "degauss": self.electronic_temperature * kB / Hartree,
            "smearing": "f",
            "occupations": "smearing",
            "lsda": "false" if magnetic_moments(atoms) is None else "true",
            "vdw_corr": system.get("vdw_corr", "none"),
            "k-points, mesh": self.kpoints,
            "k-points, shift": (0, 0, 0),
        }
        expected |= {"functional": self.functional} if self.functional else {}
        return espresso_differences(self._root(folder), expected)

    def read_version(self, folder: Path) -> str:
        version = self.find(self._root(folder), "general_info/creator").get("VERSION")
        if not version:
            raise self.lacks("version")
        return version

    def reason(self, text: str) -> str:
        """The text in the box that pw.x prints before it stops."""
        box = re.search(r"(Error in routine[^%]*)%%%", text)
        return " ".join(box[1].split()) if box else ""

    def _root(self, folder: Path) -> ElementTree.Element:
        """Of the XML file, which is complete only if ``label.log``, if there is one, is, too."""
        text = text_of(folder / LOG)
        check_espresso_log(text)
        root = self.parsed(folder, xml_root)
        if text and "JOB DONE" not in text:
            raise self.incomplete(text)
        return root

    def _needed_namelists(self, mixing: float) -> dict[str, dict[str, Any]]:
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


def _valence(pseudopotential: Path) -> float:
    """Valence electrons by the header of a pseudopotential, of both versions of UPF."""
    pattern = rb"z_valence\s*=\s*[\"']\s*([\d.+\-EDed]+)|^\s*([\d.]+)\s+Z valence"
    found = re.search(pattern, pseudopotential.read_bytes(), re.MULTILINE)
    if found is None:
        raise UnavailableError(
            f"{pseudopotential} does not say how many valence electrons it has, which the "
            "magnetisation needs; expected a UPF file with z_valence"
        )
    return float((found[1] or found[2]).decode().lower().replace("d", "e"))
