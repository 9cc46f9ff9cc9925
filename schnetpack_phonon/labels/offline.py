"""Labels that are calculated offline: inputs are exported, outputs are collected.

:func:`export` writes the inputs of the labels that generation needs next, and :func:`collect` reads
the outputs into the label store, until all labels are in the store and generation finds them
there. The manifest and the label store are never half-written, and both commands may be repeated
at any time.
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
from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.calculators.output import LOG
from schnetpack_phonon.common.digests import file_digest
from schnetpack_phonon.common.errors import ManifestError, UnavailableError
from schnetpack_phonon.common.files import locked, replacing
from schnetpack_phonon.labels.labelling import Job
from schnetpack_phonon.labels.manifest import NAME, Calculation, Manifest, read_manifest
from schnetpack_phonon.labels.results import Result, Status, Summary, read_results
from schnetpack_phonon.labels.store import LabelStore, Record
from schnetpack_phonon.structures.atom_properties import magnetic_moments

_OLD = "stored before energies were free energies: they differ if electrons were smeared"
_FAILED = (Status.UNCONVERGED, Status.OUT_OF_TIME, Status.BROKEN)
STRUCTURE = "structure.extxyz"
TODO = "todo.txt"
SCRIPT = "run_all.sh"
_SCRIPT = """\
#!/bin/sh
# One calculation after the other. In a job array, each job runs one:
#   cd "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {todo})" && {command}
cd "$(dirname "$0")" || exit
while IFS= read -r folder || [ -n "$folder" ]; do
    (cd "$folder" && {command} > {log} 2>&1 < /dev/null)
