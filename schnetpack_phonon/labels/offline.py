"""Labels that are calculated elsewhere: inputs out to folders, outputs back into the label store.

:func:`export` writes what generation needs next and :func:`collect` reads what came of it, until
all labels are in the store and generation finds them there. What was asked for stands in the
manifest and what was found in the label store; neither is ever half-written, and both commands may
be repeated at any time.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.calculators.external_code import LOG, ExternalCode
from schnetpack_phonon.common.digests import file_digest
from schnetpack_phonon.common.errors import ManifestError, UnavailableError
from schnetpack_phonon.common.files import locked, replacing
from schnetpack_phonon.labels.labelling import Job
from schnetpack_phonon.labels.manifest import NAME, Calculation, Manifest, read_manifest
from schnetpack_phonon.labels.results import Outcome, Status, Summary, read_outcomes
from schnetpack_phonon.labels.store import LabelStore, Record

STRUCTURE = "structure.extxyz"


TODO = "todo.txt"


SCRIPT = "run_all.sh"


_SCRIPT = """\
#!/bin/sh
# One after the other. A job array does one in each job:
#   cd "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {todo})" && {command}
cd "$(dirname "$0")" || exit
for folder in $(cat {todo}); do
    (cd "$folder" && {command} > {log} 2>&1)
