"""DFT labels with GPAW: its input and the calculator that writes it.

Plane waves with projector-augmented waves. GPAW runs in a Python of its own, which need not be
ours: on Debian and Ubuntu ``apt-get install gpaw`` and ``command=/usr/bin/python3``.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.data import chemical_symbols
from ase.units import kB

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
from schnetpack_phonon.common.errors import check_positive

NAME = "GPAW"


_SCRIPT = Path(__file__).with_name("_gpaw_script.py")


class Gpaw(ExternalCode):
    """DFT with GPAW's plane waves: energy, forces, stress and the Kohn-Sham band edges.

    The gap is the lowest conduction level minus the highest valence level over the k-points of
    the mesh, bands counted by electrons; the one at Gamma, which is in the mesh, is kept beside
    it. Levels refer to the cell's average electrostatic potential, of electrons and smeared cores:
    compare them within one crystal. The energy is the free energy of the smeared electrons.

    Args:
        functional: as GPAW names it.
        datasets: functional of the PAW datasets; GPAW comes with those of LDA, PBE, RPBE and
            revPBE, and finds others that were made in the environment's ``GPAW_SETUP_PATH``.
        kpoints: mesh around Gamma; ``[1, 1, 1]`` is Gamma alone.
        cutoff: of the wave functions, in eV.
        density: its change at convergence, in electrons per valence electron. GPAW's own 1e-4
            leaves 6 meV/Ang in the forces of AlP, this 0.3.
        electronic_temperature: Fermi smearing in K.
        parameters: more of GPAW's, as plain values, ``{maxiter: 500}``.
        mixing: mixing parameters, tried in turn until the density converges.
        command: a Python that has GPAW, such as ``mpiexec -n 4 python3``; files of one calculation
            live in a folder of its own.
        time_limit: of one calculation, in seconds.
        version: that the labels must come from, such as ``22.8.0``; the installed one by default.
            Given, labels that are in a store are found on machines without GPAW.
    """

    name = NAME
    install = "Debian, Ubuntu: apt-get install gpaw, and take /usr/bin/python3"

    def __init__(
        self,
        functional: str = "PBEsol",
        datasets: str = "PBE",
        kpoints: Sequence[int] = (2, 2, 2),
        cutoff: float = 500.0,
        density: float = 1e-5,
        electronic_temperature: float = 100.0,
        parameters: Mapping[str, Any] | None = None,
        mixing: Sequence[float] = (0.25, 0.05, 0.02),
        command: str = "python3",
        time_limit: float = 3600.0,
        version: str | None = None,
    ):
        super().__init__(command, mixing, time_limit, version)
        check_positive(
            cutoff=cutoff, density=density, electronic_temperature=electronic_temperature
        )
        self.functional = functional
        self.datasets = datasets
        self.kpoints = kpoint_mesh(kpoints)
        self.cutoff = float(cutoff)
        self.density = float(density)
        self.electronic_temperature = float(electronic_temperature)
        self.parameters = dict(parameters or {})
        taken = self.parameters.keys() & _TAKEN
        if taken:
            raise ValueError(
                f"parameters sets {', '.join(sorted(taken))}, which other options set or labels "
                "need as it is"
            )

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "code": self.name,
            "functional": self.functional,
            "datasets": self.datasets,
            "kpoints": list(self.kpoints),
            "cutoff": self.cutoff,
            "density": self.density,
            "electronic_temperature": self.electronic_temperature,
            "parameters": self.parameters,
        }

    def ask_version(self) -> str:
        text = self.answer("-c", "import gpaw; print('GPAW', gpaw.__version__)")
        match = re.search(r"^GPAW (\d\S*)", text, re.MULTILINE)
        if match is None:
            said = text.strip().splitlines() or ["nothing"]
            raise ValueError(f"it does not answer as a Python with GPAW does: {said[-1]}")
        return match[1]

    def arguments(self) -> list[str]:
        return [*super().arguments(), "label.py"]

    def write_input(self, folder: Path, atoms: Atoms, mixing: float) -> None:
        shutil.copyfile(_SCRIPT, folder / "label.py")
        job = {
            "numbers": atoms.numbers.tolist(),
            "cell": atoms.cell.array.tolist(),
            "positions": atoms.positions.tolist(),
            "functional": self.functional,
            "datasets": self.datasets,
            "kpoints": self.kpoints,
            "cutoff": self.cutoff,
            "density": self.density,
            "width": self.electronic_temperature * kB,
            "mixing": mixing,
            "parameters": self.parameters,
        }
        (folder / "label.json").write_text(json.dumps(job, indent=1))

    def read_output(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        return read_output(folder, atoms)

    def read_version(self, folder: Path) -> str:
        return read_version(folder)


_TAKEN = {"xc", "mode", "kpts", "occupations", "mixer", "convergence", "spinpol", "txt"}


def read_output(folder: Path, atoms: Atoms) -> dict[str, Any]:
    """ASE results of a finished calculation.

    Args:
        folder: holds ``results.json``; where there is none, ``label.log`` may tell why.
        atoms: that were calculated.

    Returns:
        energy (eV), forces (eV/Ang), stress (3x3, ASE's sign, eV/Ang^3), vbm, cbm and
        band_gap_gamma (eV), partial_occupation (electrons).

    Raises:
        NotConverged: if the density did not converge.
        OtherStructure: if species, their order, cell or positions are others.
        CalculationFailed: if the output is missing, cut off, aborted or spin-polarised.
    """
    found = _results(folder)
    check_symbols(atoms, [chemical_symbols[number] for number in found["numbers"]], NAME)
    check_places(atoms, np.array(found["cell"]), np.array(found["positions"]), NAME)
    if not found["converged"]:
        raise NotConverged(f"{NAME}'s density did not converge")
    if found["n_spins"] != 1:
        raise CalculationFailed(f"{NAME}'s output is spin-polarised; expected spinpol=False")
    energies, occupations = np.array(found["energies"]), np.array(found["occupations"])
    n_electrons = np.array(found["weights"]) @ occupations.sum(axis=1)
    if abs(n_electrons - found["n_electrons"]) > 1e-3:
        raise CalculationFailed(
            f"{NAME}'s output has {n_electrons:g} electrons in its levels; expected "
            f"{found['n_electrons']:g}"
        )
    at_gamma = np.flatnonzero(np.abs(found["kpoints"]).max(axis=1) < 1e-8)
    return {
        "energy": found["energy"],
        "forces": np.array(found["forces"]),
        "stress": np.array(found["stress"]),
        **mesh_edges(found["n_electrons"], energies, occupations, energies[at_gamma[0]]),
    }


def read_version(folder: Path) -> str:
    """Version of the program that wrote an output."""
    return _results(folder)["version"]


def _results(folder: Path) -> dict[str, Any]:
    """Of the script, or the reason why there are none."""
    log = printed(folder)
    try:
        return json.loads((folder / "results.json").read_text())
    except FileNotFoundError as missing:
        errors = re.findall(r"^(?:\w+\.)*\w+(?:Error|Exception)\b.*", log, re.MULTILINE)
        if errors:
            raise CalculationFailed(f"{NAME} stopped: {errors[-1]}") from missing
        started = "Initialize ..." in log
        raise (cut_off(NAME) if started else no_output(NAME, folder)) from missing
    except ValueError as broken:
        raise cut_off(NAME) from broken
