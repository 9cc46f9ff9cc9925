"""The entry point of spkphonon, called in this process."""

import logging
import sys
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra

from schnetpack_phonon.cli.commands import main


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["spkphonon", *map(str, arguments)])
    main()


def outcome(monkeypatch, capsys, line: str, run=call) -> tuple[int, str]:
    """Exit code of a command and what it says on stderr."""
    code, _, said = answer(
        monkeypatch, capsys, *line.replace("HERE", str(Path.cwd())).split(), run=run
    )
    return code, said


def answer(monkeypatch, capsys, *arguments: str, run=call) -> tuple[int, str, str]:
    """Exit code of a command and what it says on stdout and stderr."""
    handlers = logging.root.handlers[:]
    message = ""
    try:
        run(monkeypatch, *arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
        if not isinstance(code, int):
            code, message = 1, str(stop.code)
    finally:
        GlobalHydra.instance().clear()
        for handler in {*logging.root.handlers} - {*handlers}:
            handler.close()
        logging.root.handlers = handlers  # others write to a stream that is closed
    said = capsys.readouterr()
    return code, said.out, message + said.err
