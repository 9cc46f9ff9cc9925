"""Hydra callbacks: the report of a sweep, the objective of each run, checks before it starts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra_plugins.schnetpack_phonon_sweeper import other_labels
from omegaconf import DictConfig

from schnetpack_phonon.cli.generate import check_complete
from schnetpack_phonon.evaluation.runs import RECORD

log = logging.getLogger(__name__)


class SweepReport(Callback):
    """Compares all runs of a sweep when it ends: ``report`` in the sweep's folder.

    Args:
        reference: ensemble that the others are compared with.
    """

    def __init__(self, reference: str = "phonon"):
        self.reference = reference

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        # Models are loaded: not when Hydra starts.
        from schnetpack_phonon.common.files import Trust
        from schnetpack_phonon.evaluation.comparison.page import compare

        folder = Path(config.hydra.sweep.dir)
        try:
            ours = Trust(everything=True)  # the runs of this very process
            print(compare([folder], folder / "report", reference=self.reference, trust=ours))
        except Exception:  # the runs are safe, and spkphonon report can be called again
            log.exception("no report of %s", folder)


class RoundsReport(Callback):
    """Table and picture of the rounds of active learning: ``report`` in the sweep's folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from schnetpack_phonon.evaluation.active.report import rounds_report

        folder, wanted = Path(config.hydra.sweep.dir), config.callbacks.active.force_error
        try:
            print(rounds_report(folder, folder / "report", wanted))
        except Exception:  # the runs are safe
            log.exception("no report of %s", folder)


class SweepJob(Callback):
    """Checks the configuration of a run; gives sweepers such as Optuna's the objective of each.

    SchNetPack returns nothing from a training; the objective is the best value of what the
    checkpoint monitors, by default the validation loss, from the record of the run.
    """

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Ends the program if a mandatory value is missing, or runs would start their sweep again.

        Also if a run would be continued with labels of another calculator, or if its name is no
        text: Hydra reads nan, 1 and 2026_01 as numbers.

        Lightning starts the other processes of a run with the same command line, ``-m`` with it.
        """
        try:
            check_complete(config, "data", "callbacks")
        except ValueError as error:
            raise SystemExit(str(error)) from error
        if not isinstance(config.run.id, str):
            raise SystemExit(
                f"run.id is read as {config.run.id!r}, which is no text; expected a name for the "
                f"folder of the run: begin it with a letter, such as run.id=run_{config.run.id}"
            )
        folder = config.hydra.runtime.output_dir
        if differ := other_labels(Path(folder), config):
            raise SystemExit(
                f"{folder} was trained on labels of {differ[0]}, and these options are for "
                f"{differ[1]}: choose the same data/calculator to continue it (xTB: "
                "experiment=NAME_xtb), or another run.id or run.experiment for a new one"
            )
        if config.hydra.mode == RunMode.MULTIRUN and _starts_processes(config.trainer):
            # Hydra turns exceptions of callbacks into warnings.
            raise SystemExit(
                f"trainer.devices={config.trainer.devices} with -m: every process of a run would "
                "start the whole sweep again, in another folder. Set trainer.devices=1 (with a "
                "launcher runs go on at the same time), or start the runs one by one without -m"
            )

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return  # one run, and nobody asks
        if job_return.status == JobStatus.COMPLETED and job_return.return_value is None:
            try:
                job_return.return_value = json.loads(Path(RECORD).read_text())["best_score"]
            except (OSError, KeyError):
                log.info("no objective for a sweeper: no best_score in %s", Path(RECORD).absolute())


def _starts_processes(trainer: DictConfig) -> bool:
    """Whether Lightning starts the command again; spawned and forked processes do not."""
    if any(how in str(trainer.get("strategy", "auto")) for how in ("spawn", "fork", "notebook")):
        return False
    devices = trainer.get("devices", 1)
    if str(devices) in ("auto", "-1"):
        import torch  # not when Hydra starts

        return trainer.get("accelerator") != "cpu" and torch.cuda.device_count() > 1
    several = int(devices) > 1 if isinstance(devices, (int, str)) else len(devices) > 1
    return several or trainer.get("num_nodes", 1) > 1
