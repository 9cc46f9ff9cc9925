"""DFT labels with GPAW.

Plane waves with projector-augmented waves. GPAW runs in its own Python, which may differ from the
one of this package: on Debian and Ubuntu ``apt-get install gpaw``, ``command=/usr/bin/python3``.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.data import chemical_symbols
from ase.units import kB

from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.calculators.output import NotConverged, check_structure
from schnetpack_phonon.calculators.reading.levels import mesh_edges
from schnetpack_phonon.structures.atom_properties import magnetic_moments

_SCRIPT = Path(__file__).with_name("_gpaw_script.py")
_TAKEN = {"xc", "mode", "kpts", "occupations", "mixer", "convergence", "spinpol", "txt"}


@dataclass(eq=False)
class Gpaw(ExternalCode):
    """DFT with GPAW's plane waves: energy, forces, stress and the Kohn-Sham band edges.

    A structure with magnetic moments is calculated with two spins.

    Levels are relative to the average electrostatic potential of the cell, of electrons and
    smeared cores: compare them within one crystal.

    Args:
        functional: as GPAW names it.
        datasets: functional of the PAW datasets; GPAW comes with those of LDA, PBE, RPBE and
            revPBE, and finds others in the ``GPAW_SETUP_PATH`` of the environment.
        cutoff: of the wave functions, in eV.
        density: change of the density at convergence, in electrons per valence electron. With the
            1e-4 of GPAW forces in AlP have errors of 6 meV/Ang, with our default 0.3.
        parameters: further parameters of GPAW, as plain values, ``{maxiter: 500}``.
        command: a Python that has GPAW, such as ``mpiexec -n 4 python3``.
        version: such as ``22.8.0``; this and all other options as in :class:`.ExternalCode`.
    """

    functional: str = "PBEsol"
    datasets: str = "PBE"
    kpoints: Sequence[int] = (2, 2, 2)
    cutoff: float = 500.0
    density: float = 1e-5
    electronic_temperature: float = 100.0
    parameters: Mapping[str, Any] = None  # type: ignore[assignment]  # none are {}
    mixing: Sequence[float] = (0.25, 0.05, 0.02)
    n_levels: int = 0
    command: str = "python3"
    time_limit: float = 3600.0
    version: str | None = None

    name = "GPAW"
    install = "Debian, Ubuntu: apt-get install gpaw, and take /usr/bin/python3"
    output = "results.json"
    started = "Initialize ..."
    input_arguments = ("label.py",)
    version_arguments = ("-c", "import gpaw; print('GPAW', gpaw.__version__)")
    version_pattern = r"^GPAW (\d\S*)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parameters = dict(self.parameters or {})
        self.refuse("parameters", self.parameters.keys() & _TAKEN)

    def write_input(self, folder: Path, atoms: Atoms, mixing: float) -> None:
        shutil.copyfile(_SCRIPT, folder / "label.py")
        job = {
            "numbers": atoms.numbers.tolist(),
            "cell": atoms.cell.array.tolist(),
            "positions": atoms.positions.tolist(),
            "width": self.electronic_temperature * kB,
            "mixing": mixing,
            **self.settings,
        }
        if (moments := magnetic_moments(atoms)) is not None:
            job["magnetic_moments"] = moments.tolist()
        (folder / "label.json").write_text(json.dumps(job, indent=1))

    def read_output(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """ASE results from the ``results.json`` of our script."""
        found = self.parsed(folder, _json)
        symbols = [chemical_symbols[number] for number in found["numbers"]]
        cell, positions = np.array(found["cell"]), np.array(found["positions"])
        check_structure(atoms, symbols, cell, positions, self.name)
        if not found["converged"]:
            raise NotConverged("GPAW's density did not converge")
        energies, occupations = np.array(found["energies"]), np.array(found["occupations"])
        at_points = occupations.sum(axis=-1).reshape(found["n_spins"], -1).mean(axis=0)
        n_electrons = np.array(found["weights"]) @ at_points
        if abs(n_electrons - found["n_electrons"]) > 1e-3:
            raise CalculationFailed(
                f"GPAW's output has {n_electrons:g} electrons in its levels; expected "
                f"{found['n_electrons']:g}"
            )
        at_gamma = self.at_gamma(energies, np.array(found["kpoints"]))
        kpoints, weights = np.array(found["kpoints"]), np.array(found["weights"])
        return {
            "energy": found["energy"],
            "forces": np.array(found["forces"]),
            "stress": np.array(found["stress"]),
            **self.levels(n_electrons, energies, kpoints, weights),
            **mesh_edges(found["n_electrons"], energies, occupations, at_gamma),
        }

    def read_version(self, folder: Path) -> str:
        return self.parsed(folder, _json)["version"]

    def reason(self, text: str) -> str:
        """The last error of Python."""
        errors = re.findall(r"^(?:\w+\.)*\w+(?:Error|Exception)\b.*", text, re.MULTILINE)
        return errors[-1] if errors else ""


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
