"""Harmonic models -> ensemble -> labels -> database, resumable at every step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import compress, islice
from pathlib import Path
from typing import Any

from schnetpack_phonon.common.digests import settings_hash
from schnetpack_phonon.common.errors import LabellingError, MissingLabelsError
from schnetpack_phonon.common.files import advice, locked
from schnetpack_phonon.common.properties import Labels, ideal_cell, ideal_positions
from schnetpack_phonon.data.database import DatabaseError, check_settings, write_database
from schnetpack_phonon.data.preparation import Recipe, prepare
from schnetpack_phonon.ensembles.base import Snapshot, snapshot_groups, until_accepted
from schnetpack_phonon.ensembles.preview import write_preview
from schnetpack_phonon.labels.finite_strain import N_STRAINS
from schnetpack_phonon.labels.labelling import Job, Labeller, Planner, Repeated, label_job
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.phonons.force_constants import Models
from schnetpack_phonon.phonons.harmonic import HarmonicModel
from schnetpack_phonon.structures.crystals import Crystal

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

    def ensure(self, trained_on: Sequence[str] = ()) -> None:
        """Makes the database if it is not there; checks its settings if it is.

        Of several processes one makes it and the others wait.

        Args:
            trained_on: keys that its rows must have.

        Raises:
            DatabaseError: if what is there is damaged, foreign or made with other settings, or
                where it cannot be written.
            LabellingError: if labels cannot be computed; finished ones are kept.
            ValueError: if the calculator would be wrong for a crystal, or does not give a key.
        """
        self._check_keys(trained_on)
        if self.datapath.exists():
            check_settings(self.datapath, self.recipe.settings)
            return
        self._check_crystals()
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
            if self.datapath.exists():
                check_settings(self.datapath, self.recipe.settings)
            else:
                self._build()

    def _check_keys(self, wanted: Sequence[str]) -> None:
        given = self.recipe.properties
        missing = [key for key in wanted if key not in (*given, ideal_positions, ideal_cell)]
        if missing:
            raise ValueError(
                f"data.load_properties asks for {', '.join(missing)}; the labels will be "
                f"{', '.join(given)}. Choose another data/calculator (or "
                "data/elastic=finite_strain for elastic tensors), or an experiment without them"
            )

    def preview(self) -> str:
        """Describes the ensemble in a folder beside the database, and labels none of its snapshots.

        Lattice and force constants are calculated if they are not in the label store yet.

        Returns:
            The text of ``preview.md``.
        """
        self._check_crystals()
        with self._labeller() as labeller:
            crystals, models = prepare(self.recipe, labeller, self.datapath.parent)
            cost = self._cost(labeller.store, _Drawn(self.recipe, crystals, models))
        folder = self.datapath.with_name(f"{self.datapath.stem}_preview")
        text = write_preview(folder, self.recipe.ensemble, crystals, models, cost)
        log.info("preview: %s", folder / "preview.md")
        return text

    def _cost(self, store: LabelStore, drawn: _Drawn) -> str:
        """What the labels of an ensemble take, in words."""
        n_wanted, n_missing = drawn.n_wanted, sum(job.key not in store for job in drawn)
        text = f"{n_wanted}, of which {n_wanted - n_missing} are in the label store"
        if self.recipe.elastic:
            kinds = " and as many relaxations" if self.recipe.elastic.relaxed_ions else ""
            text += f"; for elastic tensors {N_STRAINS} strained copies of each{kinds}"
        return text

    def plan(self) -> dict[str, list[Job]]:
        """What has to be labelled next: all jobs that need no labels but those in the store.

        Returns:
            What for -> jobs; empty where nothing is missing.
        """
        if self.datapath.exists():
            check_settings(self.datapath, self.recipe.settings)
            return {}
        self._check_crystals()
        store = LabelStore(self.label_store, self.shipped_labels)
        planner = Planner(store, self.max_failed_share)
        with suppress(MissingLabelsError):
            crystals, models = prepare(self.recipe, planner, self.datapath.parent)
            self._labelled(planner, _Drawn(self.recipe, crystals, models))
        return planner.missing

    def _check_crystals(self) -> None:
        for crystal in self.recipe.structure.crystals:
            self.recipe.calculator.check(crystal.supercell)

    @contextmanager
    def _labeller(self) -> Iterator[Labeller]:
        """Whose workers are ended at once on errors; labels in flight are lost, stored ones not."""
        store = LabelStore(self.label_store, self.shipped_labels)
        executor = self.executor()
        labeller = Labeller(executor, store, self.max_failed_share)
        try:
            yield labeller
        except BaseException as error:
            _stop(executor)
            if isinstance(error, KeyboardInterrupt):
                log.warning("interrupted; %d labels are in %s", len(store), store.path)
                log.warning("the same command goes on from there")
            raise
        finally:
            log.info("%s", labeller.tally)
        executor.shutdown()

    def _build(self) -> None:
        log.info("building %s", self.datapath)
        ensemble, calculator = self.recipe.ensemble, self.recipe.calculator
        with self._labeller() as labeller:
            crystals, models = prepare(self.recipe, labeller, self.datapath.parent)
            drawn = _Drawn(self.recipe, crystals, models)
            labels, found = self._labelled(labeller, drawn)
            cost = _label_cost(labeller)
        counts = {
            "n_rows": sum(found),
            "n_failed": len(found) - sum(found),
            "n_rejected": drawn.n_rejected,
        }
        settings = self.recipe.settings
        write_database(
            self.datapath,
            compress(drawn.snapshots(), found),
            (own for own in labels if own is not None),
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
                "cost": cost,
                **counts,
            },
        )
        log.info(
            "%s: %d structures, %d failed, %d rejected for short distances",
            self.datapath,
            *counts.values(),
        )

    def _labelled(
        self, labeller: Labeller, drawn: _Drawn
    ) -> tuple[Iterable[Labels | None], list[bool]]:
        """Labels of what is drawn, with more for what fails, and where there are any."""
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
                    f"{n_failed} snapshots failed for {n_wanted} wanted ones, "
                    f"more than the share of {self.max_failed_share:g} that is allowed "
                    f"(data.max_failed_share); reasons are in {self.label_store}"
                )

    def _labels(self, labeller: Labeller, drawn: _Drawn) -> Iterable[Labels | None]:
        """Of each snapshot; None where a calculation failed."""
        calculator, elastic = self.recipe.calculator, self.recipe.elastic
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

    Each pass draws them anew. They are the same each time, so none has to be kept.
    """

    def __init__(self, recipe: Recipe, crystals: Sequence[Crystal], models: Models):
        self._groups = partial(snapshot_groups, recipe.ensemble, crystals, models)
        self._calculator = recipe.calculator
        wanted = [group.n_snapshots for group in self._groups()]
        self.n_wanted = sum(wanted)
        self.n_more = [0] * len(wanted)
        """Of each group, in place of failed ones."""
        self.sizes: list[int] = []
        """Of each group, as the last pass found it."""
        self.n_rejected = 0

    def __iter__(self) -> Iterator[Job]:
        for snapshot in self.snapshots():
            yield label_job(self._calculator, snapshot.atoms, describe(snapshot))

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
        self.sizes, self.n_rejected = sizes, n_rejected


def describe(snapshot: Snapshot) -> str:
    parameter = f"{snapshot.parameter_name} {snapshot.parameter:g}"
    return f"{snapshot.structure}, {snapshot.kind}, {parameter}, snapshot {snapshot.index}"


def _label_cost(labeller: Labeller) -> dict[str, float]:
    """What all labels took, those of phonons and strained copies among them."""
    times = [labeller.store[key].seconds for key in labeller.tally.keys]
    known = [seconds for seconds in times if seconds is not None]
    return {"n_calculations": len(times), "n_timed": len(known), "hours": sum(known) / 3600}


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
