"""Sweeps that leave out what is finished.

Hydra imports this module in every Hydra application of the environment, so it uses nothing but
the standard library and Hydra.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

log = logging.getLogger(__name__)


def other_labels(folder: Path, config: DictConfig) -> tuple[str, str] | None:
    """Kinds of the calculators of a run's labels before and now, if they differ."""
    before = folder / "config.yaml"
    if not before.is_file():
        return None
    both = OmegaConf.load(before), config
    old, new = (str(OmegaConf.select(c, "data.calculator._target_")) for c in both)
    return (old.rpartition(".")[2], new.rpartition(".")[2]) if old != new else None


class UnfinishedSweeper(BasicSweeper):
    """Hydra's own sweeper for runs whose folder tells what they are.

    Runs that ended with a trained model in their folder are left out, so that the same command
    finishes a sweep that was interrupted, with any launcher.
    """

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        batch = super().get_job_batch()
        left = [overrides for overrides in batch if not self._is_finished(overrides)]
        if len(left) < len(batch):
            log.info("%d of %d runs are finished", len(batch) - len(left), len(batch))
        return left

    def _is_finished(self, overrides: Sequence[str]) -> bool:
        with self._job(overrides) as (config, folder):
            # The host keeps its best model so far under model_path; this comes at the very end.
            finished = (folder / f"{config.globals.model_path}.task").is_file()
            return finished and not other_labels(folder, config)

    @contextmanager
    def _job(self, overrides: Sequence[str]) -> Iterator[tuple[DictConfig, Path]]:
        """Configuration and folder of a run."""
        assert self.hydra_context is not None
        assert self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = 0
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        try:
            yield config, Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)
        finally:
            HydraConfig.instance().cfg = before


class RoundsSweeper(UnfinishedSweeper):
    """One round after the other, each built on those before, until there is nothing more to do.

    That is when the forces are good enough, or the next round would add more labels than the
    budget has left, as the last finished round has left it in its folder. So the same command goes
    on with what was interrupted, and with another budget.
    """

    def is_done(self) -> bool:
        if super().is_done() or self.batch_index == 0:
            return bool(super().is_done())
        assert self.overrides is not None
        with self._job(self.overrides[self.batch_index - 1][0]) as (config, folder):
            record = json.loads((folder / "active.json").read_text())
            budget = config.data.ensemble.budget
            wanted = config.callbacks.active.force_error
        round_, n_labels, error = (record[key] for key in ("round", "n_labels", "relative"))
        if error is not None and error <= wanted:
            why = f"forces are off by {100 * error:.3g} %; {100 * wanted:.3g} % is asked for"
        elif (after := n_labels + record["n_each"]) > budget:
            why = f"{n_labels} labels; another round would make it {after}, the budget is {budget}"
        else:
            return False
        log.info("round %d is the last: %s", round_, why)
        return True
