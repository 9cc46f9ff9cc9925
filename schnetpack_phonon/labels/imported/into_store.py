"""Finished calculations of other programs as the labels that generation asks for.

A frame belongs to a job if :func:`.match` finds its atoms on the same sites, each within 0.001 Ang
of its place: the limit for outputs of exported inputs. Its labels are stored under the key of the
job, with the structure of the job and the name of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.calculators.output import SAME_PLACE
from schnetpack_phonon.common.errors import LabellingError, UnreadableFileError
from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.common.properties import Labels, band_gap_spin
from schnetpack_phonon.labels.imported.checks import check_labels
from schnetpack_phonon.labels.imported.frames import NOT_TOLD, FileLabels, Frame
from schnetpack_phonon.labels.imported.origin import other_origin
from schnetpack_phonon.labels.imported.targets import Targets, nearest
from schnetpack_phonon.labels.labelling import Job, Planner
from schnetpack_phonon.labels.maintenance import difference
from schnetpack_phonon.labels.store import LabelStore, Record
from schnetpack_phonon.structures.matching import Match, match

_STORED, _THERE = "stored", "already there"
_OTHER, _REFUSED = "not part of the ensemble", "refused"
_MOST_LINES = 10  # of reasons


@dataclass
class _Given:
    """A frame of a file.

    Attributes:
        source: the file.
        index: of the frame in it.
        frame: without labels if the file cannot be used.
        matches: of its atoms, by the name of the crystal.
        status: what became of it.
        reason: why it is not stored.
        unchecked: whether it was stored although its file tells neither settings nor version.
    """

    source: FileLabels
    index: int
    frame: Frame
    matches: dict[str, Match] = field(default_factory=dict)
    status: str = _OTHER
    reason: str = ""
    unchecked: bool = False

    def refuse(self, reason: str) -> None:
        self.status, self.reason = _REFUSED, reason


def import_labels(
    planner: Callable[[], Planner],
    calculators: Sequence[LabellingCalculator],
    ideals: Mapping[str, Atoms],
    store: LabelStore,
    files: Sequence[Path],
    prefix: str = "",
    format: str | None = None,
) -> str:
    """Stores the labels of files for all jobs whose structures are in them.

    Files are read and checked before the first label is stored. Those of force constants come
    first, if there are any: only with them it is known which snapshots are needed.

    Args:
        planner: finds out which labels are needed, as :meth:`.Generation.planner` does.
        calculators: whose labels they may be: that of the labels, then that of the force constants
            if it is another one.
        ideals: undisplaced supercells of the crystals, by their names.
        store: for the labels.
        files: as :func:`.read_labelled` takes them.
        prefix: of the names of labels in them, such as ``REF_``.
        format: ASE's name of their format; told from each by default.

    Returns:
        What was stored, what was not and why, and what is still missing, in words.

    Raises:
        LabellingError: if no frame belongs to a job with the same settings; says why.
        UnitError: as :func:`.check_labels`; nothing is stored then.
        FileNotFoundError: if a file is not there; nothing is stored then.
        OSError: if the store cannot be written.
    """
    given = [*_read(files, prefix, format)]
    left = [one for one in given if one.status is not _REFUSED]
    _match(left, ideals)
    while True:
        plan = planner()
        jobs = [_labels_of(calculator, plan.jobs.values()) for calculator in calculators]
        targets = [{name: Targets(ideal, j) for name, ideal in ideals.items()} for j in jobs]
        n_stored = len(store)
        for one in left:
            places = [nearest(one.matches, own) for own in targets]
            if found := [(own, *p) for own, p in zip(calculators, places, strict=True) if p]:
                _take_nearest(one, found, store)
        left = [one for one in left if one.status is _OTHER]
        if len(store) == n_stored:
            break
    text = "\n".join([*_lines(given), *_missing(plan, calculators)])
    if not any(one.status in (_STORED, _THERE) for one in given):
        raise LabellingError(f"no label was stored\n{text}")
    return f"label store: {store.path}\n{text}"


def _read(files: Sequence[Path], prefix: str, format: str | None) -> Iterator[_Given]:
    with Progress("reading", len(files), unit="files") as progress:
        for path in files:
            source = FileLabels(path, prefix, format, option="--")
            try:
                frames = source.frames
                check_labels(frames, path)
            except (LabellingError, UnreadableFileError) as error:  # of the whole file
                frames = [Frame(Atoms(), {}, str(error))]
            for index, frame in enumerate(frames):
                one = _Given(source, index, frame)
                if not frame.labels:
                    one.refuse(frame.error or "it has no label")
                yield one
            progress.update()


def _match(given: Sequence[_Given], ideals: Mapping[str, Atoms]) -> None:
    """Finds the atoms of all frames on the sites of the crystals that have the same atoms."""
    order: dict[Path, np.ndarray] = {}  # of the frame before
    with Progress("matching", len(given), unit="frames") as progress:
        for one in given:
            atoms = one.frame.atoms
            same = {k: i for k, i in ideals.items() if sorted(i.numbers) == sorted(atoms.numbers)}
            one.reason = "" if same else _other_atoms(atoms, ideals)
            known = {k: i for k, i in same.items() if (i.numbers == atoms.numbers).all()}
            for name, ideal in (known or same).items():  # of arrangements those in the same order
                try:
                    place = match(ideal, atoms, "it", order.get(one.source.path))
                except ValueError as error:
                    one.reason = one.reason or str(error)
                    continue
                one.matches[name] = place
                order[one.source.path] = place.order
            progress.update()


def _other_atoms(atoms: Atoms, ideals: Mapping[str, Atoms]) -> str:
    known = dict.fromkeys(ideal.get_chemical_formula() for ideal in ideals.values())
    return (
        f"it is {atoms.get_chemical_formula()}; the supercells of data.structure are "
        f"{', '.join(list(known)[:4])}"
    )


def _labels_of(calculator: LabellingCalculator, jobs: Iterable[Job]) -> list[Job]:
    """Those of a calculator that are labels, and no relaxations."""
    own = calculator.settings
    return [j for j in jobs if j.input and j.input.task == "label" and j.input.settings == own]


def _take_nearest(
    one: _Given, found: Sequence[tuple[LabellingCalculator, float, Job, Match]], store: LabelStore
) -> None:
    """Stores a frame for the job of the first calculator that it is of, or says why not."""
    near = [(own, job, place) for own, distance, job, place in found if distance < SAME_PLACE]
    reasons = []
    for calculator, job, place in near:
        _take(one, job, place, calculator, store, only=len(near) == 1)
        if one.status is not _REFUSED:
            return
        reasons.append(one.reason)
    if reasons:
        one.refuse("; or else ".join(dict.fromkeys(reasons)))
    else:
        _, distance, job, _ = min(found, key=lambda each: each[1])
        one.reason = (
            f"{distance:.2g} Ang from the nearest structure, {job.description}; expected "
            f"less than {SAME_PLACE:g}"
        )


def _take(
    one: _Given,
    job: Job,
    place: Match,
    calculator: LabellingCalculator,
    store: LabelStore,
    only: bool,
) -> None:
    """Stores the labels of a frame, or says why not.

    Args:
        one: the frame.
        job: that it is of.
        place: of its atoms.
        calculator: of the job.
        store: for the labels.
        only: whether no other calculator has a job for the same structure.
    """
    one.reason = ""
    own = place.labels(one.frame.labels)
    if missing := [key for key in calculator.properties if key not in own]:
        one.refuse(
            f"it has no {', no '.join(missing)}, which labels of {calculator.code_version} have; "
            "data/ensemble=labelled takes what there is"
        )
        return
    differences, told = other_origin(one.source, one.frame, job, place, calculator)
    if differences:
        one.refuse("; ".join(differences))
        return
    if not told and not only:
        one.refuse(
            f"it does not tell whether it is of {calculator.code_version} or of the other "
            f"calculator, which both label {job.description}"
        )
        return
    kept = (*calculator.properties, band_gap_spin)  # of which the last may be missing
    labels: Labels = {key: own[key] for key in kept if key in own}
    if job.key in store and not store.failed(job.key):
        one.status = _THERE
        if text := difference(store[job.key].labels or {}, labels):
            one.refuse(f"{job.description} is in the store with other labels: {text}")
        return
    told_by = "" if one.source.code_version == NOT_TOLD else f", {one.source.code_version}"
    origin = f"{one.source.path}, frame {one.index}{told_by}"
    store.add(Record(job.key, labels, None, job.input, origin=origin))
    one.status, one.unchecked = _STORED, not told


def _lines(given: Sequence[_Given]) -> Iterator[str]:
    """What became of the frames of each file, and of all."""
    files: dict[Path, list[_Given]] = {}
    for one in given:
        files.setdefault(one.source.path, []).append(one)
    reasons = [(one, f"frame {one.index} of {one.source.path}") for one in given if one.reason]
    several = {path: own for path, own in files.items() if len(own) > 1}
    for path, own in several.items():
        yield f"{path}: {_counts(own)}"
    if len(files) > 1 or not several:
        yield f"{len(files)} files: {_counts(given)}"
    for one, where in reasons[:_MOST_LINES]:
        yield f"    {where}: {one.reason}"
    if len(reasons) > _MOST_LINES:
        yield f"    and {len(reasons) - _MOST_LINES} more"
    if n := sum(one.unchecked for one in given):
        yield f"{n} of files that tell neither version nor settings: not checked"


def _counts(given: Sequence[_Given]) -> str:
    counts = Counter(one.status for one in given)
    texts = [f"{counts[status]} {status}" for status in (_STORED, _THERE, _OTHER, _REFUSED)]
    return f"{len(given)} frames, {', '.join(texts)}"


def _missing(plan: Planner, calculators: Sequence[LabellingCalculator]) -> Iterator[str]:
    """Which labels are still missing, and what cannot be imported."""
    for purpose, jobs in plan.missing.items():
        yield f"{purpose}: {len(jobs)} labels are still missing"
        if len(jobs) > sum(len(_labels_of(own, jobs)) for own in calculators):
            yield (
                f"    {jobs[0].description}: relaxations are not imported: relaxed crystals with "
                "data.structure.relax=false need none (spkphonon generate --dry-run computes them)"
            )
    if not plan.missing:
        yield "all labels are in the store: spkphonon generate makes the database"
