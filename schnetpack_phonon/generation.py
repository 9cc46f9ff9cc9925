"""Structure -> force constants -> ensemble -> labels -> database, resumable at every step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fasteners
from ase import Atoms

from schnetpack_phonon.alloys import vegard
from schnetpack_phonon.calculators import LabellingCalculator, Labels
from schnetpack_phonon.database import check_settings, write_database
from schnetpack_phonon.force_constants import Models, PhononSource, save_phonopy
from schnetpack_phonon.label_store import LabellingError, LabelStore
from schnetpack_phonon.labelling import Labeller, label_job, relax_job, settings_hash
from schnetpack_phonon.phonons import HarmonicModel
from schnetpack_phonon.preview import write_preview
from schnetpack_phonon.relaxation import unrelaxed
from schnetpack_phonon.snapshots import Ensemble, Snapshot, accepted, snapshot_groups
from schnetpack_phonon.structures import Crystal, StructureSource

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

    structure: StructureSource
    phonons: PhononSource
    ensemble: Ensemble
    calculator: LabellingCalculator

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes the database, as plain values."""
        return {
            "structure": {
                "relax": self.structure.relax,
                "crystals": {c.name: _plain(c) for c in self.structure.crystals},
            },
            "phonons": self.phonons.settings if self.ensemble.temperatures else None,
            "ensemble": self.ensemble.settings,
            "calculator": self.calculator.settings,
        }


