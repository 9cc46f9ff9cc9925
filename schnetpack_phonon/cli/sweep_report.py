"""The report at the end of a sweep."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

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
