"""Lightning callbacks: CPU threads, bond attribution of the test set, report of a run."""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import loky
import torch
from ase import Atoms
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from schnetpack.data import AtomsDataModule, AtomsLoader
from schnetpack.task import AtomisticTask

from schnetpack_phonon.attribution import report
from schnetpack_phonon.attribution.results import FIGURES
from schnetpack_phonon.common.errors import AttributionError, DatabaseError
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.properties import (
    DISTANCE,
    DISTANCE_UNIT,
    PROPERTIES,
    band_gap,
    unit_factor,
)
from schnetpack_phonon.common.style import save_figure
from schnetpack_phonon.data.card import at_rest, content_digest, distribution
from schnetpack_phonon.data.database import read_metadata
from schnetpack_phonon.data.reading import (
    Structure,
    read_labels,
    read_provenance,
    read_structures,
)
from schnetpack_phonon.evaluation.metrics import errors, in_report_units
from schnetpack_phonon.evaluation.predictions import predict, stored_labels
from schnetpack_phonon.evaluation.run_report import (
    METRICS,
    PREDICTIONS,
    parity,
    tell,
    write_report,
)
from schnetpack_phonon.evaluation.runs import write_record
from schnetpack_phonon.models.trained.units import units_of_data
from schnetpack_phonon.structures.files import read_structure

log = logging.getLogger(__name__)
# Columns, whatever rows call theirs:
_OURS = ["index", "property", "atom", "component", "label", "prediction", "unit"]


