"""Progress of long computations: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import ExitStack
from datetime import timedelta

from tqdm import tqdm

from schnetpack_phonon.common.terminal.console import above_bars, quiet

log = logging.getLogger(__name__)

_LOG_INTERVAL = 30.0  # seconds between progress lines where there is no terminal
_FIRST_LINE = 5.0  # seconds until the first one, which tells how long all will take
_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt} of {total_fmt}{unit} [{elapsed}, {remaining} left"
    "{postfix}]"
)


def duration(seconds: float) -> str:
    """As 0:00:05 or 2 days, 3:10:00."""
    return str(timedelta(seconds=round(seconds)))


def rate(number: int, seconds: float) -> str:
    """Per second, minute or hour: the first in which it is at least one."""
    units = {1: "second", 60: "minute", 3600: "hour"}
    factor = next((factor for factor in units if number * factor >= seconds), 3600)
    return f"{number * factor / seconds:.3g} per {units[factor]}"


class Progress:
    """A bar on a terminal, or a line every half minute in a log file; one line when it ends.

    Args:
        description: of the computation.
        total: number of jobs.
        done: how many of them were finished before.
        unit: name of the jobs.
    """

    def __init__(self, description: str, total: int, done: int = 0, unit: str = "jobs"):
        self._description, self._total, self._unit = description, total, unit
        self._initial = self._done = done
        self._note = ""
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        self._start = self._logged = time.monotonic()
        self._terminal = sys.stderr.isatty() and self._initial < self._total
        self._bar = tqdm(
            desc=self._description,
            total=self._total,
            initial=self._initial,
            unit=f" {self._unit}",
            bar_format=_BAR,
            dynamic_ncols=True,
            leave=False,
            disable=not self._terminal or quiet(),
        )
        self._stack.enter_context(self._bar)
        if self._terminal:
            self._stack.enter_context(above_bars())
        return self

    def update(self, number: int = 1, note: str = "") -> None:
        """Counts further finished jobs; a note is shown until the next one."""
        self._done += number
        if note and note != self._note:
            self._note = note
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(number)
        first = self._logged == self._start
        due = time.monotonic() - self._logged > (
            min(_FIRST_LINE, _LOG_INTERVAL) if first else _LOG_INTERVAL
        )
        if due and not self._terminal and self._done < self._total:  # the last line is that at exit
            self._logged = time.monotonic()
            self._log()

    def finish(self, note: str) -> None:
        """No more jobs will come."""
        self._total, self._note = self._done, note

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._done > self._initial:
            self._log()

    def _log(self) -> None:
        seconds = time.monotonic() - self._start
        done, left = self._done - self._initial, self._total - self._done
        log.info(
            "%s: %d of %d %s, %s, %s%s",
            self._description,
            self._done,
            self._total,
            self._unit,
            rate(done, seconds),
            f"{duration(left * seconds / done)} left" if left > 0 else f"took {duration(seconds)}",
            self._note and f", {self._note}",
            extra={"progress": True},
        )
