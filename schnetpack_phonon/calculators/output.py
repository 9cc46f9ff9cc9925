"""Reading the output of a program, or finding out why it cannot be used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed

T = TypeVar("T")
LOG = "label.log"
# Larger than the rounding error of any output, smaller than the displacements of snapshots.
SAME_PLACE = 1e-3  # Ang


class NotConverged(CalculationFailed):
    """The self-consistent cycle ended without convergence."""


class OutOfTime(CalculationFailed):
    """The run was ended before its density converged; it may be run again as it is."""


class OtherStructure(CalculationFailed):
    """The output belongs to other atoms than those asked for."""


class OutputReader(ABC):
    """Base of the calculators that read the output of a program from a folder.

    What the program printed is in ``label.log`` in that folder, if it is known.
    """

    name: ClassVar[str]  # of the program
    output: ClassVar[str]  # name of its output file
    started: ClassVar[str | None] = None  # what it prints when it starts
    needs_gamma = True  # False where labels may lack the gap at Gamma

    @abstractmethod
    def read_output(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """ASE results of a finished calculation.

        Args:
            folder: contains the output and, if it is known, what the program printed.
            atoms: the structure that was calculated.

        Returns:
            energy (eV), forces (eV/Ang), stress (3x3, ASE's sign, eV/Ang^3), vbm, cbm and
            band_gap_gamma (eV), partial_occupation (electrons); band_gap_spin (eV, shape=(2,)) if
            the spins differ.

        Raises:
            NotConverged: if the density did not converge.
            OutOfTime: if the run was ended before.
            OtherStructure: if elements, their order, cell or positions are different.
            CalculationFailed: if the output is missing, incomplete or non-collinear.
        """

    def read_atoms(self, folder: Path) -> Atoms:
        """The structure in an output.

        Raises:
            CalculationFailed: if it is not there, or not that of the last forces.
        """
        raise NotImplementedError(f"structures of {self.name} are read by ASE")

    def other_settings(self, folder: Path, atoms: Atoms) -> dict[str, str]:
        """Sentences about settings that the output names and that are not ours, by name."""
        return {}

    @abstractmethod
    def read_version(self, folder: Path) -> str:
        """Version of the program that wrote an output.

        Raises:
            CalculationFailed: if the output does not contain it.
        """

    @abstractmethod
    def reason(self, text: str) -> str:
        """Why the program stopped, if ``text`` (what it printed) says so; else empty."""

    def parsed(self, folder: Path, parse: Callable[[Path], T]) -> T:
        """The output file; if there is none, the error says why.

        Args:
            folder: of the calculation.
            parse: raises FileNotFoundError, ValueError or ElementTree.ParseError.
        """
        path, text = folder / self.output, text_of(folder / LOG)
        try:
            return parse(path)
        except (FileNotFoundError, ValueError, ElementTree.ParseError) as error:
            started = self.started is not None and self.started in text
            if started or path.exists() or self.reason(text):
                raise self.incomplete(text) from error
            message = f"{self.name} wrote no output: {last_line(text)}"
            raise CalculationFailed(message.removesuffix(": ")) from error

    def incomplete(self, text: str) -> CalculationFailed:
        """The error of an output without its end, with the reason that the program printed."""
        if reason := self.reason(text):
            return CalculationFailed(f"{self.name} stopped: {reason}")
        return CalculationFailed(
            f"{self.name}'s output is cut off: the calculation was killed or the disk is full"
        )

    def lacks(self, what: str) -> CalculationFailed:
        """The error of an output without a certain part."""
        return CalculationFailed(f"{self.name}'s output has no {what}")

    def noncollinear(self, found: str) -> CalculationFailed:
        """The error of an output whose bands hold one electron each, of no spin."""
        return CalculationFailed(
            f"{self.name}'s output is non-collinear ({found}): spin-orbit coupling and "
            "non-collinear magnetism are not supported"
        )

    def find(self, element: ElementTree.Element, path: str) -> ElementTree.Element:
        """What is at a path in XML."""
        found = element.find(path)
        if found is None:
            raise self.lacks(path)
        return found

    def numbers(self, element: ElementTree.Element) -> np.ndarray:
        """Numbers in the text of an XML element, shape=(n,)."""
        try:
            return np.array((element.text or "").split(), dtype=float)
        except ValueError as error:
            raise CalculationFailed(f"{self.name}'s output has a wrong number: {error}") from error

    def at_gamma(self, energies: np.ndarray, kpoints: np.ndarray) -> np.ndarray | None:
        """Levels at Gamma, shape=(..., n_bands); None if Gamma is not needed and not there.

        Args:
            energies: shape=(..., n_kpoints, n_bands).
            kpoints: shape=(n_kpoints, 3).

        Raises:
            CalculationFailed: if Gamma is needed, or there are no k-points.
        """
        found = np.flatnonzero(np.abs(kpoints).max(axis=1) < 1e-8)
        if found.size:
            return energies[..., int(found[0]), :]
        if self.needs_gamma or not len(kpoints):
            raise self.lacks("levels at Gamma: the mesh must be centred there")
        return None


def check_symbols(atoms: Atoms, symbols: Sequence[str], name: str) -> None:
    """Raises OtherStructure unless the output ``name`` has the same elements in the same order."""
    if list(symbols) != atoms.get_chemical_symbols():
        raise OtherStructure(
            f"{name}'s output has {len(symbols)} atoms ({''.join(symbols[:5])}...); "
            f"expected {atoms.get_chemical_formula(mode='reduce')} in that order"
        )


def check_structure(
    atoms: Atoms, symbols: Sequence[str], cell: np.ndarray, positions: np.ndarray, name: str
) -> None:
    """Raises OtherStructure unless an output has the same elements, cell and positions.

    Args:
        atoms: the structure that was asked for.
        symbols: elements in the output.
        cell: its cell vectors in Ang, shape=(3, 3).
        positions: its positions in Ang, up to lattice vectors, shape=(n_atoms, 3).
        name: of the code or file, for the message.
    """
    check_symbols(atoms, symbols, name)
    deviation = np.abs(cell - atoms.cell.array).max()
    if not deviation < SAME_PLACE:
        raise OtherStructure(
            f"{name}'s output has another cell, different by {deviation:.3g} Ang: does it belong "
            "to another structure, or is it in another unit?"
        )
    shift = atoms.cell.scaled_positions(positions - atoms.positions)
    distance = np.linalg.norm((shift - shift.round()) @ atoms.cell.array, axis=1)
    atom = int(distance.argmax())
    if not distance[atom] < SAME_PLACE:
        raise OtherStructure(
            f"{name}'s output has atom {atom} ({atoms[atom].symbol}) at another position, "
            f"{distance[atom]:.3g} Ang away: does it belong to another structure, or are the "
            "atoms in another order?"
        )


def text_of(path: Path) -> str:
    """Content of a text file; empty if there is none."""
    return path.read_text(errors="replace") if path.exists() else ""


def xml_root(path: Path) -> ElementTree.Element:
    """The root of an XML file."""
    return ElementTree.parse(path).getroot()


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
