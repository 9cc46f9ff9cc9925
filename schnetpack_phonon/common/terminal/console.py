"""Messages on a terminal or in a log file: those that matter, above the progress bars."""

from __future__ import annotations

import logging
import re
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

from schnetpack_phonon.common.errors import check_choice

VERBOSITIES = ("quiet", "normal", "verbose")
# Packages whose messages, if they are no warnings, are about their own work.
_OTHERS = {"schnetpack", "pytorch_lightning", "lightning_fabric", "lightning", "matplotlib"}
# Warnings of Lightning and PyTorch that are no sign of a problem in our experiments.
_NOISE = re.compile(
    r"Attribute 'model' is an instance of `nn\.Module`"
    r"|does not have many workers"
    r"|is smaller than the logging interval"
    r"|Checkpoint directory .* exists and is not empty"
    r"|The verbose parameter is deprecated"
    r"|LeafSpec\)` is deprecated"
)
_PYTHON = "py.warnings"  # logger of Python's warnings
_PLACE = re.compile(r"^\S+:\d+: \w+: (.*?)\s*(\n  .*)?\Z", re.DOTALL)  # of a warning in a program
_shown: set[str] = set()


class Console(logging.StreamHandler):
    """Shows messages, with date and time where the stream is no terminal.

    Python's warnings are messages, too.

    Args:
        verbosity: ``quiet`` for warnings and errors, ``normal`` for what this package says, too,
            ``verbose`` for what all packages say.
        stream: where to write; standard error by default.
        once: whether a message is left out that was shown before, as by an earlier run of a sweep.

    Raises:
        SystemExit: for another verbosity.
    """

    def __init__(self, verbosity: str = "normal", stream: TextIO | None = None, once: bool = False):
        try:
            check_choice(VERBOSITIES, **{"run.verbosity": verbosity})
        except ValueError as error:
            raise SystemExit(str(error)) from error  # logging.config hides what an Exception says
        super().__init__(stream)
        self.setFormatter(logging.Formatter())
        self.verbosity, self._once = verbosity, once
        logging.captureWarnings(True)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is shown."""
        if self.verbosity == "verbose":
            return True
        text = record.getMessage()
        if record.levelno < logging.WARNING:
            others = record.name.partition(".")[0] in _OTHERS
            if others or self.verbosity == "quiet":
                return False
        elif record.name == _PYTHON and _NOISE.search(text):
            return False
        if self._once and not record.exc_info and not getattr(record, "progress", False):
            if text in _shown:
                return False
            _shown.add(text)
        return True

    def format(self, record: logging.LogRecord) -> str:
        """The message with its level, if that is a warning or more."""
        text = super().format(record)
        if record.name == _PYTHON and (found := _PLACE.match(text)):
            text = found[1]
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if self.verbosity == "verbose":
            text = f"[{record.name}] {text}"
        if self.stream.isatty():
            return text
        return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.created))} {text}"

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a message; a bar is drawn again below it."""
        with _bars_removed(self.stream):
            super().emit(record)


def _bars_removed(stream: TextIO) -> AbstractContextManager:
    tqdm = sys.modules.get("tqdm")  # without it there are no bars
    return tqdm.tqdm.external_write_mode(file=stream) if tqdm else nullcontext()


def _consoles() -> list[Console]:
    return [each for each in logging.getLogger().handlers if isinstance(each, Console)]


def quiet() -> bool:
    """Whether neither progress nor a summary is shown."""
    return any(each.verbosity == "quiet" for each in _consoles())


def above_bars() -> AbstractContextManager:
    """Messages appear above progress bars, whoever has configured logging."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    return nullcontext() if _consoles() else logging_redirect_tqdm()
