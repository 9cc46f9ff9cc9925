"""What came of the calculations of a manifest: labels, or the reason why there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ase.calculators.calculator import CalculationFailed
from ase.io import read

from schnetpack_phonon.calculators.base import labels_from_results
from schnetpack_phonon.calculators.external_code import (
    ExternalCode,
    NotConverged,
    OtherStructure,
    check_places,
    check_symbols,
)
from schnetpack_phonon.common.digests import file_digest
from schnetpack_phonon.common.properties import Labels
from schnetpack_phonon.labels.manifest import Calculation, Manifest


class Status(Enum):
    """What there is of a calculation; the values are for the reader of a summary."""

    STORED = "in the label store before"
    FINISHED = "finished, now in the label store"
    NOT_RUN = "not run yet"
    UNCONVERGED = "not converged; spkphonon export writes them with the next mixing parameter"
    BROKEN = "cut off, failed or still running"
    OTHER_STRUCTURE = "of another structure"
    OTHER_VERSION = "of another version of the code"
    GIVEN_UP = "given up, stored as failed"


@dataclass(frozen=True)
class Outcome:
    """Of one structure.

    Attributes:
        calculation: the last attempt at it, or the one that succeeded.
        status: what there is.
        labels: of a finished calculation.
        reason: why there are none, or what to know about them.
    """

    calculation: Calculation
    status: Status
    labels: Labels | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Summary:
    """Outcomes of all structures of a manifest, to be printed."""

    outcomes: list[Outcome]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be run."""
        done = (Status.STORED, Status.FINISHED, Status.GIVEN_UP)
        return all(outcome.status in done for outcome in self.outcomes)

    def __str__(self) -> str:
        counts = Counter(outcome.status for outcome in self.outcomes)
        lines = [f"{counts[status]:6d}  {status.value}" for status in Status if counts[status]]
        lines += [f"{len(self.outcomes):6d}  structures"]
        told = [outcome for outcome in self.outcomes if outcome.reason]
        lines += [f"{o.calculation.folder} ({o.calculation.description}): {o.reason}" for o in told]
        return "\n".join(lines)


def read_outcomes(
    manifest: Manifest,
    code: ExternalCode | None,
    root: Path,
    keys: Collection[str],
    results: str | None = None,
) -> dict[str, Outcome]:
    """By key, of the exported structures that have one of the keys.

    Args:
        manifest: of the folder ``root``.
        code: reads its own output; None where it is not known.
        root: where the manifest is.
        keys: of labels.
        results: name of the file in each folder that is read in place of the code's output.
    """
    found = {}
    for key, attempts in manifest.by_key().items():
        if key in keys:
            tried = [_outcome(manifest, code, root, c, results) for c in reversed(attempts)]
            finished = (outcome for outcome in tried if outcome.labels)
            found[key] = next(finished, tried[0])
    return found


def _outcome(
    manifest: Manifest,
    code: ExternalCode | None,
    root: Path,
    calculation: Calculation,
    results: str | None,
) -> Outcome:
    folder = root / calculation.folder
    there = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    run = results in there if code is None or results else there - calculation.files.keys()
    if not run:
        return Outcome(calculation, Status.NOT_RUN)
    try:
        if code is None or results:
            found = _read_results(folder / str(results), calculation)
        else:
            found = code.read_output(folder, calculation.atoms)
            version = f"{code.name} {code.read_version(folder)}"
            if version != manifest.code_version:
                reason = (
                    f"written by {version}; expected {manifest.code_version}: run that one, or "
                    "export to another folder with data.calculator.version set"
                )
                return Outcome(calculation, Status.OTHER_VERSION, reason=reason)
        labels = labels_from_results(calculation.atoms, found)
        missing = [key for key in manifest.properties if key not in labels]
        if missing:
            raise CalculationFailed(f"no {', no '.join(missing)}, which these labels have")
    except NotConverged as error:
        return Outcome(calculation, Status.UNCONVERGED, reason=str(error))
    except OtherStructure as error:
        return Outcome(calculation, Status.OTHER_STRUCTURE, reason=str(error))
    except CalculationFailed as error:
        return Outcome(calculation, Status.BROKEN, reason=str(error))
    except Exception as error:  # a reader may raise anything for a file that is cut off
        return Outcome(calculation, Status.BROKEN, reason=f"{type(error).__name__}: {error}")
    changed = [
        name
        for name, written in calculation.files.items()
        if name in there and file_digest(folder / name) != written
    ]
    return Outcome(
        calculation,
        Status.FINISHED,
        {key: labels[key] for key in manifest.properties},
        f"taken, but {', '.join(changed)} is not as it was exported" if changed else None,
    )


def _read_results(path: Path, calculation: Calculation) -> dict[str, Any]:
    """ASE results in any file that ASE reads; its last structure is taken."""
    atoms = read(path)
    check_symbols(calculation.atoms, atoms.get_chemical_symbols(), path.name)
    check_places(calculation.atoms, atoms.cell.array, atoms.positions, path.name)
    found = atoms.info | (atoms.calc.results if atoms.calc else {})
    missing = [key for key in ("energy", "forces", "stress") if key not in found]
    if missing:
        raise CalculationFailed(
            f"{path.name} has no {', no '.join(missing)}; energy, forces and stress are needed"
        )
    return found