class CPUThreads(Callback):
    """Sets the number of CPU threads of PyTorch, unless OMP_NUM_THREADS does.

    Small graphs gain little from threads (40 atoms, 10 structures in a batch: 1.15 times faster
    with two), and lose much where there is a thread for each core and another job runs (6 times
    slower).

    Args:
        n_threads: half of the usable cores by default.
    """

    def __init__(self, n_threads: int | None = None):
        self.n_threads = n_threads or max(loky.cpu_count() // 2, 1)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(self.n_threads)


class BondAttributionCallback(Callback):
    """Writes which bonds carry the change of a property in the test set, with untrained control.

    Changes neither weights nor metrics. A failure is logged and does not affect the run. With DDP
    each process attributes a part of the structures.

    Args:
        property: scalar output of the model, or a component of a tensor: ``stress[0,0]``.
        n_steps: quadrature nodes.
        max_structures: largest number of test structures; the first ones are taken.
        control_seed: of the weights of the untrained control, null for none.
        kind: ``displacement`` or ``mask``.
        method: see :func:`.attribute`.
        ideal: the undisplaced crystal of all structures, or a file of it, the same atoms in the
            same order; rows with ``ideal_positions`` need none.
        folder: of the files, made if it is not there.
        work_dir: where a relative path of ``ideal`` starts.

    Raises:
        ValueError: if there is no such file, or it cannot be read.
    """

    def __init__(
        self,
        property: str = band_gap,
        n_steps: int = 8,
        max_structures: int = 200,
        control_seed: int | None = 0,
        kind: str = "displacement",
        method: str = "IntegratedGradients",
        ideal: Atoms | str | Path | None = None,
        folder: str | Path = ".",
        work_dir: str = ".",
    ):
        self.settings = report.Settings(property, kind, method, n_steps, control_seed=control_seed)
        self.max_structures = max_structures
        known = ideal is None or isinstance(ideal, Atoms)
        self.ideal = ideal if known else read_structure(Path(work_dir, str(ideal)))
        self.folder = Path(folder)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises AttributionError, before training, for models with lengths in another unit."""
        unit = trainer.datamodule.dataset.distance_unit
        if unit_factor(DISTANCE, unit, trainer.datamodule.datapath) != 1:
            raise AttributionError(
                f"lengths of the model are in {unit}; bonds are attributed in {DISTANCE_UNIT}: set "
                f"data.distance_unit={DISTANCE_UNIT}, and cutoffs accordingly, or leave out "
                "callbacks.bond_attribution"
            )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A trained model must not be lost because a figure failed, and no process may wait for one
        # that failed.
        parts, model, settings = self.folder / ".bond_attribution", pl_module.model, self.settings
        rank, n_ranks = trainer.global_rank, trainer.world_size
        structures: list[Structure] = []
        try:
            report.clear_part(parts, rank)
            data: AtomsDataModule = trainer.datamodule
            index = list(data.test_idx[: self.max_structures])
            structures = read_structures(data.datapath, index, self.ideal)
            units = units_of_data(data, pl_module.outputs)
            settings = report.in_the_unit_of(model, self.settings, given=units)
            tables = report.measure(model, structures[rank::n_ranks], settings)
            report.write_part(parts, rank, tables)
        except AttributionError as error:
            log.error("no bond attribution; the run is not affected: %s", error)
        except Exception:
            log.exception("bond attribution failed; training and test results are not affected")
        trainer.strategy.barrier("bond_attribution")
        if rank == 0:
            try:
                tables = report.merge_parts(parts, n_ranks)
                save = partial(_save, trainer, self.folder)
                report.write(self.folder, tables, structures, model, settings, save)
            except FileNotFoundError:
                log.error("no bond attribution is written: a process left no results")
            except Exception:
                log.exception("bond attribution is not written; the run is not affected")


class ReportCallback(Callback):
    """Writes predictions, errors, figures and a short page about the test set; prints a summary.

    Databases of other programs need no provenance: crystals are called by their formulas. Must be
    the last callback: the page lists the files of the other callbacks, too.

    Args:
        model_path: where SchNetPack stores the trained model, relative to ``folder``.
        distribution: property whose distribution over the whole ensemble is shown.
        folder: of the files, made if it is not there.
    """

    def __init__(
        self,
        model_path: str = "best_model",
        distribution: str = band_gap,
        folder: str | Path = ".",
    ):
        self.model_path = model_path
        self.distribution = distribution
        self.folder = Path(folder)
        self._made = time.monotonic()
        self._seconds = self._start = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.monotonic() - self._seconds

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seconds = time.monotonic() - self._start

    def state_dict(self) -> dict[str, float]:
        """Training time in s so far, for a run that is continued."""
        return {"seconds": time.monotonic() - self._start}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._seconds = state_dict["seconds"]

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: AtomisticTask) -> None:
        data: AtomsDataModule = trainer.datamodule
        provenance = read_provenance(data.datapath).drop(columns=_OURS, errors="ignore")
        targets = {
            output.name: output.target_property
            for output in pl_module.outputs
            if output.target_property in PROPERTIES
        }
        self._record(trainer, data, targets)
        if not targets:
            names = ", ".join(output.name for output in pl_module.outputs)
            log.warning("no report: schnetpack_phonon knows none of the labels of %s", names)
            return
        predictions = predict(pl_module.model, _whole_test_set(data), targets)
        units = {
            k: unit_factor(t, data.dataset.units[t], data.datapath) for k, t in targets.items()
        }
        for column in ("label", "prediction"):
            predictions[column] *= predictions["property"].map(units)
        predictions = predictions.join(provenance, on="index")
        known = read_labels(data.datapath)
        training = stored_labels(data.datapath, [*data.train_idx], targets)
        training = training.join(provenance, on="index")
        columns = ["mae", "rmse", "mae_mean", "mae_crystal_mean"]
        table = in_report_units(errors(predictions, training), columns)
        predictions = in_report_units(predictions, ["label", "prediction"])
        for name, found in ((METRICS, table.reset_index()), (PREDICTIONS, predictions)):
            with replacing(self.folder / name) as part:
                found.to_csv(part, index=False)
        _save(trainer, self.folder, parity(predictions, table), "parity")
        metadata = _metadata(data.datapath)
        if self.distribution in known and metadata:
            ensemble = provenance.assign(
                property=self.distribution, label=known[self.distribution]
            ).reset_index()
            rest = at_rest(metadata, self.distribution)
            for kind, own in in_report_units(ensemble, ["label"]).groupby("kind"):
                parameter, unit = metadata["parameters"][str(kind)]
                figure = distribution(own, parameter, unit, self.distribution, rest)
                suffix = "" if ensemble["kind"].nunique() == 1 else f"_{kind}"
                _save(trainer, self.folder, figure, f"{self.distribution}_distribution{suffix}")
        folder = self.folder.absolute()
        write_report(folder, data.datapath, self.model_path)
        tell(folder, data.datapath, time.monotonic() - self._made, self._seconds)

    def _record(self, trainer: Trainer, data: AtomsDataModule, targets: dict[str, str]) -> None:
        seed = os.environ.get("PL_GLOBAL_SEED")
        packages = ("schnetpack_phonon", "schnetpack", "torch")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_record(
            self.folder.absolute(),
            {
                "datapath": str(Path(data.datapath).resolve()),
                "content": content_digest(data.datapath),
                "targets": targets,
                "seed": int(seed) if seed else None,
                "n_train": len(data.train_idx),
                "n_val": len(data.val_idx),
                "n_test": len(data.test_idx),
                "steps": trainer.global_step,
                "epochs": trainer.current_epoch,
                **_best(trainer),
                "train_seconds": round(self._seconds, 1),
                "device": str(trainer.strategy.root_device),
                "n_devices": trainer.num_devices * trainer.num_nodes,
                "threads": torch.get_num_threads(),
                "versions": {name: version(name) for name in packages},
            },
        )


def _whole_test_set(data: AtomsDataModule) -> AtomsLoader:
    """Batches of all test structures, where the loader of the module has a part for a process."""
    part = data.test_dataloader()
    return AtomsLoader(part.dataset, batch_size=part.batch_size, collate_fn=part.collate_fn)


def _best(trainer: Trainer) -> dict[str, float | str | None]:
    """What the checkpoint monitors, and its best value."""
    checkpoint = trainer.checkpoint_callback
    if not isinstance(checkpoint, ModelCheckpoint) or checkpoint.best_model_score is None:
        return {}
    return {"monitor": checkpoint.monitor, "best_score": float(checkpoint.best_model_score)}


def _metadata(path: str) -> dict[str, Any]:
    """Ours of a database; none for one of another program."""
    try:
        return read_metadata(path)
    except DatabaseError:
        return {}


def _save(trainer: Trainer, folder: Path, figure: Figure, name: str) -> None:
    """Stores a figure as PNG in a folder, and in TensorBoard if that is used."""
    save_figure(figure, folder / FIGURES / f"{name}.png")
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(name, figure, trainer.global_step)
