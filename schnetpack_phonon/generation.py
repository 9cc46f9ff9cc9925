"""Harmonic models -> ensemble -> labels -> database, resumable at every step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fasteners

from schnetpack_phonon.calculators import Labels
from schnetpack_phonon.database import check_settings, write_database
from schnetpack_phonon.force_constants import Models
from schnetpack_phonon.label_store import LabellingError, LabelStore
from schnetpack_phonon.labelling import Labeller, label_job, settings_hash
from schnetpack_phonon.phonons import HarmonicModel
from schnetpack_phonon.preparation import Recipe, prepare
from schnetpack_phonon.preview import write_preview
from schnetpack_phonon.snapshots import Snapshot, accepted, snapshot_groups
from schnetpack_phonon.structures import Crystal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """A database that is made where there is none.

    Attributes:
        recipe: of the database.
        datapath: the database, ``.db``; force constants go to a folder ``phonons`` beside it.
        executor: makes the executor that runs the calculator; asked for only if needed.
        label_store: file of finished labels.
        max_failed_share: largest share of calculations that may fail; each one that does is
            replaced by the next snapshot of its group.
        shipped_labels: a second store, read and never written.
    """

    recipe: Recipe
    datapath: Path
    executor: Callable[[], Executor]
    label_store: Path
    max_failed_share: float
    shipped_labels: Path | None = None

    def ensure(self) -> None:
        """Makes the database if it is not there; checks its settings if it is.

        Of several processes one makes it and the others wait.

        Raises:
            DatabaseError: if what is there is damaged, foreign or made with other settings.
            LabellingError: if labels cannot be computed; finished ones are kept.
            ValueError: if the calculator would be wrong for a crystal.
        """
        if self.datapath.exists():
            check_settings(self.datapath, self.recipe.settings)
            return
        self._check_crystals()
        self.datapath.parent.mkdir(parents=True, exist_ok=True)
        lock = fasteners.InterProcessLock(f"{self.datapath}.lock")
        if not lock.acquire(blocking=False):
            log.info("another process is building %s: waiting for it", self.datapath)
            lock.acquire()
        try:
            if self.datapath.exists():
                check_settings(self.datapath, self.recipe.settings)
            else:
                self._build()
        finally:
            lock.release()

    def preview(self) -> str:
        """Describes the ensemble in a folder beside the database, and labels none of its snapshots.

        Lattice and force constants are calculated if they are not in the label store yet.

        Returns:
            The text of ``preview.md``.
        """
        self._check_crystals()
        with self._labeller() as labeller:
            crystals, models = prepare(self.recipe, labeller, self.datapath.parent)
        folder = self.datapath.with_name(f"{self.datapath.stem}_preview")
        text = write_preview(folder, self.recipe.ensemble, crystals, models)
        log.info("preview: %s", folder / "preview.md")
        return text

    def _check_crystals(self) -> None:
        for crystal in self.recipe.structure.crystals:
            self.recipe.calculator.check(crystal.supercell)

    @contextmanager
    def _labeller(self) -> Iterator[Labeller]:
        """Whose workers are ended at once on errors; labels in flight are lost, stored ones not."""
        store = LabelStore(self.label_store, self.shipped_labels)
        executor = self.executor()
        try:
            yield Labeller(executor, store, self.max_failed_share)
        except BaseException as error:
            _stop(executor)
            if isinstance(error, KeyboardInterrupt):
                log.warning("interrupted; %d labels are in %s", len(store), store.path)
                log.warning("the same command goes on from there")
            raise
        executor.shutdown()

    def _build(self) -> None:
        log.info("building %s", self.datapath)
        ensemble, calculator = self.recipe.ensemble, self.recipe.calculator
        with self._labeller() as labeller:
            crystals, models = prepare(self.recipe, labeller, self.datapath.parent)
            snapshots, labels, counts = self._labelled(labeller, crystals, models)
        settings = self.recipe.settings
        write_database(
            self.datapath,
            snapshots,
            labels,
            provenance={
                "code": calculator.code_version,
                "settings_hash": settings_hash(settings),
            },
            metadata={
                "settings": settings,
                "parameters": {
                    m.kind: [m.parameter_name, m.parameter_unit] for m in ensemble.members
                },
                "versions": {
                    "calculator": calculator.code_version,
                    **{p: version(p) for p in ("schnetpack_phonon", "schnetpack", "phonopy")},
                },
                "crystals": {c.name: {"cell": c.unitcell.cell.array.tolist()} for c in crystals},
                "phonons": [
                    {"structure": name, "temperature": temperature, **_summary(model)}
                    for (name, temperature), model in models.items()
                ],
                "n_rows": len(snapshots),
                **counts,
            },
        )
        log.info(
            "%s: %d structures, %d failed, %d rejected for short distances",
            self.datapath,
            len(snapshots),
            counts["n_failed"],
            counts["n_rejected"],
        )

    def _labelled(
        self, labeller: Labeller, crystals: Sequence[Crystal], models: Models
    ) -> tuple[list[Snapshot], list[Labels], dict[str, int]]:
        """The first ``n_snapshots`` snapshots of each group that have labels."""
        groups = list(snapshot_groups(self.recipe.ensemble, crystals, models))
        found: list[list[tuple[Snapshot, Labels]]] = [[] for _ in groups]
        counts = {"n_failed": 0, "n_rejected": 0}
        wanted = sum(group.n_snapshots for group in groups)
        while True:
            drawn = []
            for rows, group in zip(found, groups, strict=True):
                snapshots, rejected = accepted(group.stream, group.n_snapshots - len(rows))
                counts["n_rejected"] += rejected
                drawn += [(rows, snapshot) for snapshot in snapshots]
            if not drawn:
                break
            labels = self._labels(labeller, [snapshot for _, snapshot in drawn])
            for (rows, snapshot), own in zip(drawn, labels, strict=True):
                if own is None:
                    counts["n_failed"] += 1
                else:
                    rows.append((snapshot, own))
            if counts["n_failed"] > self.max_failed_share * wanted:
                raise LabellingError(
                    f"{counts['n_failed']} snapshots failed for {wanted} wanted ones, "
                    f"more than the share of {self.max_failed_share:g} that is allowed "
                    f"(data.max_failed_share); reasons are in {self.label_store}"
                )
        labelled = [row for rows in found for row in rows]
        return [snapshot for snapshot, _ in labelled], [own for _, own in labelled], counts

    def _labels(self, labeller: Labeller, snapshots: Sequence[Snapshot]) -> list[Labels | None]:
        """Of each snapshot; None where a calculation failed."""
        calculator, elastic = self.recipe.calculator, self.recipe.elastic
        jobs = [label_job(calculator, s.atoms, describe(s)) for s in snapshots]
        records = labeller.run(jobs, f"{self.recipe.ensemble.settings['kind']} ensemble")
        labels = [record.labels for record in records]
        if elastic is None:
            return labels
        structures = [
            (describe(snapshot), snapshot.atoms, own)
            for snapshot, own in zip(snapshots, labels, strict=True)
            if own is not None
        ]
        extended = iter(elastic.labels(labeller, calculator, structures))
        return [own and next(extended) for own in labels]


def describe(snapshot: Snapshot) -> str:
    parameter = f"{snapshot.parameter_name} {snapshot.parameter:g}"
    return f"{snapshot.structure}, {snapshot.kind}, {parameter}, snapshot {snapshot.index}"


def _summary(model: HarmonicModel) -> dict[str, Any]:
    return {
        "policy": model.policy,
        "n_imaginary": model.n_imaginary,
        "n_changed": model.n_changed,
        "lowest_frequency": float(model.frequencies.min()),
        "steps": list(model.renormalization.steps) if model.renormalization else [],
    }


def _stop(executor: Executor) -> None:
    try:
        executor.shutdown(kill_workers=True)  # type: ignore[call-arg]
    except TypeError:
        executor.shutdown(wait=False, cancel_futures=True)
