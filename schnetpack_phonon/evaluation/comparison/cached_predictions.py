"""What trained models predict for test sets, computed on all cores and kept beside the models.

Work is divided by structures rather than by models: each process builds the graphs of its own
structures once, and asks every model about them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import loky
import numpy as np
from ase import Atoms

from schnetpack_phonon.common.digests import hash_of
from schnetpack_phonon.common.executors import process_pool
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.evaluation.runs import Question, Run
from schnetpack_phonon.evaluation.test_sets import TestSet

log = logging.getLogger(__name__)


CACHE = "cross_tests"


_FORMAT = 2  # of what is kept: arrays of components; tables of numbers before


_MOST = 256  # structures of one job, whose graphs are in memory


_FEW = 3000  # predictions that one process makes before others would have started


Predictions = dict[str, np.ndarray]  #: label -> as :func:`.answers` gives it


@dataclass(frozen=True)
class _Job:
    """Models and a part of a test set that they are asked about."""

    test_set: int
    questions: list[Question]
    atoms: tuple[Atoms, ...]


def predictions_of(runs: Sequence[Run], sets: Sequence[TestSet]) -> list[list[Predictions]]:
    """Predictions of each run's model for all structures of all test sets.

    They are kept in the folders of the runs, and read from there as long as neither model nor
    structures change.

    Returns:
        For each test set those of each run, in the database's units.
    """
    found: dict[tuple[int, int], Predictions] = {}
    missing: dict[int, dict[int, Question]] = {}
    caches = {}
    for k, test_set in enumerate(sets):
        content = "".join(test_set.rows["digest"])
        for r, run in enumerate(runs):
            question = _question(run, test_set)
            caches[k, r] = _cache(run, question, content)
            kept = _read(caches[k, r])
            if kept is None:
                missing.setdefault(k, {})[r] = question
            else:
                found[k, r] = kept
    for k, new in _predicted({k: [*own.values()] for k, own in missing.items()}, sets):
        for r, one in zip(missing[k], new, strict=True):
            found[k, r] = one
            _keep(caches[k, r], one)
    return [[found[k, r] for r in range(len(runs))] for k in range(len(sets))]


def _question(run: Run, test_set: TestSet) -> Question:
    labels = tuple(str(key) for key in test_set.labels)
    targets = {output: label for output, label in run.targets.items() if label in labels}
    chosen = run.resolved("data.test_transforms") or run.resolved("data.transforms", [])
    return Question(run.model, tuple(chosen), targets, labels)


def _cache(run: Run, question: Question, content: str) -> Path:
    stat = question.path.stat()
    facts = [_FORMAT, question.targets, question.labels, stat.st_size, stat.st_mtime_ns]
    return run.folder / CACHE / f"{hash_of(json.dumps(facts), content)[:16]}.npz"


def _read(cache: Path) -> Predictions | None:
    try:
        with open(cache, "rb") as file, np.load(file) as kept:
            return dict(kept)
    except (OSError, ValueError, BadZipFile):  # not there, or of a broken copy
        return None


def _keep(cache: Path, predictions: Predictions) -> None:
    try:
        cache.parent.mkdir(exist_ok=True)
        with replacing(cache) as part, open(part, "wb") as file:
            np.savez(file, **predictions)  # type: ignore[arg-type]
    except OSError as error:  # somebody else's runs: nothing is lost but time
        log.info("cannot keep predictions in %s: %s", cache.parent, error.strerror)


def _predicted(
    questions: dict[int, list[Question]], sets: Sequence[TestSet]
) -> Iterator[tuple[int, list[Predictions]]]:
    """Each test set's number and answers, from as many processes as are worth their start."""
    total = sum(len(own) * len(sets[k].atoms) for k, own in questions.items())
    n_workers = loky.cpu_count() if total > _FEW else 1
    jobs = []
    for k, own in questions.items():
        atoms = sets[k].atoms
        size = min(-(-len(atoms) // n_workers), _MOST)
        jobs += [_Job(k, own, atoms[i : i + size]) for i in range(0, len(atoms), size)]
    parts: dict[int, dict[int, list[Predictions]]] = {k: {} for k in questions}
    with Progress("tests", len(jobs), unit="parts") as progress:
        for j, part in _results(jobs, min(n_workers, len(jobs))):
            k = jobs[j].test_set
            parts[k][j] = part
            progress.update()
            if len(parts[k]) == sum(job.test_set == k for job in jobs):
                in_order = [parts[k][j] for j in sorted(parts[k])]
                yield k, [_joined(of_model) for of_model in zip(*in_order, strict=True)]


def _joined(parts: Sequence[Predictions]) -> Predictions:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _results(jobs: Sequence[_Job], n_workers: int) -> Iterator[tuple[int, list[Predictions]]]:
    """Number and result of each job, as they come."""
    if n_workers <= 1:
        yield from ((j, _answers(job)) for j, job in enumerate(jobs))
        return
    with process_pool(n_workers) as pool:
        running: dict[Future, int] = {pool.submit(_answers, job): j for j, job in enumerate(jobs)}
        yield from ((running[future], future.result()) for future in as_completed(running))


def _answers(job: _Job) -> list[Predictions]:
    # Here, as pages of kept predictions need no torch.
    from schnetpack_phonon.evaluation.predictions import answers

    return answers(job.questions, job.atoms)
