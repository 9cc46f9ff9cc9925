"""What VASP wrote: energy, forces, stress and levels, and what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.units import GPa

from schnetpack_phonon.calculators import mesh_edges
from schnetpack_phonon.external_code import (
    NotConverged,
    check_places,
    check_symbols,
    cut_off,
    no_output,
    printed,
)

NAME = "VASP"


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
