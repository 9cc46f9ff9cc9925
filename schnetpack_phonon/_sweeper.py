"""Sweeps that leave out what is finished.

Hydra imports this module in every Hydra application of the environment, so it uses nothing but
the standard library and Hydra.
"""

import logging
from collections.abc import Sequence
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
        assert self.hydra_context is not None
        assert self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = 0
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        try:
            folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)
            # The host keeps its best model so far under model_path; this comes at the very end.
            finished = (folder / f"{config.globals.model_path}.task").is_file()
            return finished and not other_labels(folder, config)
        finally:
            HydraConfig.instance().cfg = before
