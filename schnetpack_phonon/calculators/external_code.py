"""Base of the calculators that run a program: their options, and how the program is run."""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import Field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator

from schnetpack_phonon.calculators.base import (
    EDGE_LABELS,
    FORCE_LABELS,
    LEVEL_LABELS,
    as_ase_calculator,
    labels_from_results,
    refuse_moments,
)
from schnetpack_phonon.calculators.output import LOG, NotConverged, OutputReader, last_line
from schnetpack_phonon.calculators.reading.levels import levels_at_gap
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import UnavailableError, check_at_least, check_positive
from schnetpack_phonon.common.properties import Labels

log = logging.getLogger(__name__)

# The program ends with the worker that waits for it, even if that worker is killed (Linux).
_END_WITH_WORKER = ("setpriv", "--pdeathsig", "KILL", "--")


class ExternalCode(OutputReader):
    """Base of the calculators that run a program, each structure in a folder of its own.

    Subclasses are dataclasses whose fields are the options. Numbers must be positive. A change of
    an option changes the identity of all labels, unless ``not_in_settings`` names it.

    The gap is the lowest conduction level minus the highest valence level over all k-points; the
    number of valence bands follows from the number of electrons. The gap at Gamma is a separate
    label. The energy is the free energy of the smeared electrons.

    Args:
        kpoints: mesh around Gamma; ``[1, 1, 1]`` is Gamma alone.
        electronic_temperature: Fermi smearing in K.
        mixing: mixing parameters of the density, tried in turn until the calculation converges.
        command: the executable, with further words of the command line if needed.
        n_levels: number of levels below and above the gap at each k-point that are further labels,
            ``levels`` and ``kpoints``; 0 for none.
        time_limit: for one calculation, in seconds.
        version: that the labels must come from; the installed one by default. If it is given,
            labels that are already in a store are found on machines without the program.
    """

    install: ClassVar[str]  # how to install the program, for error messages
    input_arguments: ClassVar[tuple[str, ...]] = ()  # of a calculation
    version_arguments: ClassVar[tuple[str, ...]] = ()  # that print the version
    version_pattern: ClassVar[str]  # finds it in what is printed
    not_in_settings: ClassVar[frozenset[str]] = frozenset(
        {"mixing", "command", "time_limit", "version"}
    )
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    kpoints: Sequence[int]
    electronic_temperature: float
    mixing: Sequence[float]
    n_levels: int
    command: str
    time_limit: float
    version: str | None

    def __post_init__(self) -> None:
        fields = self.__dataclass_fields__.values()
        numbers = [field.name for field in fields if field.type == "float"]
        for name in numbers:  # 300 and 300.0 in YAML are one setting
            setattr(self, name, float(getattr(self, name)))
        check_positive(**{name: getattr(self, name) for name in numbers})
        check_at_least(0, n_levels=self.n_levels)
        if not self.mixing or not all(0 < x <= 1 for x in self.mixing):
            raise ValueError(f"mixing is {list(self.mixing)}; expected parameters between 0 and 1")
        if len(self.kpoints) != 3 or min(self.kpoints) < 1:
            raise ValueError(f"kpoints is {list(self.kpoints)}; expected three integers >= 1")
        self.mixing = tuple(map(float, self.mixing))
        self.kpoints = tuple(map(int, self.kpoints))

    @property
    def properties(self) -> tuple[str, ...]:
        """Keys of the labels."""
        further = LEVEL_LABELS if self.n_levels else ()
        edges = (*EDGE_LABELS, properties.band_gap_gamma, properties.partial_occupation)
        return (*FORCE_LABELS, *edges, *further)

    @property
    def settings(self) -> dict[str, Any]:
        """All options that change a label, as plain values."""
        names = [name for name in self.__dataclass_fields__ if name not in self.not_in_settings]
        options = {name: getattr(self, name) for name in names}
        if not self.n_levels:
            del options["n_levels"]
        return {"code": self.name, **options, "kpoints": list(self.kpoints)}

    @abstractmethod
    def write_input(self, folder: Path, atoms: Atoms, mixing: float) -> None:
        """Writes all files that the program needs into a folder."""

    def levels(
        self, n_electrons: float, energies: np.ndarray, kpoints: np.ndarray, weights: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Labels of :func:`.levels_at_gap`, if they are asked for."""
        if not self.n_levels:
            return {}
        sizes = self.n_levels, math.prod(self.kpoints)
        return levels_at_gap(n_electrons, energies, kpoints, weights, *sizes)

    def refuse(self, option: str, names: Collection[str]) -> None:
        """Raises ValueError if ``option`` contains names that the user must not set."""
        if names:
            raise ValueError(
                f"{option} sets {', '.join(sorted(names))}, which other options set or which must "
                "not be changed"
            )

    def arguments(self) -> list[str]:
        """Command line of a calculation."""
        return [*shlex.split(self.command), *self.input_arguments]

    def ask_version(self) -> str:
        """Version of the installed program.

        Raises:
            OSError: if it cannot be run.
            subprocess.SubprocessError: if it fails.
            ValueError: if it is another program.
        """
        with tempfile.TemporaryDirectory() as folder:
            text = subprocess.run(
                [*shlex.split(self.command), *self.version_arguments],
                cwd=folder,
                timeout=60,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,  # some print their version and then fail without an input
            ).stdout
        match = re.search(self.version_pattern, text, re.MULTILINE)
        if match is None:
            said = last_line(text) or "nothing"
            raise ValueError(f"it does not answer as {self.name} does: {said}")
        return match[1]

    @property
    def code_version(self) -> str:
        return f"{self.name} {self.version or self._installed_version}"

    @cached_property
    def _installed_version(self) -> str:
        try:
            return self.ask_version()
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise UnavailableError(
                f"cannot run {self.command!r} ({error}), which these labels need: install "
                f"{self.name} ({self.install}), set data.calculator.command, choose another "
                "data/calculator, or calculate them on another machine (spkphonon export)"
            ) from error

    def check(self, atoms: Atoms) -> None:
        _ = self.code_version
        if not atoms.pbc.all():
            raise ValueError(f"{atoms.get_chemical_formula()} is not periodic in 3 directions")
        if self.n_levels:
            refuse_moments(atoms, f"with n_levels={self.n_levels}, {self.name}")

    def ase_calculator(self) -> Calculator:
        return as_ase_calculator(self._results)

    def label(self, atoms: Atoms) -> Labels:
        return labels_from_results(atoms, self._results(atoms))

    def _results(self, atoms: Atoms) -> dict[str, Any]:
        if self.version:  # checked before hours of computing time are spent
            self.check_installed()
        *first, last = self.mixing
        for mixing in first:
            try:
                return self._calculate(atoms, mixing)
            except NotConverged as error:
                log.info("%s with mixing %g; trying the next one", error, mixing)
        return self._calculate(atoms, last)

    def _calculate(self, atoms: Atoms, mixing: float) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix=f"{type(self).__name__.lower()}-") as name:
            folder = Path(name)
            self.write_input(folder, atoms, mixing)
            self._execute(folder)
            results = self.read_output(folder, atoms)
            self._check_version(self.read_version(folder))
            return results

    def check_installed(self) -> None:
        """Raises UnavailableError unless the program is here, in the version of the labels."""
        self._check_version(self._installed_version)

    def _check_version(self, version: str) -> None:
        """Raises UnavailableError unless the labels are stored under this version."""
        if version != (self.version or self._installed_version):
            raise UnavailableError(
                f"labels of {self.code_version} are needed, but {self.command!r} is {version}: set "
                f"data.calculator.version={version} to use it; all labels are then computed again"
            )

    def _execute(self, folder: Path) -> None:
        arguments = self.arguments()
        if shutil.which(_END_WITH_WORKER[0]) and shutil.which(arguments[0]):
            arguments = [*_END_WITH_WORKER, *arguments]
        with (folder / LOG).open("wb") as file:
            try:
                subprocess.run(
                    arguments,
                    cwd=folder,
                    env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
                    timeout=self.time_limit,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    check=False,  # the output file says more than the exit status
                )
            except subprocess.TimeoutExpired as error:
                raise CalculationFailed(
                    f"{self.name} took longer than {self.time_limit:g} s: raise "
                    "data.calculator.time_limit"
                ) from error
            except OSError as error:
                raise UnavailableError(f"cannot run {self.command!r}: {error}") from error
