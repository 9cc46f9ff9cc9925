"""What CP2K wrote: energy, forces, stress and levels, and what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.units import Bohr, GPa, Hartree

from schnetpack_phonon.calculators import mesh_edges
from schnetpack_phonon.external_code import (
    NotConverged,
    check_places,
    check_symbols,
    cut_off,
    no_output,
)


def read_output(folder: Path, atoms: Atoms) -> dict[str, Any]:
    """ASE results of a finished calculation.

    Args:
        folder: holds ``label.out`` and, for a mesh of k-points, the levels at Gamma in ``bands``.
        atoms: that were calculated.

    Returns:
        energy (eV), forces (eV/Ang), stress (3x3, ASE's sign, eV/Ang^3), vbm, cbm and
        band_gap_gamma (eV), partial_occupation (electrons).

    Raises:
        OtherStructure: if species, their order, cell or positions are others.
        NotConverged: if the density did not converge.
        CalculationFailed: if the output is missing, cut off or aborted.
    """
    text = _text(folder)
    structure = _structure(text)
    if structure is not None:
        symbols, positions, cell = structure
        check_symbols(atoms, symbols, "CP2K")
        check_places(atoms, cell, positions, "CP2K")
    if "SCF run NOT converged" in text:
        raise NotConverged("CP2K's density did not converge")
    if "PROGRAM ENDED AT" not in text:
        raise _abort(text)
    if structure is None:
        raise CalculationFailed("CP2K's output does not repeat its input: set ECHO_INPUT there")
    energy = re.search(r"ENERGY\| Total FORCE_EVAL.*?(-?\d+\.\d+)\s*$", text, re.MULTILINE)
    if energy is None:
        raise CalculationFailed("CP2K's output has no energy")
    mesh = _levels(text)
    at_gamma = mesh[0][0]
    if (folder / "bands").exists():
        _, _, bands = (folder / "bands").read_text().rpartition("# Set")
        at_gamma = np.loadtxt(bands.splitlines()[1:], usecols=1, ndmin=1)
    elif "FOR K POINT" in text:
        raise CalculationFailed("CP2K wrote no levels at Gamma beside those of the mesh")
    return {
        "energy": float(energy[1]) * Hartree,
        "forces": _forces(text, atoms) * Hartree / Bohr,
        "stress": -_stress(text) * GPa,
        **mesh_edges(
            _n_electrons(text),
            energies=np.array([energies for energies, _ in mesh]),
            occupations=np.array([occupations for _, occupations in mesh]),
            at_gamma=at_gamma,
        ),
    }


def read_version(folder: Path) -> str:
    """Version of the program that wrote an output."""
    found = re.search(r"CP2K\| version string:\s+CP2K version (\S+)", _text(folder))
    if found is None:
        raise CalculationFailed("CP2K's output does not tell its version")
    return found[1]


def _text(folder: Path) -> str:
    """What the last run in a folder wrote: CP2K appends to the outputs that it finds."""
    path = folder / "label.out"
    if not path.exists():
        raise no_output("CP2K", folder)
    _, _, text = path.read_text(errors="replace").rpartition("PROGRAM STARTED AT")
    return text


def _structure(text: str) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Symbols, positions and cell in Ang of the input, which the output repeats, if it does."""
    number = r" +(-?\d\S*)"
    cell = re.findall(rf"^ +[ABC]{3 * number}$", text, re.MULTILINE)
    section = re.search(r"&COORD\n(.*?)&END COORD", text, re.DOTALL)
    if len(cell) != 3 or section is None:
        return None
    sites = re.findall(rf"^ *([A-Z][a-z]?){3 * number}$", section[1], re.MULTILINE)
    positions = np.array([values for _, *values in sites], dtype=float).reshape(-1, 3)
    return [symbol for symbol, *_ in sites], positions, np.array(cell, dtype=float)


def _levels(text: str) -> list[np.ndarray]:
    """Energies in eV and occupations of each k-point, each shape=(2, n_bands)."""
    if re.search(r"^ MO\| (ALPHA|BETA)", text, re.MULTILINE):
        raise CalculationFailed("CP2K's output is spin-polarised; expected no UKS")
    blocks = text.split("EIGENVALUES AND OCCUPATION NUMBERS")[1:]
    row = re.compile(r"^ MO\|\s+\d+\s+\S+\s+(-?\d+\.\d+)\s+(\d+\.\d+)\s*$", re.MULTILINE)
    levels = [np.array(row.findall(block), dtype=float).T for block in blocks]
    if not levels or any(found.size == 0 for found in levels):
        raise CalculationFailed("CP2K's output has no orbital energies")
    return levels


def _n_electrons(text: str) -> int:
    found = re.search(r"Number of electrons:\s+(\d+)", text)
    if found is None:
        raise CalculationFailed("CP2K's output does not tell the number of electrons")
    return int(found[1])


def _forces(text: str, atoms: Atoms) -> np.ndarray:
    """Hartree/Bohr, shape=(n_atoms, 3)."""
    _, _, block = text.rpartition("ATOMIC FORCES in [a.u.]")
    row = re.compile(r"^\s+\d+\s+\d+\s+([A-Z][a-z]?)\s+(\S+)\s+(\S+)\s+(\S+)\s*$", re.MULTILINE)
    found = row.findall(block.partition("SUM OF ATOMIC FORCES")[0])
    check_symbols(atoms, [symbol for symbol, *_ in found], "CP2K")
    return np.array([values for _, *values in found], dtype=float)


def _stress(text: str) -> np.ndarray:
    """CP2K's stress (pressure positive) in GPa, shape=(3, 3)."""
    row = re.compile(r"^ STRESS\|\s+[xyz]((?:\s+-?\d\.\d+E[+-]\d+){3})\s*$", re.MULTILINE)
    found = row.findall(text)
    if len(found) != 3:
        raise CalculationFailed("CP2K's output has no stress tensor")
    return np.array([line.split() for line in found], dtype=float)


def _abort(text: str) -> CalculationFailed:
    """What CP2K wrote into its box before it stopped."""
    _, found, box = text.rpartition("[ABORT]")
    if not found:
        return cut_off("CP2K")
    lines = [line.strip(" *|/\\_") for line in box.splitlines()[1:7]]
    return CalculationFailed(
        "CP2K stopped: " + " ".join(line for line in lines if line and line != "O")
    )
