"""Programs that read an input in a folder and leave an output there: how they are run.

What a program prints goes to ``label.log`` in that folder.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator

from schnetpack_phonon.calculators.base import (
    EDGE_LABELS,
    FORCE_LABELS,
    as_ase_calculator,
    labels_from_results,
)
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import UnavailableError, check_positive
from schnetpack_phonon.common.properties import Labels

log = logging.getLogger(__name__)


LOG = "label.log"


# The program ends with the worker that waits for it, even where that is killed (Linux).
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


# Above the last digit of any output, below what tells displaced structures apart.
_SAME_PLACE = 1e-3  # Ang


class NotConverged(CalculationFailed):
    """The self-consistent cycle ended without convergence."""


class OtherStructure(CalculationFailed):
    """The output is not of the atoms that were asked for."""


class ExternalCode(ABC):
    """Base of the calculators that run a program, each structure in a folder of its own.

    Args:
        command: the executable, with what stands before and behind it on the command line.
        mixing: mixing parameters of the density, tried in turn until it converges.
        time_limit: of one calculation, in seconds.
        version: that the labels must come from; the installed one by default. Given, labels that
            are in a store are found on machines without the program.
    """

    name: ClassVar[str]
    """Of the program."""
    install: ClassVar[str]
    """How one gets it, for error messages."""
    properties: tuple[str, ...] = (
        *FORCE_LABELS,
        *EDGE_LABELS,
        properties.band_gap_gamma,
        properties.partial_occupation,
    )

    def __init__(
        self, command: str, mixing: Sequence[float], time_limit: float, version: str | None
    ):
        if not mixing or not all(0 < x <= 1 for x in mixing):
            raise ValueError(f"mixing is {list(mixing)}; expected parameters between 0 and 1")
        check_positive(time_limit=time_limit)
        self.command = command
        self.mixing = tuple(float(x) for x in mixing)
        self.time_limit = float(time_limit)
        self.version = version

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that changes a label, as plain values."""

    @abstractmethod
    def write_input(self, folder: Path, atoms: Atoms, mixing: float) -> None:
        """Writes all files that the program needs into a folder."""

    @abstractmethod
    def read_output(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """ASE results (energy, forces, stress, vbm, cbm and more) of a finished calculation.

        Raises:
            NotConverged: if the density did not converge.
            OtherStructure: if the output is of other atoms, see :func:`check_places`.
            CalculationFailed: if it is missing, cut off or aborted.
        """

    @abstractmethod
    def read_version(self, folder: Path) -> str:
        """Version of the program that wrote an output.

        Raises:
            CalculationFailed: if the output does not tell.
        """

    @abstractmethod
    def ask_version(self) -> str:
        """Version of the installed program.

        Raises:
            OSError: if it cannot be run.
            subprocess.SubprocessError: if it fails.
            ValueError: if it answers as another program.
        """

    def arguments(self) -> list[str]:
        """Command line of a calculation."""
        return shlex.split(self.command)

    def answer(self, *arguments: str) -> str:
        """What the program prints when it is run without a calculation, to be asked its version."""
        with tempfile.TemporaryDirectory() as folder:
            return subprocess.run(
                [*shlex.split(self.command), *arguments],
                cwd=folder,
                timeout=60,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,  # some fail for want of an input, after they told their version
            ).stdout

    @property
    def code_version(self) -> str:
        return f"{self.name} {self.version or self._installed_version}"

    @cached_property
    def _installed_version(self) -> str:
        try:
            return self.ask_version()
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise UnavailableError(
                f"cannot run {self.command!r} ({error}): install {self.name} ({self.install}) or "
                "set data.calculator.command"
            ) from error

    def check(self, atoms: Atoms) -> None:
        _ = self.code_version
        if not atoms.pbc.all():
            raise ValueError(f"{atoms.get_chemical_formula()} is not periodic in 3 directions")

    def ase_calculator(self) -> Calculator:
        return as_ase_calculator(self._results)

    def label(self, atoms: Atoms) -> Labels:
        return labels_from_results(atoms, self._results(atoms))

    def _results(self, atoms: Atoms) -> dict[str, Any]:
        if self.version:  # before hours are spent
            self._check_version(self._installed_version)
        for mixing in self.mixing:
            prefix = f"{type(self).__name__.lower()}-"
            with tempfile.TemporaryDirectory(prefix=prefix) as name:
                folder = Path(name)
                self.write_input(folder, atoms, mixing)
                self._execute(folder)
                try:
                    results = self.read_output(folder, atoms)
                    self._check_version(self.read_version(folder))
                    return results
                except NotConverged as error:
                    if mixing == self.mixing[-1]:
                        raise
                    log.info("%s with mixing %g; trying the next", error, mixing)
        raise AssertionError("unreachable: mixing is never empty")

    def _check_version(self, version: str) -> None:
        """Raises UnavailableError for another version than the labels are stored under."""
        if version != (self.version or self._installed_version):
            raise UnavailableError(
                f"labels of {self.code_version} are asked for and {self.command!r} is {version}: "
                f"set data.calculator.version={version} to use it, which computes all labels anew"
            )

    def _execute(self, folder: Path) -> None:
        with (folder / LOG).open("wb") as file:
            try:
                subprocess.run(
                    _ending_with_us(self.arguments()),
                    cwd=folder,
                    env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
                    timeout=self.time_limit,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    check=False,  # the output file tells more than an exit status
                )
            except subprocess.TimeoutExpired as error:
                raise CalculationFailed(
                    f"{self.name} took longer than {self.time_limit:g} s: raise "
                    "data.calculator.time_limit"
                ) from error
            except OSError as error:
                raise UnavailableError(f"cannot run {self.command!r}: {error}") from error


def _ending_with_us(arguments: Sequence[str]) -> list[str]:
    if shutil.which(_ENDS_WITH_US[0]) and shutil.which(arguments[0]):
        return [*_ENDS_WITH_US, *arguments]
    return list(arguments)


def kpoint_mesh(kpoints: Sequence[int]) -> tuple[int, ...]:
    """Divisions of a mesh along the three reciprocal axes.

    Raises:
        ValueError: if they are not three positive integers.
    """
    if len(kpoints) != 3 or min(kpoints) < 1:
        raise ValueError(f"kpoints is {list(kpoints)}; expected three integers >= 1")
    return tuple(int(n) for n in kpoints)


def printed(folder: Path) -> str:
    """What the program printed; empty if that is not known."""
    path = folder / LOG
    return path.read_text(errors="replace") if path.exists() else ""


def no_output(name: str, folder: Path) -> CalculationFailed:
    """The error of a program that wrote nothing to be read, with the last that it printed."""
    lines = printed(folder).strip().splitlines()
    return CalculationFailed(f"{name} wrote no output" + (f": {lines[-1]}" if lines else ""))


def cut_off(name: str) -> CalculationFailed:
    """The error of an output that has no end."""
    return CalculationFailed(
        f"{name}'s output is cut off: the calculation was killed or the disk is full"
    )


def check_symbols(atoms: Atoms, symbols: Sequence[str], name: str) -> None:
    """Raises OtherStructure unless an output has the same elements in the same order."""
    if list(symbols) != atoms.get_chemical_symbols():
        raise OtherStructure(
            f"{name}'s output has {len(symbols)} atoms ({''.join(symbols[:5])}...); "
            f"expected {atoms.get_chemical_formula(mode='reduce')} in that order"
        )


def check_places(atoms: Atoms, cell: np.ndarray, positions: np.ndarray, name: str) -> None:
    """Raises OtherStructure unless an output has the same cell and atoms, in Angstrom.

    Atoms may have moved by lattice vectors.
    """
    deviation = np.abs(cell - atoms.cell.array).max()
    if not deviation < _SAME_PLACE:
        raise OtherStructure(
            f"{name}'s output has another cell, by {deviation:.3g} Ang: is it of another "
            "structure or in another unit?"
        )
    shift = atoms.cell.scaled_positions(positions - atoms.positions)
    distance = np.linalg.norm((shift - shift.round()) @ atoms.cell.array, axis=1)
    atom = int(distance.argmax())
    if not distance[atom] < _SAME_PLACE:
        raise OtherStructure(
            f"{name}'s output has atom {atom} ({atoms[atom].symbol}) elsewhere, by "
            f"{distance[atom]:.3g} Ang: is it of another structure or in another order?"
        )