done < {todo}
"""


def export(
    plan: Callable[[], Mapping[str, Sequence[Job]]],
    calculator: LabellingCalculator,
    label_store: Path,
    root: Path,
    code: Mapping[str, Any],
) -> str:
    """Writes the inputs of all missing labels that generation needs next.

    If the density of a structure did not converge, its input is written again, with the next
    mixing parameter of the calculator, into a new folder.

    Args:
        plan: returns the missing labels by their purpose, like :meth:`.Generation.plan`.
        calculator: of the labels.
        label_store: path of the store for the labels.
        root: a new folder, or a folder that was exported with the same calculator.
        code: import path (``_target_``) and arguments of the calculator.

    Returns:
        What was done and what is to be done, in words.

    Raises:
        ManifestError: if the folder belongs to something else.
        ValueError: if a relaxation is needed.
        LabellingError: if too many calculations failed.
        UnavailableError: if the version of the code is not known.
        OSError: if the folder cannot be written; run again to continue.
    """
    manifest = _manifest(calculator, label_store, code)
    missing = plan()
    jobs = list({job.key: job for jobs in missing.values() for job in jobs}.values())
    _refuse_relaxations(calculator, jobs)
    if not jobs:
        return "nothing to export: all labels exist, spkphonon generate creates the database"
    if root.exists() and not (root / NAME).exists() and any(root.glob("[!.]*")):
        raise ManifestError(f"{root} contains other files: export to a new folder")
    program = manifest.calculator()
    label_store.absolute().parent.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        if (root / NAME).exists():
            manifest = _continued(manifest, read_manifest(root), root)
        results = read_results(manifest, program, root, {job.key for job in jobs})
        attempts = list(_attempts(manifest, program, jobs, results))
        _write(root, manifest, program, attempts)
        results |= {c.key: Result(c, Status.NOT_RUN) for c in attempts}
        n_todo = _write_todo(root, results.values())
        lines = [f"{what}: {len(jobs)} labels are missing" for what, jobs in missing.items()]
        lines.append(f"{len(attempts)} inputs written, {n_todo} folders to be run: {root / TODO}")
        if program is not None:
            command = shlex.join(program.arguments())
            if not (root / SCRIPT).exists():  # the user may have changed it
                with replacing(root / SCRIPT) as part:  # in place of a link, too
                    part.write_text(_SCRIPT.format(todo=TODO, command=command, log=LOG))
            lines.append(f"in each of them: {command} > {LOG} 2>&1")
    if n_todo < len(jobs):
        command = f"spkphonon collect {shlex.quote(str(root))}"
        lines.append(f"{len(jobs) - n_todo} have been run: {command}")
    return "\n".join(lines)


def collect(
    root: Path, results: str | None = None, give_up: bool = False, label_store: Path | None = None
) -> Summary:
    """Reads outputs, checks them against the manifest and adds labels to the label store.

    A calculation is stored as failed, to be replaced by another snapshot, if its density converged
    with no mixing parameter, or if it is given up. Labels of a later success replace the failure.

    Args:
        root: folder of the manifest.
        results: name of a file that ASE reads, in each folder, with energy, forces and stress in
            the units of ASE. It is read instead of the output of the code; the user is then
            responsible for version and settings.
        give_up: whether calculations that were run but have no labels are stored as failed.
        label_store: the store; that of :func:`store_of` by default.

    Raises:
        ManifestError: if there is no manifest, or it cannot be used.
        LabellingError: if the store cannot be read or written.
    """
    read_manifest(root)  # raises an error before anything is written
    with _locked(root):
        manifest = read_manifest(root)
        calculator = manifest.calculator()
        if calculator is None and results is None:
            raise ManifestError(
                f"{root} contains structures without inputs: name the file in each folder that "
                "contains energy, forces and stress, such as --results=result.extxyz"
            )
        path = label_store or store_of(root)
        if not path.parent.is_dir():
            raise ManifestError(f"no folder for the label store {path}: set --label-store")
        store = LabelStore(path)
        by_key = manifest.by_key()
        stored = {key for key in by_key if key in store and not store.failed(key)}
        found = read_results(manifest, calculator, root, by_key.keys() - stored, results)
        for key, result in found.items():
            unconverged = result.status is Status.UNCONVERGED
            lost = unconverged and _next_mixing(calculator, by_key[key]) is None
            lost |= give_up and result.status in _FAILED
            given = manifest.input(by_key[key][0])
            if result.labels:
                store.add(Record(key, result.labels, None, given))
            elif key in store or lost:
                found[key] = replace(result, status=Status.GIVEN_UP)
                if key not in store:
                    store.add(Record(key, None, result.reason, given))
        _write_todo(root, found.values())
    old = {key for key in stored if results and b'"energy":"free"' not in store.line(key)}
    found |= {
        key: Result(by_key[key][-1], Status.STORED, unchecked=_OLD if key in old else None)
        for key in stored
    }
    return Summary([found[key] for key in by_key])


def store_of(root: Path) -> Path:
    """The label store that the manifest of a folder names.

    A manifest may come from anybody, so it may only name a ``.jsonl`` file in or below the working
    directory, that of the project.

    Raises:
        ManifestError: if there is no manifest, or it names another place.
    """
    path = Path(read_manifest(root).label_store)
    if path.suffix != ".jsonl" or Path.cwd() not in path.resolve().parents:
        raise ManifestError(
            f"{root / NAME} names the label store {str(path)!r}; expected a .jsonl file in or "
            f"below {Path.cwd()}: call the command in the folder of the project, or say "
            "which store is meant with --label-store"
        )
    return path


def _manifest(
    calculator: LabellingCalculator, label_store: Path, code: Mapping[str, Any]
) -> Manifest:
    """A new manifest without calculations."""
    try:
        version = calculator.code_version
    except UnavailableError as error:
        raise UnavailableError(
            f"{error}. If only the cluster has it, set data.calculator.version to its version there"
        ) from error
    reader = None
    if isinstance(calculator, ExternalCode):
        reader = {**code, "version": version.removeprefix(f"{calculator.name} ")}
    store, keys = str(label_store.absolute()), list(calculator.properties)
    return Manifest(calculator.settings, version, keys, store, reader, [])


def _continued(new: Manifest, old: Manifest, root: Path) -> Manifest:
    """The new manifest with the calculations of the old one."""
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
            f"{', '.join(others[:4])}: a relaxation is a series of calculations and cannot be "
            "exported. Use crystals that were relaxed with the same settings and "
            "data.structure.relax=false (data/structure=file data.structure.path=..., or "
            "data.structure.lattice_constants; their forces and stress are checked), or set "
            "data.elastic.relaxed_ions=false if the ions of strained crystals would be relaxed"
        )


def _attempts(
    manifest: Manifest,
    calculator: ExternalCode | None,
    jobs: Sequence[Job],
    results: Mapping[str, Result],
) -> Iterator[Calculation]:
    """New calculations: the first of a structure, or one with the next mixing parameter."""
    by_key = manifest.by_key()
    number = len(manifest.calculations)
    for job in jobs:
        mixing = _next_mixing(calculator, by_key.get(job.key, []))
        if job.key in by_key:
            unconverged = results[job.key].status is Status.UNCONVERGED
            if not unconverged or mixing is None:
                continue
        number += 1
        (atoms,) = job.arguments
        plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        plain.set_initial_magnetic_moments(magnetic_moments(atoms))
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
    """Writes the manifest and all folders that do not exist; each completely or not at all."""
    part = root / ".part"
    if part.is_symlink():
        part.unlink()
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


def _write_todo(root: Path, results: Iterable[Result]) -> int:
    """Writes the folders that are to be run (again), one per line; returns their number."""
    done = (Status.FINISHED, Status.UNCONVERGED, Status.GIVEN_UP)
    folders = [r.calculation.folder for r in results if r.status not in done]
    with replacing(root / TODO) as part:
        part.write_text("".join(f"{folder}\n" for folder in folders))
    return len(folders)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One command at a time in a folder."""
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".manifest"):
        yield