done
"""


def export(
    plan: Callable[[], Mapping[str, Sequence[Job]]],
    calculator: LabellingCalculator,
    label_store: Path,
    root: Path,
    code: Mapping[str, Any],
) -> str:
    """Writes the inputs of all labels that generation needs next and that are not there yet.

    Structures whose density did not converge are written once more, with the calculator's next
    mixing parameter, into a folder of their own.

    Args:
        plan: gives those labels by what they are for, as :meth:`.Generation.plan`.
        calculator: of the labels.
        label_store: where they will go.
        root: a new folder, or one that was exported with the same calculator.
        code: import path (``_target_``) and arguments of the calculator.

    Returns:
        What was done and what is to be done, in words.

    Raises:
        ManifestError: if the folder belongs to something else.
        ValueError: if a relaxation is needed.
        LabellingError: if too many calculations failed.
        UnavailableError: if the version of the code is not known.
        OSError: if the folder cannot be written; run again to go on.
    """
    manifest = _manifest(calculator, label_store, code)
    missing = plan()
    jobs = list({job.key: job for jobs in missing.values() for job in jobs}.values())
    _refuse_relaxations(calculator, jobs)
    if not jobs:
        return "nothing to export: all labels are there, spkphonon generate makes the database"
    if root.exists() and not (root / NAME).exists() and any(root.glob("[!.]*")):
        raise ManifestError(f"{root} holds other files: export to a new folder")
    program = manifest.calculator()
    Path(manifest.label_store).parent.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        if (root / NAME).exists():
            manifest = _continued(manifest, read_manifest(root), root)
        outcomes = read_outcomes(manifest, program, root, {job.key for job in jobs})
        attempts = list(_attempts(manifest, program, jobs, outcomes))
        _write(root, manifest, program, attempts)
        outcomes |= {c.key: Outcome(c, Status.NOT_RUN) for c in attempts}
        n_todo = _write_todo(root, outcomes.values())
        lines = [f"{what}: {len(jobs)} labels are missing" for what, jobs in missing.items()]
        lines.append(f"{len(attempts)} inputs written, {n_todo} folders to be run: {root / TODO}")
        if program is not None:
            command = shlex.join(program.arguments())
            if not (root / SCRIPT).exists():  # the user's own by now
                (root / SCRIPT).write_text(_SCRIPT.format(todo=TODO, command=command, log=LOG))
            lines.append(f"in each of them: {command} > {LOG} 2>&1")
    if n_todo < len(jobs):
        lines.append(f"{len(jobs) - n_todo} have been run: spkphonon collect {root}")
    return "\n".join(lines)


def collect(
    root: Path, results: str | None = None, give_up: bool = False, label_store: Path | None = None
) -> Summary:
    """Reads outputs, checks them against the manifest and puts labels into the label store.

    A calculation is stored as failed, to be replaced by another snapshot, if its density converged
    with no mixing parameter or if it is given up; one that succeeds later takes its place.

    Args:
        root: folder of the manifest.
        results: name of a file that ASE reads, in each folder, with energy, forces and stress in
            its units. It is taken in place of the code's own output; version and settings are then
            what the user says they are.
        give_up: whether those that were run without giving labels are stored as failed.
        label_store: the store; that of the export by default.

    Raises:
        ManifestError: if there is no manifest, or none that can be used.
        LabellingError: if the store cannot be read or written.
    """
    read_manifest(root)  # before anything is written
    with _locked(root):
        manifest = read_manifest(root)
        calculator = manifest.calculator()
        if calculator is None and results is None:
            raise ManifestError(
                f"{root} has structures and no inputs: name the file in each folder that holds "
                "energy, forces and stress, such as --results=result.extxyz"
            )
        store = LabelStore(_store_path(manifest, label_store))
        by_key = manifest.by_key()
        known = {key for key in by_key if key in store and not store.failed(key)}
        outcomes = read_outcomes(manifest, calculator, root, by_key.keys() - known, results)
        for key, outcome in outcomes.items():
            if outcome.labels:
                store.add(Record(key, outcome.labels, None, manifest.input(by_key[key][0])))
            elif key in store or _is_lost(outcome, calculator, by_key[key], give_up):
                outcomes[key] = replace(outcome, status=Status.GIVEN_UP)
                if key not in store:
                    given = manifest.input(by_key[key][0])
                    store.add(Record(key, None, outcome.reason, given))
        _write_todo(root, outcomes.values())
    stored = {key: Outcome(by_key[key][-1], Status.STORED) for key in known}
    return Summary([(stored | outcomes)[key] for key in by_key])


def _manifest(
    calculator: LabellingCalculator, label_store: Path, code: Mapping[str, Any]
) -> Manifest:
    """Without calculations."""
    try:
        code_version = calculator.code_version
    except UnavailableError as error:
        raise UnavailableError(
            f"{error}. If only the cluster has it, set data.calculator.version to its version there"
        ) from error
    reader = None
    if isinstance(calculator, ExternalCode):
        reader = {**code, "version": code_version.removeprefix(f"{calculator.name} ")}
    return Manifest(
        calculator.settings,
        code_version,
        list(calculator.properties),
        str(label_store.absolute()),
        reader,
        [],
    )


def _continued(new: Manifest, old: Manifest, root: Path) -> Manifest:
    """The new manifest with the calculations of the one that is there."""
    for what in ("code_version", "settings", "label_store"):
        one, other = getattr(old, what), getattr(new, what)
        if one != other:
            raise ManifestError(
                f"{root} was exported with another {what.replace('_', ' ')} ({one}; now {other}): "
                "export to another folder"
            )
    return replace(new, calculations=old.calculations)


def _refuse_relaxations(calculator: LabellingCalculator, jobs: Iterable[Job]) -> None:
    others = [job.description for job in jobs if job.compute != calculator.label]
    if others:
        raise ValueError(
            f"{', '.join(others[:4])}: a relaxation is many calculations one after the other and "
            "cannot be exported. Give crystals that were relaxed with the same settings and "
            "data.structure.relax=false (data/structure=file data.structure.path=..., or "
            "data.structure.lattice_constants; their forces and stress are looked at), or set "
            "data.elastic.relaxed_ions=false where it is there that ions relax"
        )


def _attempts(
    manifest: Manifest,
    calculator: ExternalCode | None,
    jobs: Sequence[Job],
    outcomes: Mapping[str, Outcome],
) -> Iterator[Calculation]:
    """Calculations that are to be written."""
    by_key = manifest.by_key()
    number = len(manifest.calculations)
    for job in jobs:
        mixing = _next_mixing(calculator, by_key.get(job.key, []))
        unconverged = job.key in by_key and outcomes[job.key].status is Status.UNCONVERGED
        if job.key in by_key and not (unconverged and mixing is not None):
            continue
        number += 1
        (atoms,) = job.arguments
        plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        yield Calculation(job.key, f"{number:05d}-{job.key}", job.description, plain, mixing, {})


def _next_mixing(calculator: ExternalCode | None, attempts: Sequence[Calculation]) -> float | None:
    tried = {calculation.mixing for calculation in attempts}
    parameters = calculator.mixing if calculator else ()
    return next((x for x in parameters if x not in tried), None)


def _write(
    root: Path,
    manifest: Manifest,
    calculator: ExternalCode | None,
    attempts: Sequence[Calculation],
) -> None:
    """The manifest, and those folders that are not there yet; each whole or not at all."""
    part = root / ".part"
    shutil.rmtree(part, ignore_errors=True)
    calculations = []
    for calculation in (*manifest.calculations, *attempts):
        if not (root / calculation.folder).exists():
            folder = part / calculation.folder
            folder.mkdir(parents=True)
            write(folder / STRUCTURE, calculation.atoms)
            if calculator is not None and calculation.mixing is not None:
                calculator.write_input(folder, calculation.atoms, calculation.mixing)
            files = [file for file in folder.rglob("*") if file.is_file()]
            written = {str(file.relative_to(folder)): file_digest(file) for file in files}
            calculation = replace(calculation, files=written)
        calculations.append(calculation)
    replace(manifest, calculations=calculations).write(root)
    for folder in sorted(part.glob("*")):
        folder.rename(root / folder.name)
    shutil.rmtree(part, ignore_errors=True)


def _is_lost(
    outcome: Outcome,
    calculator: ExternalCode | None,
    attempts: Sequence[Calculation],
    give_up: bool,
) -> bool:
    """Whether no labels are to be expected any more."""
    if outcome.status is Status.UNCONVERGED:
        return give_up or _next_mixing(calculator, attempts) is None
    return give_up and outcome.status is Status.BROKEN


def _store_path(manifest: Manifest, label_store: Path | None) -> Path:
    path = label_store or Path(manifest.label_store)
    if not path.parent.is_dir():
        raise ManifestError(f"no folder for the label store {path}: name one with --label-store")
    return path


def _write_todo(root: Path, outcomes: Iterable[Outcome]) -> int:
    """The folders that are to be run, or run again, one a line; returns their number."""
    done = (Status.FINISHED, Status.UNCONVERGED, Status.GIVEN_UP)
    folders = [o.calculation.folder for o in outcomes if o.status not in done]
    with replacing(root / TODO) as part:
        part.write_text("".join(f"{folder}\n" for folder in folders))
    return len(folders)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One command at a time in a folder."""
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".manifest"):
        yield