def ensure_database(
    recipe: Recipe,
    datapath: str | Path,
    executor: Callable[[], Executor],
    label_store: str | Path,
    max_failed_share: float,
    shipped_labels: str | Path | None = None,
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
        shipped_labels: a second store, read and never written.

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
            store = LabelStore(label_store, shipped_labels)
            _Generation(recipe, datapath, store, max_failed_share).run(executor)
    finally:
        lock.release()


def preview_ensemble(
    recipe: Recipe,
    datapath: str | Path,
    executor: Callable[[], Executor],
    label_store: str | Path,
    max_failed_share: float,
    shipped_labels: str | Path | None = None,
) -> str:
    """Describes the ensemble in a folder beside the database, and labels none of its snapshots.

    Lattice and force constants are calculated if they are not in the label store yet.

    Args:
        recipe: of the database.
        datapath: the database; the folder is called after it.
        executor: as for :func:`ensure_database`.
        label_store: file of finished labels.
        max_failed_share: as for :func:`ensure_database`.
        shipped_labels: as for :func:`ensure_database`.

    Returns:
        The text of ``preview.md``.
    """
    datapath = Path(datapath)
    for crystal in recipe.structure.crystals:
        recipe.calculator.check(crystal.supercell)
    store = LabelStore(label_store, shipped_labels)
    generation = _Generation(recipe, datapath, store, max_failed_share)
    with _running(executor, store) as pool:
        labeller = Labeller(pool, store, max_failed_share)
        crystals, models = generation.prepared(labeller)
    folder = datapath.with_name(f"{datapath.stem}_preview")
    text = write_preview(folder, recipe.ensemble, crystals, models)
    log.info("preview: %s", folder / "preview.md")
    return text


class _Generation:
    """One build of one database."""

    def __init__(self, recipe: Recipe, datapath: Path, store: LabelStore, max_failed_share: float):
        self.recipe = recipe
        self.datapath = datapath
        self.store = store
        self.max_failed_share = max_failed_share

    def run(self, make_executor: Callable[[], Executor]) -> None:
        log.info("building %s", self.datapath)
        ensemble, calculator = self.recipe.ensemble, self.recipe.calculator
        with _running(make_executor, self.store) as executor:
            labeller = Labeller(executor, self.store, self.max_failed_share)
            crystals, models = self.prepared(labeller)
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

    def prepared(self, labeller: Labeller) -> tuple[list[Crystal], Models]:
        """Relaxed crystals and, where the ensemble needs them, their harmonic models."""
        crystals = self._relaxed(labeller)
        self._warn_of_unrelaxed(labeller, crystals)
        for crystal in crystals:
            log.info("%s: space group %s", crystal.name, crystal.space_group)
        temperatures = self.recipe.ensemble.temperatures
        if not temperatures:
            return crystals, {}

        def label(what: str, jobs: Sequence[tuple[str, Atoms]]) -> list[Labels | None]:
            calculator = self.recipe.calculator
            records = labeller.run([label_job(calculator, a, text) for text, a in jobs], what)
            return [record.labels for record in records]

        models = self.recipe.phonons.models(crystals, temperatures, label)
        self._report(crystals, models)
        return crystals, models

    def _report(self, crystals: Sequence[Crystal], models: Models) -> None:
        """Logs what the modes are like and keeps the force constants for phonopy."""
        for crystal in crystals:
            # One model may serve all temperatures.
            own = {
                id(model): (t, model) for (name, t), model in models.items() if name == crystal.name
            }
            for temperature, model in own.values():
                log.info(
                    "%s: %d of %d modes imaginary, the lowest at %.2f THz; %s, %d changed",
                    crystal.name,
                    model.n_imaginary,
                    model.frequencies.size,
                    model.frequencies.min(),
                    model.policy,
                    model.n_changed,
                )
                key = settings_hash([_plain(crystal), *self._phonon_settings()])[:9]
                suffix = f"-{temperature:g}K" if len(own) > 1 or model.renormalization else ""
                folder = self.datapath.parent / "phonons" / f"{crystal.name}-{key}{suffix}"
                save_phonopy(crystal, model.force_constants, folder / "phonopy_params.yaml")

    def _phonon_settings(self) -> list[dict[str, Any]]:
        return [self.recipe.phonons.settings, self.recipe.calculator.settings]

    def _warn_of_unrelaxed(self, labeller: Labeller, crystals: Sequence[Crystal]) -> None:
        """Looks at forces and stress of crystals that were not relaxed with the calculator."""
        given = [] if self.recipe.structure.relax else [c for c in crystals if not c.end_members]
        cells = [crystal.supercell for crystal in given]
        jobs = [label_job(self.recipe.calculator, atoms, "ideal crystal") for atoms in cells]
        try:
            records = labeller.run(jobs, "ideal crystals")
        except LabellingError as error:
            log.warning("cannot tell whether the crystals are relaxed: %s", error)
            return
        for crystal, record in zip(given, records, strict=True):
            warning = record.labels and unrelaxed(record.labels)
            if warning:
                log.warning("%s: %s", crystal.name, warning)

    def _relaxed(self, labeller: Labeller) -> list[Crystal]:
        crystals = self.recipe.structure.crystals
        if not self.recipe.structure.relax:
            return crystals
        pure = end_members(crystals)
        records = labeller.run([relax_job(self.recipe.calculator, c) for c in pure], "lattice")
        relaxed = {}
        for crystal, record in zip(pure, records, strict=True):
            if record.labels is None:
                raise LabellingError(f"relaxation of {crystal.name} failed: {record.error}")
            unitcell = crystal.unitcell.copy()
            unitcell.set_cell(record.labels["cell"])
            unitcell.positions = record.labels["positions"]
            log.info("%s: cell lengths %s Ang", crystal.name, unitcell.cell.lengths().round(3))
            relaxed[crystal.name] = replace(crystal, unitcell=unitcell)
        return [relaxed.get(c.name) or vegard(c, relaxed) for c in crystals]

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
            jobs = [label_job(self.recipe.calculator, s.atoms, describe(s)) for _, s in drawn]
            records = labeller.run(jobs, f"{self.recipe.ensemble.settings['kind']} ensemble")
            for (rows, snapshot), record in zip(drawn, records, strict=True):
                if record.labels is None:
                    counts["n_failed"] += 1
                else:
                    rows.append((snapshot, record.labels))
            if counts["n_failed"] > self.max_failed_share * wanted:
                raise LabellingError(
                    f"{counts['n_failed']} snapshots failed for {wanted} wanted ones, "
                    f"more than the share of {self.max_failed_share:g} that is allowed "
                    f"(data.max_failed_share); reasons are in {self.store.path}"
                )
        labelled = [row for rows in found for row in rows]
        return [snapshot for snapshot, _ in labelled], [labels for _, labels in labelled], counts


def end_members(crystals: Sequence[Crystal]) -> list[Crystal]:
    """The crystals that can be relaxed under their own symmetry, each once."""
    found = {c.name: c for mix in crystals for c, _ in mix.end_members or ((mix, 1.0),)}
    return list(found.values())


def describe(snapshot: Snapshot) -> str:
    parameter = f"{snapshot.parameter_name} {snapshot.parameter:g}"
    return f"{snapshot.structure}, {snapshot.kind}, {parameter}, snapshot {snapshot.index}"


def _plain(crystal: Crystal) -> dict[str, Any]:
    """A crystal as plain values."""
    plain: dict[str, Any] = {
        "formula": str(crystal.unitcell.symbols),
        "cell": crystal.unitcell.cell.array.round(6).tolist(),
        "positions": crystal.unitcell.positions.round(6).tolist(),
        "supercell": [list(row) for row in crystal.supercell_matrix],
    }
    if crystal.end_members:
        plain["end_members"] = {c.name: [_plain(c), w] for c, w in crystal.end_members}
        plain["own_force_constants"] = crystal.own_force_constants
    return plain


def _summary(model: HarmonicModel) -> dict[str, Any]:
    return {
        "policy": model.policy,
        "n_imaginary": model.n_imaginary,
        "n_changed": model.n_changed,
        "lowest_frequency": float(model.frequencies.min()),
        "steps": list(model.renormalization.steps) if model.renormalization else [],
    }


@contextmanager
def _running(make_executor: Callable[[], Executor], store: LabelStore) -> Iterator[Executor]:
    """An executor that is ended at once on errors; labels in flight are lost, stored ones not."""
    executor = make_executor()
    try:
        yield executor
    except BaseException as error:
        _stop(executor)
        if isinstance(error, KeyboardInterrupt):
            log.warning("interrupted; %d labels are in %s", len(store), store.path)
            log.warning("the same command goes on from there")
        raise
    executor.shutdown()


def _stop(executor: Executor) -> None:
    try:
        executor.shutdown(kill_workers=True)  # type: ignore[call-arg]
    except TypeError:
        executor.shutdown(wait=False, cancel_futures=True)
