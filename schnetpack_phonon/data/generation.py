"""Harmonic models -> ensemble -> labels -> database; an interrupted build can be continued."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import compress, islice
from pathlib import Path

from schnetpack_phonon.common.digests import settings_hash
from schnetpack_phonon.common.errors import LabellingError, MissingLabelsError
from schnetpack_phonon.common.executors import shut_down
from schnetpack_phonon.common.files import advice, check_folder, locked
from schnetpack_phonon.common.properties import Labels, ideal_cell, ideal_positions
from schnetpack_phonon.data import database
from schnetpack_phonon.data.database import DatabaseError, check_settings
from schnetpack_phonon.data.preparation import Recipe, prepare
from schnetpack_phonon.ensembles.base import Snapshot, snapshot_groups, until_accepted
from schnetpack_phonon.ensembles.preview import write_preview
from schnetpack_phonon.labels.finite_strain import N_STRAINS
from schnetpack_phonon.labels.labelling import Job, Labeller, Planner, Repeated, label_job
from schnetpack_phonon.labels.maintenance import outdated
from schnetpack_phonon.labels.monitor.programs import check_programs
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.phonons.force_constants import Models
from schnetpack_phonon.structures.crystals import Crystal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """A database that is made if there is none; options as in :class:`.EnsembleData`.

    Attributes:
        executor: makes the executor that runs the calculator; called only if needed.
        shipped_labels: a second store, which is read and never written.
    """

    recipe: Recipe
    datapath: Path
    executor: Callable[[], Executor]
    label_store: Path
    max_failed_share: float
    shipped_labels: Path | None = None

    def missing_labels(self, keys: Sequence[str]) -> str | None:
        """What is wrong if rows of the database will lack some of the keys."""
        given = self.recipe.properties
        missing = [key for key in keys if key not in (*given, ideal_positions, ideal_cell)]
        if not missing:
            return None
        return (
            f"data.load_properties asks for {', '.join(missing)}; the labels will be "
            f"{', '.join(given)}. Choose another data/calculator (data/elastic=finite_strain "
            "for elastic tensors), a file that has them, or an experiment without them"
        )

    def ensure(self) -> None:
        """Makes the database if it does not exist; checks its settings if it does.

        If several processes call this, one makes the database and the others wait.

        Raises:
            DatabaseError: if the existing file is damaged, not ours or made with other settings,
                or the database cannot be written.
            LabellingError: if labels cannot be computed; finished ones are kept.
            ValueError: if the calculator is unsuitable for a crystal.
        """
        if self._exists():
            return
        self.recipe.check()
        with ExitStack() as stack:
            try:
                self.datapath.parent.mkdir(parents=True, exist_ok=True)
                what = f"another process is building {self.datapath}: waiting for it"
                stack.enter_context(locked(self.datapath, what))
            except OSError as error:
                raise DatabaseError(
                    f"cannot write {self.datapath}: {error.strerror}; "
                    f"{advice(error, 'data.datapath')}"
                ) from error
            if not self._exists():
                self._build()

    def preview(self) -> str:
        """Describes the ensemble in a folder beside the database, before computing its labels.

        Lattice and force constants are calculated if they are not in the label store yet. Returns
        the text of ``preview.md``.
        """
        self.recipe.check()
        folder = self.datapath.with_name(f"{self.datapath.stem}_preview")
        check_folder(folder, "data.datapath")
        with self._labeller() as labeller:
            crystals, models = prepare(self.recipe, labeller, self.datapath.parent)
            drawn = _Drawn(self.recipe, crystals, models)
            n_missing = sum(job.key not in labeller.store for job in drawn)
        cost = f"{drawn.n_wanted}, of which {drawn.n_wanted - n_missing} are in the label store"
        if self.recipe.ensemble.source_of_labels is not None:
            cost = "those of the file, nothing is calculated"
        if self.recipe.elastic:
            kinds = " and as many relaxations" if self.recipe.elastic.relaxed_ions else ""
            cost += f"; for elastic tensors {N_STRAINS} strained copies of each{kinds}"
        text = write_preview(folder, self.recipe.ensemble, crystals, models, cost)
        log.info("preview: %s", folder / "preview.md")
        return text

    def plan(self) -> dict[str, list[Job]]:
        """Jobs to be computed next by their purpose: all that need no labels but those stored."""
        missing = {} if self._exists() else self.planner().missing
        self.recipe.check_exported(missing)
        return missing

    def planner(self) -> Planner:
        """Which labels are needed, as far as those in the store tell; nothing is computed."""
        self.recipe.check()
        store = LabelStore(self.label_store, self.shipped_labels)
        planner = Planner(store, self.max_failed_share)
        with suppress(MissingLabelsError):
            crystals, models = prepare(self.recipe, planner, self.datapath.parent)
            self._labelled(planner, _Drawn(self.recipe, crystals, models))
        return planner

    def _exists(self) -> bool:
        """Raises DatabaseError if there is one that was made with other settings."""
        if self.datapath.exists():
            check_settings(self.datapath, self.recipe.settings)
            return True
        return False

    @contextmanager
    def _labeller(self) -> Iterator[Labeller]:
        """On errors its workers are killed: labels being computed are lost, stored ones are not."""
        recipe = self.recipe
        check_programs(recipe.calculator, recipe.other_calculators, lambda: self.planner().missing)
        store, executor = LabelStore(self.label_store, self.shipped_labels), self.executor()
        labeller = Labeller(executor, store, self.max_failed_share)
        try:
            with shut_down(executor):
                yield labeller
        except KeyboardInterrupt:
            text = "interrupted; %d labels are in %s: the same command continues from there"
            log.warning(text, len(store), store.path)
            raise
        finally:
            log.info("%s", labeller.tally)

    def _build(self) -> None:
        log.info("building %s", self.datapath)
        ensemble, calculator = self.recipe.ensemble, self.recipe.source
        with self._labeller() as labeller:
            crystals, models = prepare(self.recipe, labeller, self.datapath.parent)
            drawn = _Drawn(self.recipe, crystals, models)
            labels, found = self._labelled(labeller, drawn)
            ideal = self.recipe.ideal_labels(labeller, crystals)
            for warning in outdated(labeller.store, labeller.tally.keys):
                log.warning("%s", warning)
            times = [labeller.store[key].seconds for key in labeller.tally.keys]
        timed = [seconds for seconds in times if seconds is not None]
        n_failed = found.count(False)
        counts = {"n_rows": sum(found), "n_failed": n_failed, "n_rejected": drawn.n_rejected}
        settings = self.recipe.settings
        packages = {p: version(p) for p in ("schnetpack_phonon", "schnetpack", "phonopy")}
        others = {k: c.code_version for k, c in self.recipe.other_calculators.items()}
        database.write_database(
            self.datapath,
            compress(drawn.snapshots(), found),
            database.complete(labels),
            provenance={
                "code": calculator.code_version,
                **{f"{part}_code": code for part, code in others.items()},
                "settings_hash": settings_hash(settings),
            },
            metadata={
                "settings": settings,
                "parameters": {
                    m.kind: [m.parameter_name, m.parameter_unit] for m in ensemble.members
                },
                "versions": {"calculator": calculator.code_version, **packages},
                "other_calculators": others,
                "crystals": {c.name: {"cell": c.unitcell.cell.array.tolist()} for c in crystals},
                "ideal_labels": {
                    name: {key: value.tolist() for key, value in own.items()}
                    for name, own in ideal.items()
                },
                "phonons": [
                    {"structure": name, "temperature": temperature, **model.summary}
                    for (name, temperature), model in models.items()
                ],
                # Of all labels, those of phonons and strained copies among them.
                "cost": {
                    "n_calculations": len(times),
                    "n_timed": len(timed),
                    "hours": math.fsum(timed) / 3600,
                },
                **counts,
            },
            keys=database.keys_of(labels),
        )
        log.info(
            "%s: %d structures, %d failed, %d rejected for short distances",
            self.datapath,
            *counts.values(),
        )

    def _labelled(
        self, labeller: Labeller, drawn: _Drawn
    ) -> tuple[Iterable[Labels | None], list[bool]]:
        """Labels of the snapshots, and which have them; others are drawn for those that fail."""
        while True:
            labels = self._labels(labeller, drawn)
            found = [own is not None for own in labels]
            flags = iter(found)
            failed = [list(islice(flags, size)).count(False) for size in drawn.sizes]
            if failed == drawn.n_more:
                return labels, found
            drawn.n_more = failed
            n_failed, n_wanted = sum(failed), drawn.n_wanted
            if n_failed > self.max_failed_share * n_wanted:
                raise LabellingError(
                    f"{n_failed} snapshots failed for {n_wanted} requested ones; "
                    f"data.max_failed_share allows a share of {self.max_failed_share:g}. Reasons "
                    f"are in {self.label_store}"
                )

    def _labels(self, labeller: Labeller, drawn: _Drawn) -> Iterable[Labels | None]:
        """Labels of each snapshot; None where a calculation failed."""
        calculator, elastic = self.recipe.calculator, self.recipe.elastic
        if self.recipe.ensemble.source_of_labels is not None:
            return [snapshot.labels for snapshot in drawn.snapshots()]
        records = labeller.run(drawn, f"{self.recipe.ensemble.settings['kind']} ensemble")
        labels = Repeated(lambda: (record.labels for record in records))
        if elastic is None:
            return labels
        structures = Repeated(
            lambda: (
                (describe(snapshot), snapshot.atoms, own)
                for snapshot, own in zip(drawn.snapshots(), labels, strict=True)
                if own is not None
            )
        )
        extended = iter(elastic.labels(labeller, calculator, structures))
        return [own and next(extended) for own in labels]


class _Drawn:
    """The first snapshots of each group, as jobs.

    Each pass draws them again, the same each time, so that none has to be kept in memory.

    Attributes:
        n_wanted: requested number of snapshots.
        n_more: of each group, in place of failed ones.
        sizes: of each group, as the last pass found them.
        n_rejected: snapshots with short distances in the last pass.
    """

    def __init__(self, recipe: Recipe, crystals: Sequence[Crystal], models: Models):
        self._groups = partial(snapshot_groups, recipe.ensemble, crystals, models)
        self._calculator = recipe.source
        wanted = [group.n_snapshots for group in self._groups()]
        self.n_wanted = sum(wanted)
        self.n_more = [0] * len(wanted)
        self.sizes: list[int] = []
        self.n_rejected = 0

    def __iter__(self) -> Iterator[Job]:
        for snapshot in self.snapshots():
            group = snapshot.structure, _parameter(snapshot)
            yield label_job(self._calculator, snapshot.atoms, describe(snapshot), group=group)

    def snapshots(self) -> Iterator[Snapshot]:
        sizes: list[int] = []
        n_rejected = 0
        for group, more in zip(self._groups(), self.n_more, strict=True):
            sizes.append(0)
            for snapshot in until_accepted(group.stream, group.n_snapshots + more):
                if snapshot is None:
                    n_rejected += 1
                else:
                    sizes[-1] += 1
                    yield snapshot
        self.sizes, self.n_rejected = sizes, n_rejected  # of whole passes only


def describe(snapshot: Snapshot) -> str:
    which = f"{_parameter(snapshot)}, snapshot {snapshot.index}"
    return f"{snapshot.structure}, {snapshot.kind}, {which}"


def _parameter(snapshot: Snapshot) -> str:
    return f"{snapshot.parameter_name} {snapshot.parameter:g}"
