"""What pw.x wrote: energy, forces, stress and levels, and what is wrong with it.

The numbers come from its XML file, in Hartree units, and the reason why there is none from what it
printed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.units import Bohr, Hartree

from schnetpack_phonon.calculators import mesh_edges
from schnetpack_phonon.external_code import (
    NotConverged,
    check_places,
    check_symbols,
    cut_off,
    no_output,
    printed,
)

NAME = "Quantum ESPRESSO"


_UNITS = "Hartree atomic units"


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
