"""What one reads of a run, on a terminal and in a log file."""

import io
import logging
import re
import sys

import pytest

from schnetpack_phonon.common import progress
from schnetpack_phonon.common.progress import Progress, duration, rate


@pytest.mark.parametrize(
    ("number", "seconds", "text"),
    [
        (120, 60, "2 per second"),
        (1, 60, "1 per minute"),
        (59, 60, "59 per minute"),
        (3, 7200, "1.5 per hour"),
        (1, 36000, "0.1 per hour"),
    ],
)
def test_rate(number, seconds, text):
    """DFT takes an hour where tight binding takes a second."""
    assert rate(number, seconds) == text


def test_duration():
    assert duration(59.7) == "0:01:00"
    assert duration(90061) == "1 day, 1:01:01"


def run(failed=(0, 0, 1, 1)) -> None:
    with Progress("phonon ensemble", total=6, done=2) as shown:
        for number in failed:
            if number:
                logging.getLogger("a calculation").warning("it failed")
            shown.update(note=f"{number} failed" if number else "")


def test_log_file(caplog, monkeypatch):
    """Lines in between and at the end, of what was done now."""
    monkeypatch.setattr(progress, "_LOG_INTERVAL", 0.0)
    caplog.set_level("INFO")
    run()
    lines = [r.getMessage() for r in caplog.records if r.name == progress.__name__]
    assert re.fullmatch(r"phonon ensemble: 3 of 6 jobs, \S+ per second, 0:00:0\d left", lines[0])
    assert re.fullmatch(
        r"phonon ensemble: 6 of 6 jobs, \S+ per second, took 0:00:0\d, 1 failed", lines[-1]
    )


def test_the_end_is_told_once(caplog, monkeypatch):
    """Also when the last job takes longer than the time between lines."""
    monkeypatch.setattr(progress, "_LOG_INTERVAL", 0.0)
    caplog.set_level("INFO")
    with Progress("lattice", total=1) as shown:
        shown.update()
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("lattice: 1 of 1 jobs, ")


def test_jobs_that_cannot_fail_come_several_at_once(caplog):
    caplog.set_level("INFO")
    with Progress("bonds", total=6, unit="structures") as shown:
        for number in (4, 2):
            shown.update(number)
    (line,) = (r.getMessage() for r in caplog.records if r.name == progress.__name__)
    assert re.fullmatch(r"bonds: 6 of 6 structures, \S+ per second, took 0:00:00", line)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_terminal(monkeypatch):
    """A bar, and messages on lines of their own."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    handler = logging.StreamHandler(terminal)
    logging.getLogger().addHandler(handler)
    try:
        run()
    finally:
        logging.getLogger().removeHandler(handler)
    shown = re.split(r"[\r\n]", terminal.getvalue())
    assert any("2 of 6 jobs" in line for line in shown)
    assert any("5 of 6 jobs" in line and "1 failed" in line for line in shown)
    assert shown.count("it failed") == 2


def test_the_first_line_of_a_log_comes_early(caplog, monkeypatch):
    """It says how long all will take; the next one comes half a minute later."""
    monkeypatch.setattr(progress, "_FIRST_LINE", 0.0)
    caplog.set_level("INFO")
    with Progress("lattice", total=3) as shown:
        for _ in range(3):
            shown.update()
    first, last = (r.getMessage() for r in caplog.records if r.name == progress.__name__)
    assert re.fullmatch(r"lattice: 1 of 3 jobs, .* left", first)
    assert last.startswith("lattice: 3 of 3 jobs, ")


def test_nothing_is_shown_where_nothing_is_done(caplog, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    caplog.set_level("INFO")
    with Progress("lattice", total=3, done=3):
        pass
    assert terminal.getvalue() == ""
    assert not caplog.records


def test_what_ends_before_its_time(caplog):
    """A training that does not get better."""
    caplog.set_level("INFO")
    with Progress("training", total=60, unit="batches") as shown:
        shown.update(20)
        shown.finish("stopped early")
    (line,) = [r.getMessage() for r in caplog.records]
    assert re.fullmatch(r"training: 20 of 20 batches, .*, took 0:00:0\d, stopped early", line)
