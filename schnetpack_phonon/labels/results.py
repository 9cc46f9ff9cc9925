"""Results of the calculations of a manifest: labels, or the reason why there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ase.calculators.calculator import CalculationFailed

from schnetpack_phonon.calculators.base import labels_from_results
from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.calculators.output import (
    NotConverged,
    OtherStructure,
    OutOfTime,
    check_structure,
)
from schnetpack_phonon.calculators.reading.ase_results import ase_results
from schnetpack_phonon.calculators.reading.convergence import check_file
from schnetpack_phonon.calculators.reading.settings import TOLD
from schnetpack_phonon.common.digests import file_digest
from schnetpack_phonon.common.properties import Labels, band_gap_spin
from schnetpack_phonon.labels.manifest import Calculation, Manifest
from schnetpack_phonon.structures.atom_properties import magnetic_moments
from schnetpack_phonon.structures.files import read_frames


class Status(Enum):
    """Status of a calculation; the values are printed in a summary."""

    STORED = "already in the label store"
    FINISHED = "finished, now in the label store"
    NOT_RUN = "not run yet"
    UNCONVERGED = "not converged; spkphonon export writes them with the next mixing parameter"
    OUT_OF_TIME = "out of time or stopped; to be run again as they are, with more time"
    BROKEN = "cut off, failed or still running"
    OTHER_STRUCTURE = "of another structure"
    OTHER_VERSION = "of another version of the code"
    OTHER_SETTINGS = "computed with other settings"
    GIVEN_UP = "given up, stored as failed"


@dataclass(frozen=True)
class Result:
    """Result for one structure.

    Attributes:
        calculation: the last attempt, or the successful one.
        status: of this calculation.
        labels: of a finished calculation.
        reason: why there are no labels, or a remark about them.
        unchecked: what the results do not tell, and was not checked.
    """

    calculation: Calculation
    status: Status
    labels: Labels | None = None
    reason: str | None = None
    unchecked: str | None = None


@dataclass(frozen=True)
class Summary:
    """Results for all structures of a manifest, to be printed."""

    results: list[Result]

    @property
    def complete(self) -> bool:
        """Whether no calculation is left to be run."""
        done = (Status.STORED, Status.FINISHED, Status.GIVEN_UP)
        return all(result.status in done for result in self.results)

    def __str__(self) -> str:
        counts = Counter(result.status for result in self.results)
        lines = [f"{counts[status]:6d}  {status.value}" for status in Status if counts[status]]
        lines += [f"{len(self.results):6d}  structures"]
        unchecked = Counter(result.unchecked for result in self.results if result.unchecked)
        lines += [f"{count:6d}  {what}" for what, count in unchecked.items()]
        for result in self.results:
            if result.reason:
                calculation = result.calculation
                lines.append(f"{calculation.folder} ({calculation.description}): {result.reason}")
        return "\n".join(lines)


def read_results(
    manifest: Manifest,
    code: ExternalCode | None,
    root: Path,
    keys: Collection[str],
    file: str | None = None,
) -> dict[str, Result]:
    """Results by key, for the exported structures with one of the keys.

    Args:
        manifest: of the folder ``root``.
        code: reads its own output; None if it is not known.
        root: contains the manifest.
        keys: of labels.
        file: name of the file that is read in each folder instead of the output of the code.
    """
    found = {}
    for key, attempts in manifest.by_key().items():
        if key in keys:
            tried = [_result(manifest, code, root, c, file) for c in reversed(attempts)]
            found[key] = next((result for result in tried if result.labels), tried[0])
    return found


def _result(
    manifest: Manifest,
    code: ExternalCode | None,
    root: Path,
    calculation: Calculation,
    file: str | None,
) -> Result:
    folder = root / calculation.folder
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    run = file in there if code is None or file else there - calculation.files.keys()
    if not run:
        return Result(calculation, Status.NOT_RUN)
    unchecked, told = None, []
    try:
        if code is None or file:
            found = _read_with_ase(folder / str(file), calculation)
            if not check_file(folder / str(file), found):
                unchecked = f"whose {file} does not tell whether they converged: not checked"
        else:
            found = code.read_output(folder, calculation.atoms)
            version = f"{code.name} {code.read_version(folder)}"
            if version != manifest.code_version:
                reason = (
                    f"written by {version}; expected {manifest.code_version}: run that version, or "
                    "export to another folder with data.calculator.version set"
                )
                return Result(calculation, Status.OTHER_VERSION, reason=reason)
            other = code.other_settings(folder, calculation.atoms)
            told_only = TOLD if magnetic_moments(calculation.atoms) is None else ()
            if refused := [text for name, text in other.items() if name not in told_only]:
                reason = f"{'; '.join(refused)}: run the exported input, or export with these"
                return Result(calculation, Status.OTHER_SETTINGS, reason=reason)
            told = list(other.values())
        labels = labels_from_results(calculation.atoms, found)
        missing = [key for key in manifest.properties if key not in labels]
        if missing:
            raise CalculationFailed(f"no {', no '.join(missing)}, but these labels are needed")
    except NotConverged as error:
        return Result(calculation, Status.UNCONVERGED, reason=str(error))
    except OutOfTime as error:
        return Result(calculation, Status.OUT_OF_TIME, reason=str(error))
    except OtherStructure as error:
        return Result(calculation, Status.OTHER_STRUCTURE, reason=str(error))
    except CalculationFailed as error:
        return Result(calculation, Status.BROKEN, reason=str(error))
    except Exception as error:  # a reader may raise any error for an incomplete file
        return Result(calculation, Status.BROKEN, reason=f"{type(error).__name__}: {error}")
    changed = [
        name
        for name, written in calculation.files.items()
        if name in there and file_digest(folder / name) != written
    ]
    told += [f"{', '.join(changed)} was changed after the export"] if changed else []
    remark = f"accepted, but {'; '.join(told)}" if told else None
    kept = (*manifest.properties, band_gap_spin)  # of which the last may be missing
    labels = {key: labels[key] for key in kept if key in labels}
    return Result(calculation, Status.FINISHED, labels, remark, unchecked)


def _read_with_ase(path: Path, calculation: Calculation) -> dict[str, Any]:
    """ASE results in any file that ASE reads; the last structure in the file is used."""
    (atoms,) = read_frames(path, "-1:")
    symbols, cell = atoms.get_chemical_symbols(), atoms.cell.array
    check_structure(calculation.atoms, symbols, cell, atoms.positions, path.name)
    found = ase_results(atoms)
    if "free_energy" in found:
        found["energy"] = found["free_energy"]
    missing = [key for key in ("energy", "forces", "stress") if key not in found]
    if missing:
        raise CalculationFailed(
            f"{path.name} has no {', no '.join(missing)}; energy, forces and stress are needed"
        )
    return found
