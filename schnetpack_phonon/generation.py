"""Structure -> force constants -> ensemble -> labels -> database, resumable at every step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import fasteners
import numpy as np

from schnetpack_phonon import properties
from schnetpack_phonon.calculators import LabellingCalculator, Labels
from schnetpack_phonon.database import check_settings, write_database
from schnetpack_phonon.ensembles import Ensemble, Snapshot
from schnetpack_phonon.label_store import LabellingError, LabelStore
from schnetpack_phonon.labelling import Labeller, label_job, relax_job, settings_hash
from schnetpack_phonon.phonons import FiniteDisplacements, HarmonicModel
from schnetpack_phonon.structures import Antiperovskites, Crystal, StructureFile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """All that determines a database.

    Attributes:
        structure: the crystals.
        phonons: how their force constants come about (for ensembles that need them).
        ensemble: the sampler.
        calculator: the code that labels.
    """

    structure: Antiperovskites | StructureFile
    phonons: FiniteDisplacements
    ensemble: Ensemble
    calculator: LabellingCalculator

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes the database, as plain values."""
        return {
            "structure": {
                "relax": self.structure.relax,
                "crystals": {
                    crystal.name: {
                        "formula": str(crystal.unitcell.symbols),
                        "cell": crystal.unitcell.cell.array.round(6).tolist(),
                        "positions": crystal.unitcell.positions.round(6).tolist(),
                        "supercell": [list(row) for row in crystal.supercell_matrix],
                    }
                    for crystal in self.structure.crystals
                },
            },
            "phonons": self.phonons.settings if self.ensemble.needs_phonons else None,
            "ensemble": self.ensemble.settings,
            "calculator": self.calculator.settings,
        }


def ensure_database(
    recipe: Recipe,
    datapath: str | Path,
    executor: Callable[[], Executor],
    label_store: str | Path,
    max_failed_share: float,
) -> None:
    """Makes the database if it is not there; checks its settings if it is.

    Of several processes one makes it and the others wait.

    Args:
        recipe: of the database.
        datapath: the database, ``.db``; force constants go to a folder ``phonons`` beside it.
        executor: makes the executor that runs the calculator; asked for only if needed.
        label_store: file of finished labels.
        max_failed_share: largest share of calculations that may fail; each one that does is
            replaced by the next snapshot of its group.

    Raises:
        DatabaseError: if what is there is damaged, foreign or made with other settings.
        LabellingError: if labels cannot be computed; finished ones are kept.
        ValueError: if the calculator would be wrong for a crystal.
    """
    datapath = Path(datapath)
    if datapath.exists():
        check_settings(datapath, recipe.settings)
        return
    for crystal in recipe.structure.crystals:
        recipe.calculator.check(crystal.supercell)
    datapath.parent.mkdir(parents=True, exist_ok=True)
    lock = fasteners.InterProcessLock(f"{datapath}.lock")
    if not lock.acquire(blocking=False):
        log.info("another process is building %s: waiting for it", datapath)
        lock.acquire()
    try:
        if datapath.exists():
            check_settings(datapath, recipe.settings)
        else:
            store = LabelStore(label_store)
            _Generation(recipe, datapath, store, max_failed_share).run(executor)
    finally:
        lock.release()


