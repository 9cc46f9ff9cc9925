"""What is shown of a message, by its weight, its package and the place that it goes to."""

import io
import logging
import re
import warnings

import pytest

from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.common.terminal import console
from schnetpack_phonon.common.terminal.console import Console, quiet


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """Makes a console that all messages go to; returns what it shows."""
    root = logging.getLogger()
    level, before = root.level, root.handlers
    monkeypatch.setattr(console, "_shown", set())

    def make(*options, stream=None, **more):
        stream = stream or io.StringIO()
        root.handlers = [*before, Console(*options, stream=stream, **more)]
        root.setLevel(logging.INFO)
        return stream

    yield make
    root.handlers = before
    root.setLevel(level)
    logging.captureWarnings(False)


def say():
    logging.getLogger("schnetpack_phonon.data").info("a database of %d", 3)
    logging.getLogger("my_sampler").info("a module of the user")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").info("GPU available: False")
    logging.getLogger("schnetpack.cli").info("Instantiating model")
    logging.getLogger("schnetpack.cli").error("config incomplete")
    logging.getLogger("schnetpack_phonon.phonons").warning("66 modes imaginary")


OURS = ["a database of 3", "a module of the user"]
LOUD = ["error: config incomplete", "warning: 66 modes imaginary"]


@pytest.mark.parametrize(("verbosity", "lines"), [("normal", OURS + LOUD), ("quiet", LOUD)])
def test_what_is_shown(shown, verbosity, lines):
    stream = shown(verbosity, stream=Terminal())
    say()
    assert stream.getvalue().splitlines() == lines
    assert quiet() == (verbosity == "quiet")


def test_verbose_names_who_speaks(shown):
    stream = shown("verbose", stream=Terminal())
    say()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[3] == "[schnetpack.cli] Instantiating model"


def test_lines_of_a_file_have_their_time(shown):
    stream = shown()
    say()
    for line in stream.getvalue().splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [a-z]", line)


def test_warnings_of_python_are_messages_without_their_place(shown):
    stream = shown(stream=Terminal())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logging._showwarning
        warnings.warn("learning rate is large", stacklevel=1)
        warnings.warn("The 'train_dataloader' does not have many workers", stacklevel=1)
    assert stream.getvalue() == "warning: learning rate is large\n"


def test_runs_of_a_sweep_do_not_repeat_messages_but_progress(shown, caplog):
    """The log file of each run, another handler, has them all."""
    stream = shown(once=True, stream=Terminal())
    for _ in range(2):
        say()
        with Progress("lattice", total=1) as progress:
            progress.update()
    lines = stream.getvalue().splitlines()
    assert lines[:4] == OURS + LOUD
    assert len(lines) == 6
    assert all(line.startswith("lattice: 1 of 1 jobs") for line in lines[4:])
    assert caplog.messages.count("66 modes imaginary") == 2


def test_tracebacks_are_always_shown(shown):
    stream = shown("quiet", once=True)
    for _ in range(2):
        try:
            raise OSError("disk full")
        except OSError:
            logging.getLogger("schnetpack_phonon").exception("no report")
    assert stream.getvalue().count("OSError: disk full") == 2


def test_messages_are_lines_of_their_own_above_a_bar(shown, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    shown(stream=terminal)
    with Progress("lattice", total=2) as progress:
        for _ in range(2):
            progress.update(note="gap 1.2 eV")
            logging.getLogger("a calculation").warning("it failed")
    lines = re.split(r"[\r\n]", terminal.getvalue())
    assert lines.count("warning: it failed") == 2
    assert any("2 of 2 jobs" in line and "gap 1.2 eV" in line for line in lines)


def test_nothing_of_progress_where_it_is_quiet(shown, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    shown("quiet", stream=terminal)
    with Progress("lattice", total=1) as progress:
        progress.update()
    assert terminal.getvalue() == ""


def test_unknown_verbosity_is_refused():
    with pytest.raises(SystemExit, match=r"run\.verbosity is 'loud'; expected quiet, normal"):
        Console("loud")
