"""Numbers of labels that were found, computed and failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from schnetpack_phonon.common.progress import duration, rate


@dataclass
class Tally:
    """Numbers of stored, computed and failed jobs of a labeller.

    Attributes:
        keys: of all jobs.
        n_stored: number of jobs in the store, including those of other processes.
        n_computed: number of computed jobs, successful or not.
        failed: key -> reason.
        seconds: duration.
        worker_seconds: sum of the durations of all calculations.
    """

    keys: set[str] = field(default_factory=set)
    n_stored: int = 0
    n_computed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    worker_seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{len(self.keys)} calculations: {self.n_stored} in the store"
        if self.n_computed:
            text += (
                f", {self.n_computed} computed in {duration(self.seconds)} "
                f"({rate(self.n_computed, self.seconds)}; "
                f"{self.worker_seconds / 3600:.3g} worker-hours)"
            )
        text += f", {len(self.failed)} failed"
        if left := len(self.keys) - self.n_stored - self.n_computed:
            text += f", {left} not done"
        return text + "".join(f"\n    {reason}" for reason in reasons(self.failed.values()))


def reasons(errors: Iterable[str], n_most: int = 3) -> list[str]:
    """The most frequent reasons, with their numbers."""
    return [f"{count} x {error}" for error, count in Counter(errors).most_common(n_most)]