class _Generation:
    """One build of one database."""

    def __init__(self, recipe: Recipe, datapath: Path, store: LabelStore, max_failed_share: float):
        self.recipe = recipe
        self.datapath = datapath
        self.store = store
        self.max_failed_share = max_failed_share

    def run(self, make_executor: Callable[[], Executor]) -> None:
        log.info("building %s", self.datapath)
        store, ensemble, calculator = self.store, self.recipe.ensemble, self.recipe.calculator
        executor = make_executor()
        try:
            labeller = Labeller(executor, store, self.max_failed_share)
            crystals = self._relaxed(labeller)
            models = self._harmonic(labeller, crystals) if ensemble.needs_phonons else {}
            streams = {
                (crystal.name, parameter): ensemble.snapshots(
                    crystal.name, models.get(crystal.name, crystal.supercell), parameter
                )
                for crystal in crystals
                for parameter in ensemble.parameters
            }
            snapshots, labels, counts = self._labelled(labeller, streams)
        except BaseException as error:
            _stop(executor)
            if isinstance(error, KeyboardInterrupt):
                log.warning("interrupted; %d labels are in %s", len(store), store.path)
                log.warning("the same command goes on from there")
            raise
        executor.shutdown()
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
                "parameter_name": ensemble.parameter_name,
                "parameter_unit": ensemble.parameter_unit,
                "versions": {
                    "calculator": calculator.code_version,
                    **{p: version(p) for p in ("schnetpack_phonon", "schnetpack", "phonopy")},
                },
                "crystals": {
                    c.name: {"cell": c.unitcell.cell.array.tolist(), **_summary(models.get(c.name))}
                    for c in crystals
                },
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

    def _relaxed(self, labeller: Labeller) -> list[Crystal]:
        crystals = self.recipe.structure.crystals
        if not self.recipe.structure.relax:
            return crystals
        records = labeller.run([relax_job(self.recipe.calculator, c) for c in crystals], "lattice")
        relaxed = []
        for crystal, record in zip(crystals, records, strict=True):
            if record.labels is None:
                raise LabellingError(f"relaxation of {crystal.name} failed: {record.error}")
            unitcell = crystal.unitcell.copy()
            unitcell.set_cell(record.labels["cell"])
            unitcell.positions = record.labels["positions"]
            log.info("%s: cell lengths %s Ang", crystal.name, unitcell.cell.lengths().round(3))
            relaxed.append(Crystal(crystal.name, unitcell, crystal.supercell_matrix))
        return relaxed

    def _harmonic(
        self, labeller: Labeller, crystals: Sequence[Crystal]
    ) -> dict[str, HarmonicModel]:
        displaced = {crystal.name: self.recipe.phonons.displaced(crystal) for crystal in crystals}
        jobs = [
            label_job(self.recipe.calculator, atoms, f"displacement {k} of {name}")
            for name, supercells in displaced.items()
            for k, atoms in enumerate(supercells)
        ]
        records = iter(labeller.run(jobs, "force constants"))
        models = {}
        for crystal in crystals:
            forces = []
            for record in islice(records, len(displaced[crystal.name])):
                if record.labels is None:
                    raise LabellingError(f"force constants of {crystal.name}: {record.error}")
                forces.append(record.labels[properties.forces])
            path = self.datapath.parent / "phonons" / self._phonons_name(crystal)
            model = self.recipe.phonons.model(crystal, np.array(forces), path)
            log.info(
                "%s: %d of %d modes imaginary, the lowest at %.2f THz; policy '%s' changed %d",
                crystal.name,
                model.n_imaginary,
                model.frequencies.size,
                model.frequencies.min(),
                model.instabilities.policy,
                model.n_changed,
            )
            models[crystal.name] = model
        return models

    def _phonons_name(self, crystal: Crystal) -> str:
        """Folder and file: one for each crystal, cell, calculator and displacement."""
        key = settings_hash(
            [
                crystal.unitcell.cell.array.round(6).tolist(),
                crystal.supercell_matrix,
                self.recipe.calculator.settings,
                float(self.recipe.phonons.distance),
            ]
        )
        return f"{crystal.name}-{key[:9]}/phonopy_params.yaml"

    def _labelled(
        self, labeller: Labeller, streams: dict[tuple[str, float], Iterator[Snapshot | None]]
    ) -> tuple[list[Snapshot], list[Labels], dict[str, int]]:
        """The first ``n_snapshots`` snapshots of each group that have labels."""
        found: dict[tuple[str, float], list[tuple[Snapshot, Labels]]] = {g: [] for g in streams}
        counts = {"n_failed": 0, "n_rejected": 0}
        wanted = self.recipe.ensemble.n_snapshots
        while missing := [group for group, rows in found.items() if len(rows) < wanted]:
            if counts["n_failed"] > self.max_failed_share * wanted * len(found):
                raise LabellingError(
                    f"{counts['n_failed']} snapshots failed for {wanted * len(found)} wanted ones, "
                    f"more than the share of {self.max_failed_share:g} that is allowed "
                    f"(data.max_failed_share); reasons are in {self.store.path}"
                )
            drawn = []
            for group in missing:
                snapshots, rejected = _accepted(streams[group], wanted - len(found[group]))
                counts["n_rejected"] += rejected
                drawn += [(group, snapshot) for snapshot in snapshots]
            jobs = [label_job(self.recipe.calculator, s.atoms, s.parent) for _, s in drawn]
            records = labeller.run(jobs, f"{self.recipe.ensemble.kind} ensemble")
            for (group, snapshot), record in zip(drawn, records, strict=True):
                if record.labels is None:
                    counts["n_failed"] += 1
                else:
                    found[group].append((snapshot, record.labels))
        labelled = [row for rows in found.values() for row in rows]
        return [snapshot for snapshot, _ in labelled], [labels for _, labels in labelled], counts


def _accepted(stream: Iterator[Snapshot | None], n: int) -> tuple[list[Snapshot], int]:
    """The next n accepted snapshots and how many were rejected on the way."""
    snapshots: list[Snapshot] = []
    rejected = 0
    while len(snapshots) < n:
        snapshot = next(stream)
        if snapshot is None:
            rejected += 1
            if rejected > 100 * n:
                raise ValueError(
                    f"{rejected} of {rejected + len(snapshots)} snapshots had two atoms too close: "
                    "the displacements are too large for this crystal; lower the temperature or "
                    "amplitude, or data.ensemble.min_distance"
                )
        else:
            snapshots.append(snapshot)
    return snapshots, rejected


def _summary(model: HarmonicModel | None) -> dict[str, Any]:
    if model is None:
        return {}
    return {
        "policy": model.instabilities.policy,
        "n_imaginary": model.n_imaginary,
        "n_changed": model.n_changed,
        "lowest_frequency": float(model.frequencies.min()),
    }


def _stop(executor: Executor) -> None:
    """Ends an executor at once where it can; labels in flight are lost, stored ones are not."""
    try:
        executor.shutdown(kill_workers=True)  # type: ignore[call-arg]
    except TypeError:
        executor.shutdown(wait=False, cancel_futures=True)
