"""Progress of long computations: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import ExitStack
from datetime import timedelta

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger(__name__)

_LOG_INTERVAL = 30.0  # seconds between progress lines where there is no terminal
_FIRST_LINE = 5.0  # seconds until the first one, which tells how long all will take


def duration(seconds: float) -> str:
    """As 0:00:05 or 2 days, 3:10:00."""
    return str(timedelta(seconds=round(seconds)))


def rate(number: int, seconds: float) -> str:
    """Per second, minute or hour: the first in which it is at least one."""
    units = {1: "second", 60: "minute", 3600: "hour"}
    factor = next((factor for factor in units if number * factor >= seconds), 3600)
    return f"{number * factor / seconds:.3g} per {units[factor]}"


class Progress:
    """A bar on a terminal, or a line every half minute in a log file.

    Args:
        description: of the computation.
        total: number of jobs.
        done: how many of them are in the label store already.
        unit: name of a job, for the bar.
    """

    def __init__(self, description: str, total: int, done: int = 0, unit: str = "labels"):
        self._description, self._total, self._unit = description, total, unit
        self._initial = self._done = done
        self._failed: int | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        self._start = self._logged = time.monotonic()
        if self._initial:
            counts = self._initial, self._total
            log.info("%s: %d of %d are in the label store", self._description, *counts)
        self._terminal = sys.stderr.isatty() and self._initial < self._total
        self._bar = tqdm(
            desc=self._description,
            total=self._total,
            initial=self._initial,
            unit=f" {self._unit}",
            disable=not self._terminal,
        )
        self._stack.enter_context(self._bar)
        if self._terminal:  # messages go above the bar
            self._stack.enter_context(logging_redirect_tqdm())
        return self

    def update(self, number: int = 1, failed: int | None = None) -> None:
        """Counts further finished jobs; ``failed`` is the total, None if jobs cannot fail."""
        self._done += number
        if failed and failed != self._failed:
            self._bar.set_postfix(failed=failed, refresh=False)
        self._failed = failed
        self._bar.update(number)
        first = self._logged == self._start
        due = time.monotonic() - self._logged > (
            min(_FIRST_LINE, _LOG_INTERVAL) if first else _LOG_INTERVAL
        )
        if due and not self._terminal and self._done < self._total:  # the last line is that at exit
            self._logged = time.monotonic()
            self._log()

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._done > self._initial:
            self._log()

    def _log(self) -> None:
        seconds = time.monotonic() - self._start
        done, left = self._done - self._initial, self._total - self._done
        log.info(
            "%s: %d of %d, %s, %s%s",
            self._description,
            self._done,
            self._total,
            rate(done, seconds),
            f"{duration(left * seconds / done)} left" if left else f"took {duration(seconds)}",
            "" if self._failed is None else f", {self._failed} failed",
        )
