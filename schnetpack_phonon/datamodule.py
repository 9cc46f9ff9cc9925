"""SchNetPack data module that makes its own database when there is none."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import fasteners
import numpy as np
import torch
from schnetpack import properties as structure_keys
from schnetpack.data import AtomsDataModule

from schnetpack_phonon import properties
from schnetpack_phonon.calculators import LabellingCalculator, Labels
from schnetpack_phonon.database import check_settings, write_database
from schnetpack_phonon.ensembles import Ensemble, Snapshot
from schnetpack_phonon.labelling import (
    Labeller,
    LabellingError,
    LabelStore,
    label_job,
    relax_job,
    settings_hash,
)
from schnetpack_phonon.phonons import FiniteDisplacements, HarmonicModel
from schnetpack_phonon.structures import Antiperovskites, Crystal, StructureFile

log = logging.getLogger(__name__)


class EnsembleData(AtomsDataModule):
    """Displaced crystals with labels: structure -> phonons -> ensemble -> labels -> database.

    If there is no database at ``datapath``, :meth:`prepare_data` makes it. Labels are kept one
    by one in ``label_store``, so an interrupted build goes on where it stopped, and databases
    that share structures share labels. If there is one, it must have been made with the same
    settings. All else is the host's :class:`schnetpack.data.AtomsDataModule`.

    Args:
        datapath: the database, ``.db``; force constants go to a folder ``phonons`` beside it.
        structure: the crystals.
        phonons: how their force constants come about (for ensembles that need them).
        ensemble: the sampler.
        calculator: the code that labels.
        executor: makes the executor that runs it.
        label_store: file of finished labels.
        max_failed_share: largest share of calculations that may fail; each one that does is
            replaced by the next snapshot of its group.
        batch_size: (train) batch size.
        kwargs: of the host's data module.
    """

    def __init__(
        self,
        datapath: str,
        structure: Antiperovskites | StructureFile,
        phonons: FiniteDisplacements,
        ensemble: Ensemble,
        calculator: LabellingCalculator,
        executor: Callable[[], Executor],
        label_store: str,
        batch_size: int,
        max_failed_share: float = 0.1,
        **kwargs: Any,
    ):
        super().__init__(datapath=datapath, batch_size=batch_size, **kwargs)
        self.structure = structure
        self.phonons = phonons
        self.ensemble = ensemble
        self.calculator = calculator
        self.executor = executor
        self.label_store = label_store
        self.max_failed_share = max_failed_share

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
                        "supercell": [list(row) for row in crystal.supercell_matrix],
                    }
                    for crystal in self.structure.crystals
                },
            },
            "phonons": self.phonons.settings if self.ensemble.needs_phonons else None,
            "ensemble": self.ensemble.settings,
            "calculator": self.calculator.settings,
        }

    def prepare_data(self) -> None:
        """Makes the database if it is not there; checks its settings if it is.

        Raises:
            DatabaseError: if what is there is damaged, foreign or made with other settings.
            LabellingError: if labels cannot be computed; finished ones are kept.
        """
        if Path(self.datapath).exists():
            check_settings(self.datapath, self.settings)
            return
        for crystal in self.structure.crystals:
            self.calculator.check(crystal.supercell)
        Path(self.datapath).parent.mkdir(parents=True, exist_ok=True)
        lock = fasteners.InterProcessLock(f"{self.datapath}.lock")
        if not lock.acquire(blocking=False):
            log.info("another process is building %s: waiting for it", self.datapath)
            lock.acquire()
        try:
            if Path(self.datapath).exists():
                check_settings(self.datapath, self.settings)
            else:
                self._build()
        finally:
            lock.release()

    def _build(self) -> None:
        log.info("building %s", self.datapath)
        store = LabelStore(self.label_store)
        executor = self.executor()
        try:
            labeller = Labeller(executor, store, self.max_failed_share)
            crystals = self._relaxed(labeller)
            models = self._harmonic(labeller, crystals) if self.ensemble.needs_phonons else {}
            streams = {
                (crystal.name, parameter): self.ensemble.snapshots(
                    crystal.name, models.get(crystal.name, crystal.supercell), parameter
                )
                for crystal in crystals
                for parameter in self.ensemble.parameters
            }
            snapshots, labels, counts = self._labelled(labeller, streams)
        except BaseException as error:
            _stop(executor)
            if isinstance(error, KeyboardInterrupt):
                log.warning("interrupted; %d labels are in %s", len(store), store.path)
                log.warning("the same command goes on from there")
            raise
        executor.shutdown()
        settings = self.settings
        write_database(
            self.datapath,
            snapshots,
            labels,
            provenance={
                "code": self.calculator.code_version,
                "settings_hash": settings_hash(settings),
            },
            metadata={
                "settings": settings,
                "parameter_name": self.ensemble.parameter_name,
                "parameter_unit": self.ensemble.parameter_unit,
                "versions": {
                    "calculator": self.calculator.code_version,
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
        crystals = self.structure.crystals
        if not self.structure.relax:
            return crystals
        records = labeller.run([relax_job(self.calculator, c) for c in crystals], "lattice")
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
        displaced = {crystal.name: self.phonons.displaced(crystal) for crystal in crystals}
        jobs = [
            label_job(self.calculator, atoms, f"displacement {k} of {name}")
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
            path = Path(self.datapath).parent / "phonons" / self._phonons_name(crystal)
            model = self.phonons.model(crystal, np.array(forces), path)
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
                self.calculator.settings,
                self.phonons.settings,
            ]
        )
        return f"{crystal.name}-{key[:9]}/phonopy_params.yaml"

    def _labelled(
        self, labeller: Labeller, streams: dict[tuple[str, float], Iterator[Snapshot | None]]
    ) -> tuple[list[Snapshot], list[Labels], dict[str, int]]:
        """The first ``n_snapshots`` snapshots of each group that have labels."""
        found: dict[tuple[str, float], list[tuple[Snapshot, Labels]]] = {g: [] for g in streams}
        counts = {"n_failed": 0, "n_rejected": 0}
        wanted = self.ensemble.n_snapshots
        while missing := [group for group, rows in found.items() if len(rows) < wanted]:
            if counts["n_failed"] > self.max_failed_share * wanted * len(found):
                raise LabellingError(
                    f"{counts['n_failed']} snapshots failed for {wanted * len(found)} wanted ones, "
                    f"more than the share of {self.max_failed_share:g} that is allowed "
                    f"(data.max_failed_share); reasons are in {self.label_store}"
                )
            drawn = []
            for group in missing:
                snapshots, rejected = _accepted(streams[group], wanted - len(found[group]))
                counts["n_rejected"] += rejected
                drawn += [(group, snapshot) for snapshot in snapshots]
            jobs = [label_job(self.calculator, s.atoms, s.parent) for _, s in drawn]
            records = labeller.run(jobs, f"{self.ensemble.kind} ensemble")
            for (group, snapshot), record in zip(drawn, records, strict=True):
                if record.labels is None:
                    counts["n_failed"] += 1
                else:
                    found[group].append((snapshot, record.labels))
        labelled = [row for rows in found.values() for row in rows]
        return [snapshot for snapshot, _ in labelled], [labels for _, labels in labelled], counts

    def _load_partitions(self) -> None:
        # A split by parent may be smaller than asked for; the host compares a stored split with
        # the sizes that were asked for and refuses to go on with its own run.
        if self.split_file is not None and os.path.exists(self.split_file):
            with np.load(self.split_file) as split:
                sizes = [len(split[f"{part}_idx"]) for part in ("train", "val", "test")]
            if sum(sizes) > len(self.dataset):
                raise ValueError(
                    f"{Path(self.split_file).absolute()} splits {sum(sizes)} structures, the "
                    f"database has {len(self.dataset)}: it belongs to another database; use "
                    "another run folder"
                )
            self.num_train, self.num_val, self.num_test = sizes
        super()._load_partitions()


def composition_fit(datamodule: AtomsDataModule, key: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares fit of an intensive property to the composition of the training set.

    The solution of smallest norm is taken, since a fixed stoichiometry leaves it undetermined.
    Missing labels (NaN) are left out.

    Args:
        datamodule: any data module of the host, after its ``setup``.
        key: scalar property.

    Returns:
        Offset of each element, shape=(101,), and the standard deviation of what the fit leaves,
        shape=(1,); both float64, in the data module's unit.

    Raises:
        ValueError: if the property is not in the database or has no label.
    """
    fits = datamodule.__dict__.setdefault("_composition_fits", {})
    if key not in fits:
        dataset = datamodule.dataset
        if key not in dataset.available_properties:
            raise ValueError(
                f"no property {key!r} in {dataset.datapath}; there are "
                f"{', '.join(dataset.available_properties)}"
            )
        labels, shares = [], []
        for item in dataset.iter_properties(datamodule.train_idx, load_properties=[key]):
            labels.append(item[key].double().reshape(()))
            count = torch.bincount(item[structure_keys.Z], minlength=101)
            shares.append(count.double() / count.sum())
        label, share = torch.stack(labels), torch.stack(shares)
        present = label.isfinite()
        if not present.any():
            raise ValueError(f"no training structure in {dataset.datapath} has a label {key!r}")
        label, share = label[present], share[present]
        offset = torch.linalg.lstsq(share, label[:, None], driver="gelsd").solution[:, 0]
        spread = (label - share @ offset).pow(2).mean().sqrt()
        fits[key] = offset, spread.clamp(min=1e-12).reshape(1)
    return fits[key]


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
