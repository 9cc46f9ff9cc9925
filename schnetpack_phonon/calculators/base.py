"""What all labelling calculators share.

A labelling calculator computes a dictionary of labels from atoms. It holds settings only, so that
it can be sent to worker processes; the state of the code is created anew for every structure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)

from schnetpack_phonon.calculators.reading.ase_results import level_edges
from schnetpack_phonon.calculators.reading.convergence import check_calculator
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.digests import file_digest
from schnetpack_phonon.common.executors import call_within
from schnetpack_phonon.common.properties import Labels
from schnetpack_phonon.structures.elasticity import voigt_to_tensor

package_version = cache(version)  # it reads files, and every label asks for it

FORCE_LABELS = (
    properties.energy,
    properties.energy_per_atom,
    properties.forces,
    properties.stress,
    properties.hydrostatic_stress,
)
POTENTIAL_LABELS = FORCE_LABELS[:3]  # of an energy and its gradient
EDGE_LABELS = (properties.band_gap, properties.vbm, properties.cbm)
LEVEL_LABELS = (properties.levels, properties.kpoints)  # of calculators with n_levels


class LabellingCalculator(Protocol):
    """What labelling needs from a code."""

    @property
    def properties(self) -> tuple[str, ...]:
        """Keys of the labels."""

    @property
    def settings(self) -> dict[str, Any]:
        """All options that change a label, as plain values; labels are identified by their hash."""

    @property
    def code_version(self) -> str:
        """Name and version of the code."""

    def check(self, atoms: Atoms) -> None:
        """Raises ValueError if the code would compute wrong labels for these atoms."""

    def ase_calculator(self) -> Calculator:
        """A new ASE calculator with energy, forces and stress."""

    def label(self, atoms: Atoms) -> Labels:
        """Labels with the shapes and units of :mod:`.common.properties`."""


def labels_from_results(atoms: Atoms, results: Mapping[str, Any]) -> Labels:
    """Labels from ASE results: of energy, forces, stress, band gap, vbm and cbm what is there.

    The energy is ``free_energy`` where there is one, since forces are its gradient: ASE's
    ``energy`` is extrapolated to zero smearing.

    If the bands overlap, the crystal is a metal: the gap is zero, and both band edges are set to
    the middle of the overlap, since there is no gap whose edges they could be. The results
    ``band_gap_gamma``, ``band_gap_spin``, ``partial_occupation`` and those of
    :func:`.levels_at_gap`, which have their shapes, are kept.

    Raises:
        CalculationFailed: if a label is infinite or not a number.
    """
    labels: dict[str, Any] = {}
    if "energy" in results or "free_energy" in results:
        energy = float(results["free_energy" if "free_energy" in results else "energy"])
        labels |= {properties.energy: energy, properties.energy_per_atom: energy / len(atoms)}
    if "forces" in results:
        labels[properties.forces] = results["forces"]
    if "stress" in results:
        stress = voigt_to_tensor(np.asarray(results["stress"]))
        labels |= {properties.stress: stress, properties.hydrostatic_stress: np.trace(stress) / 3}
    if "vbm" in results and "cbm" in results:
        vbm, cbm = results["vbm"], results["cbm"]
        if vbm > cbm:
            vbm = cbm = (vbm + cbm) / 2
        labels |= {properties.vbm: vbm, properties.cbm: cbm, properties.band_gap: cbm - vbm}
    given = (
        properties.band_gap,
        properties.band_gap_gamma,
        properties.band_gap_spin,
        properties.partial_occupation,
    )
    labels |= {key: results[key] for key in given if key in results and key not in labels}
    labels = {
        key: np.asarray(value, dtype=float).reshape(properties.array_shape(key, len(atoms)))
        for key, value in labels.items()
    }
    wrong = [key for key, value in labels.items() if not np.isfinite(value).all()]
    if wrong:
        raise CalculationFailed(f"not finite: {', '.join(wrong)}")
    return labels | {key: results[key] for key in LEVEL_LABELS if key in results}


def as_ase_calculator(results: Callable[[Atoms], dict[str, Any]]) -> Calculator:
    """An ASE calculator that takes its results from a function of the atoms."""

    class _FromResults(Calculator):
        implemented_properties = ("energy", "free_energy", "forces", "stress", "vbm", "cbm")

        def calculate(self, atoms=None, properties=None, system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            found = results(self.atoms)
            self.results = {"free_energy": found["energy"], **found}

    return _FromResults()


def check_gives(calculator: LabellingCalculator, keys: Sequence[str], purpose: str) -> None:
    """Raises ValueError for a calculator without labels that a purpose needs.

    Args:
        calculator: of the purpose.
        keys: of the labels.
        purpose: the subject of the message, such as "relaxation".
    """
    given = calculator.properties
    if missing := [key for key in keys if key not in given]:
        raise ValueError(
            f"{purpose} needs {', '.join(missing)}; the calculator ({calculator.settings['code']}) "
            f"gives {', '.join(given) or 'nothing'}: use another calculator for it"
        )


def check_size(atoms: Atoms, min_atoms: int, why: str) -> None:
    """Raises ValueError for a cell of fewer than ``min_atoms`` atoms."""
    if len(atoms) < min_atoms:
        raise ValueError(
            f"the supercell of {atoms.get_chemical_formula()} has {len(atoms)} atoms; "
            f"{why} >= {min_atoms}: enlarge data.structure.supercell"
        )


def refuse_moments(atoms: Atoms, code: str) -> None:
    """Raises ValueError for magnetic moments, which a code does not take."""
    moments = atoms.get_initial_magnetic_moments()
    if moments.any():
        raise ValueError(
            f"{atoms.get_chemical_formula()} has magnetic moments up to {np.abs(moments).max():g}; "
            f"{code} computes crystals without: use another calculator, or set them to zero"
        )


@dataclass(eq=False)
class AseCalculator:
    """Any ASE calculator with energy, forces and stress, and band edges if they are asked for.

    Convergence of the density is checked if the calculator tells of it: ``converged`` among its
    results or attributes.

    Args:
        factory: creates a new calculator; in YAML a ``_target_`` with ``_partial_: true``. Where an
            argument is a file, such as a trained potential, its content identifies the labels.
        min_atoms: smallest number of atoms in a cell.
        time_limit: for one calculation, in seconds; no limit by default.
        band_edges: whether gap, VBM, CBM, partial occupation and, where Gamma is in the mesh, the
            gap there are labels, too, from the levels and occupations that the calculator gives
            (``get_eigenvalues``, ``get_occupation_numbers``, ...). It identifies the labels.
    """

    factory: Callable[[], Calculator]
    min_atoms: int = 1
    time_limit: float | None = None
    band_edges: bool = False

    @property
    def properties(self) -> tuple[str, ...]:
        """Keys of the labels."""
        edges = (*EDGE_LABELS, properties.partial_occupation) if self.band_edges else ()
        return (*FORCE_LABELS, *edges)

    @property
    def settings(self) -> dict[str, Any]:
        made = self.factory if isinstance(self.factory, partial) else partial(self.factory)
        return {
            "code": f"{made.func.__module__}.{made.func.__qualname__}",
            "arguments": [_plain(value) for value in made.args],
            **{key: _plain(value) for key, value in sorted(made.keywords.items())},
        } | ({"band_edges": True} if self.band_edges else {})

    @property
    def code_version(self) -> str:
        return f"ase {package_version('ase')}"

    def check(self, atoms: Atoms) -> None:
        check_size(atoms, self.min_atoms, f"{self.settings['code']} is set to need")

    def ase_calculator(self) -> Calculator:
        return self.factory()

    def label(self, atoms: Atoms) -> Labels:
        return call_within(self.time_limit, self._label, atoms)

    def _label(self, atoms: Atoms) -> Labels:
        atoms = atoms.copy()
        atoms.calc = self.ase_calculator()
        has_free_energy = "free_energy" in atoms.calc.implemented_properties
        try:
            results = {
                "energy": atoms.get_potential_energy(force_consistent=has_free_energy),
                "forces": atoms.get_forces(),
                "stress": atoms.get_stress(voigt=False),
            }
        except PropertyNotImplementedError as error:
            raise CalculationFailed(
                f"{self.settings['code']} does not give {error}; energy, forces and stress "
                "are needed"
            ) from error
        check_calculator(atoms.calc)
        if self.band_edges:
            if not (edges := level_edges(atoms.calc)):
                raise CalculationFailed(
                    f"{self.settings['code']} gives no levels with occupations at k-points, of "
                    "which band edges are taken: set data.calculator.band_edges=false"
                )
            results |= edges
        return labels_from_results(atoms, results)


def _plain(value: Any) -> str:
    """An argument as text; a file by its content, wherever it lies."""
    if isinstance(value, list | tuple):
        parts = [_plain(one) for one in value]
        return f"[{', '.join(parts)}]" if any(p.startswith("file ") for p in parts) else repr(value)
    if isinstance(value, str | Path) and os.path.isfile(value):
        return f"file {content_digest(value)}"
    return repr(value)


def content_digest(file: str | Path) -> str:
    """Of the content of a file, which is read again after a change only."""
    found = os.stat(file)
    return _content(os.fspath(file), found.st_size, found.st_mtime_ns)


@cache
def _content(path: str, size: int, time: int) -> str:
    """Digest of a file of this size and time of its last change; every label asks for it."""
    return file_digest(path)[:16]
