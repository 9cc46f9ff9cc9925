"""What all commands share: help pages, suggestions, exit codes and messages of errors."""

from __future__ import annotations

import argparse
import difflib
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from schnetpack_phonon.common.errors import PhononError

_EXIT_CODES = """
exit codes:
  0    done
  1    failed; the last line on stderr says why
  2    wrong command line
  3    collect only: some labels are still missing
  130  interrupted with Ctrl-C"""


class Parser(argparse.ArgumentParser):
    """Takes its help from a docstring, and names the nearest known word for an unknown one.

    Args:
        doc: summary, details and, from ``Example:`` on, what stands below the options.
        options: of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, *, doc: str, **options: Any):
        description, example = inspect.cleandoc(doc).split("Example:")
        super().__init__(
            description=description,
            epilog=f"example:{example}\n{_EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Ends with exit code 2."""
        if found := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            message += _nearest(found[1], re.findall(r"[\w-]+", found[2]))
        super().error(message)

    def refuse(self, unknown: list[str], more_help: str = "") -> NoReturn:
        """Ends with exit code 2 for arguments that are not in the help."""
        known = re.findall(r"(?<![\w-])--?[a-z][\w-]*", self.format_help() + more_help)
        near = _nearest(unknown[0].split("=")[0], known)
        self.error(f"unknown arguments: {' '.join(unknown)}{near}")


def _nearest(word: str, known: list[str]) -> str:
    return "".join(f"; did you mean {near}?" for near in difflib.get_close_matches(word, known, 1))


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], **options: Any
) -> Parser:
    """The parser of one command; the docstring of ``run``, its action, is the help."""
    doc = run.__doc__ or "Example:"
    summary = doc.splitlines()[0].rstrip(".")
    parser = commands.add_parser(name, help=summary, doc=doc, **options)
    parser.set_defaults(run=run, parser=parser, overrides=None)
    return parser


@contextmanager
def one_line_errors(prog: str) -> Iterator[None]:
    """Ends the program with the message of an error that users can correct; others pass."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except _expected() as error:
        sys.exit(f"{prog}: {error}")


def _expected() -> tuple[type[Exception], ...]:
    hydra = sys.modules.get("hydra.errors")  # not imported by commands that do without
    return (PhononError, OSError, ValueError, *([hydra.InstantiationException] if hydra else []))


def show_messages() -> None:
    """Shows our log as Hydra does; to be called before imports that configure logging."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("schnetpack_phonon").setLevel(logging.INFO)
