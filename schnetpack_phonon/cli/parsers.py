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
from dataclasses import dataclass
from typing import Any, NoReturn

from schnetpack_phonon.common.errors import PhononError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.common.terminal.console import Console

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


@dataclass(frozen=True)
class Command:
    """One command: its action, whose docstring is the help page, and its arguments.

    Attributes:
        name: ``card`` or, under another one, ``labels list``.
        run: called with the parsed options.
        arguments: names and options of each; none for a command that only has others under it.
        overrides: whether Hydra reads what the parser does not know.
    """

    name: str
    run: Callable[[argparse.Namespace], None]
    arguments: tuple[tuple[tuple[str, ...], dict[str, Any]], ...]
    overrides: bool

    def add_to(self, groups: dict[str, Any]) -> None:
        """Makes the parser.

        Args:
            groups: what ``add_subparsers`` returned, by the name of the command above.
        """
        group, _, name = self.name.rpartition(" ")
        doc = self.run.__doc__ or "Example:"
        parser = groups[group].add_parser(name, doc=doc, help=doc.splitlines()[0].rstrip("."))
        parser.set_defaults(run=self.run, parser=parser, overrides=[] if self.overrides else None)
        for names, options in (*self.arguments, *_VERBOSITY) if self.arguments else ():
            parser.add_argument(*names, **options)
        if self.overrides:
            parser.usage = parser.format_usage()[len("usage: ") :].strip() + " [overrides ...]"
        if not self.arguments:
            groups[self.name] = add_group(parser)


def add_group(parser: argparse.ArgumentParser) -> Any:
    """The place of commands under a parser."""
    return parser.add_subparsers(required=True, metavar="COMMAND", title="commands")


def argument(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """As those of :meth:`argparse.ArgumentParser.add_argument`."""
    return names, options


def command(
    name: str, *arguments: tuple[tuple[str, ...], dict[str, Any]], overrides: bool = False
) -> Callable[[Callable[[argparse.Namespace], None]], Command]:
    """Makes a :class:`Command` of the action below it."""
    return lambda run: Command(name, run, arguments, overrides)


# Options of all commands.
_VERBOSITY = tuple(
    argument(
        f"-{name[0]}",
        f"--{name}",
        dest="verbosity",
        action="store_const",
        const=name,
        help=text,
    )
    for name, text in (
        ("quiet", "show warnings and errors only, no progress"),
        ("verbose", "show what other packages say, too"),
    )
)

#: Options of the commands that open runs; :func:`trust_of` reads them.
TRUST = (
    argument(
        "--trust",
        action="store_true",
        help="open pickles, and make what config.yaml names: they can run any program",
    ),
    argument(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="of yours, whose classes the model uses; may be repeated",
    ),
)


def trust_of(options: argparse.Namespace) -> Trust:
    """What the files of the runs may do."""
    return Trust(options.trust, tuple(options.allow))


@contextmanager
def one_line_errors(prog: str) -> Iterator[None]:
    """Ends the program with the message of an error that users can correct; others pass."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except _expected() as error:
        sys.exit(f"{prog}: {_message(error)}")


def _message(error: Exception) -> str:
    """Its text; of an error that Hydra wraps, that of our class after the key of the option."""
    text, cause = str(error), error.__cause__
    _, _, key = text.partition("full_key: ")
    return f"{key.strip()}: {cause}" if key and isinstance(cause, _expected()) else text


def _expected() -> tuple[type[Exception], ...]:
    hydra = sys.modules.get("hydra.errors")  # not imported by commands that do without
    return (PhononError, OSError, ValueError, *([hydra.InstantiationException] if hydra else []))


def show_messages(verbosity: str | None = None) -> None:
    """Shows our log as with Hydra; to be called before imports that configure logging."""
    logging.basicConfig(handlers=[Console(verbosity or "normal")])
    logging.getLogger("schnetpack_phonon").setLevel(logging.INFO)
    if verbosity == "verbose":
        logging.getLogger().setLevel(logging.INFO)
