"""What GPAW's script left: energy, forces, stress and levels, and what is wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.data import chemical_symbols

from schnetpack_phonon.calculators import mesh_edges
from schnetpack_phonon.external_code import (
    NotConverged,
    check_places,
    check_symbols,
    cut_off,
    no_output,
    printed,
)

NAME = "GPAW"


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
