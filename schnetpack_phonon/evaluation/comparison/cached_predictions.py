"""Predictions of trained models for test sets, computed on all cores and kept beside the models.

Work is divided by structures, not by models: each process builds the graphs of its own structures
once, for all models.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import loky
import numpy as np
from ase import Atoms

from schnetpack_phonon.common.digests import hash_of
from schnetpack_phonon.common.executors import process_pool
from schnetpack_phonon.common.files import read_npz, replacing
from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.evaluation.runs import Question, Run
from schnetpack_phonon.evaluation.test_sets import TestSet

log = logging.getLogger(__name__)
CACHE = "cross_tests"
_FORMAT = 3  # of what is kept: NaN for structures that a model refuses
_MOST = 256  # structures of one job, whose graphs are in memory
_FEW = 3000  # predictions that one process makes before others would have started
Predictions = dict[str, np.ndarray]  #: label -> as :func:`.answers` gives it


class TrainedOn(NamedTuple):
    """Atomic numbers in the training set; what lengths in Ang are multiplied with for the model."""

    elements: set[int]
    length: float = 1.0


@dataclass(frozen=True)
class _Job:
    """Models and a part of a test set to predict for."""

    test_set: int
    questions: list[Question]
    atoms: tuple[Atoms, ...]


def predictions_of(
    runs: Sequence[Run], sets: Sequence[TestSet], trained_on: Sequence[TrainedOn]
) -> list[list[Predictions]]:
    """Predictions of each run's model for all structures of all test sets.

    They are kept in the folders of the runs, and read from there as long as neither model nor
    structures change.

    Args:
        runs: finished ones.
        sets: test sets.
        trained_on: of each run.

    Returns:
        For each test set those of each run, in the units that it was trained in; NaN for
        structures with elements that the model was not trained on.
    """
    questions = {
        (k, r): _question(run, one, known)
        for k, one in enumerate(sets)
        for r, (run, known) in enumerate(zip(runs, trained_on, strict=True))
    }
    contents = ["".join(one.rows["digest"]) for one in sets]
    caches = {(k, r): _cache(runs[r], q, contents[k]) for (k, r), q in questions.items()}
    found = {place: _read(cache) for place, cache in caches.items()}
    missing = [[r for r in range(len(runs)) if found[k, r] is None] for k in range(len(sets))]
    total = sum(len(new) * len(one.atoms) for new, one in zip(missing, sets, strict=True))
    n_workers = loky.cpu_count() if total > _FEW else 1
    jobs = []
    for k, new in enumerate(missing):
        atoms, asked = sets[k].atoms, [questions[k, r] for r in new]
        size = min(-(-len(atoms) // n_workers), _MOST)
        jobs += [_Job(k, asked, atoms[i : i + size]) for i in range(0, len(atoms), size) if asked]
    for k, parts in groupby(_results(jobs, n_workers), lambda pair: pair[0]):
        of_models = zip(*(part for _, part in parts), strict=True)
        for r, own in zip(missing[k], of_models, strict=True):
            joined = {key: np.concatenate([part[key] for part in own]) for key in own[0]}
            _keep(caches[k, r], joined)
            found[k, r] = joined
    return [[found[k, r] or {} for r in range(len(runs))] for k in range(len(sets))]


def _question(run: Run, test_set: TestSet, known: TrainedOn) -> Question:
    labels = tuple(str(key) for key in test_set.labels)
    targets = {output: label for output, label in run.targets.items() if label in labels}
    chosen = run.resolved("data.test_transforms") or run.resolved("data.transforms", [])
    elements = tuple(sorted(known.elements))
    return Question(run.model, tuple(chosen), targets, labels, elements, known.length, run.trust)


def _cache(run: Run, question: Question, content: str) -> Path:
    stat = question.path.stat()
    asked = [question.targets, question.labels, question.elements, question.length]
    facts = [_FORMAT, *asked, stat.st_size, stat.st_mtime_ns]
    return run.folder / CACHE / f"{hash_of(json.dumps(facts), content)[:16]}.npz"


def _read(cache: Path) -> Predictions | None:
    try:
        return read_npz(cache)
    except (OSError, ValueError):  # not there, or of a broken copy
        return None


def _keep(cache: Path, predictions: Predictions) -> None:
    try:
        cache.parent.mkdir(exist_ok=True)
        with replacing(cache) as part, open(part, "wb") as file:
            np.savez(file, **predictions)  # type: ignore[arg-type]
    except OSError as error:  # somebody else's runs: nothing is lost but time
        log.info("cannot keep predictions in %s: %s", cache.parent, error.strerror)


def _results(jobs: Sequence[_Job], n_workers: int) -> Iterator[tuple[int, list[Predictions]]]:
    """Number of the test set and result of each job, in order."""
    n_workers = min(n_workers, len(jobs))
    with ExitStack() as stack:
        progress = stack.enter_context(Progress("tests", len(jobs), unit="parts"))
        parallel = stack.enter_context(process_pool(n_workers)).map if n_workers > 1 else map
        for job, result in zip(jobs, parallel(_answers, jobs), strict=True):
            progress.update()
            yield job.test_set, result


def _answers(job: _Job) -> list[Predictions]:
    # Here, as pages from kept predictions need no torch.
    from schnetpack_phonon.evaluation.predictions import answers

    return answers(job.questions, job.atoms)
