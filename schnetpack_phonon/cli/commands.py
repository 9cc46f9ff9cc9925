"""``spkphonon``: its entry point, and the commands for what is finished."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from schnetpack_phonon import __version__
from schnetpack_phonon.cli import attribute, generate
from schnetpack_phonon.cli.parsers import Parser, add_command, one_line_errors, show_messages


def main() -> None:
    """Make phonon-informed databases, and evaluate the models that spktrain trains on them.

    Example:
      spkphonon generate experiment=phonon_antiperovskite   make the database and stop
      spkphonon export FOLDER experiment=...                write inputs for a cluster
      spkphonon collect FOLDER                              read their outputs
      spkphonon report runs/NAME                            print the table of a finished run
      spkphonon COMMAND --help                              options of a command, with examples
    """
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # set by the shell that asks for completions
        import argcomplete

        argcomplete.autocomplete(parser)
    options, unknown = parser.parse_known_args(sys.argv[1:] or ["--help"])
    if options.overrides is not None:
        options.overrides = unknown
    elif unknown:
        options.parser.refuse(unknown)
    with one_line_errors(options.parser.prog):
        options.run(options)


def _parser() -> Parser:
    parser = Parser(prog="spkphonon", doc=main.__doc__ or "Example:")
    parser.add_argument("--version", action="version", version=f"spkphonon {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    generate.add_commands(commands)
    _add_data_commands(commands)
    attribute.add_command(commands)
    _add_run_commands(commands)
    return parser


def _add_data_commands(commands: Any) -> None:
    add_command(commands, "card", _card).add_argument("paths", nargs="+", metavar="DATABASE")

    extxyz = add_command(commands, "extxyz", _extxyz)
    extxyz.add_argument("path", metavar="DATABASE")
    extxyz.add_argument("target", metavar="OUT.extxyz")

    stores = add_command(commands, "labels", _labels).add_subparsers(
        required=True, metavar="COMMAND", title="commands"
    )
    add_command(stores, "list", _list).add_argument("store", metavar="STORE")

    merge = add_command(stores, "merge", _merge)
    merge.add_argument("into", metavar="INTO")
    merge.add_argument("sources", metavar="FROM", nargs="+")

    export = add_command(stores, "export", _export)
    export.add_argument("store", metavar="STORE")
    export.add_argument("target", metavar="OUT.extxyz|.db|.csv")
    export.add_argument("--failed", action="store_true", help="what failed, with the reasons")

    prune = add_command(stores, "prune", _prune)
    prune.add_argument("store", metavar="STORE")
    prune.add_argument("--code", help="only those of this code, as 'list' prints it")
    prune.add_argument("--finished", action="store_true", help="its finished labels too")


def _card(options: argparse.Namespace) -> None:
    """Describe a database: settings, phonons, labels, digest of the content.

    Prints the page and writes it beside the database as NAME_card.md.

    Example:
      spkphonon card data/NAME.db
    """
    from schnetpack_phonon.data.card import write_card

    for path in options.paths:
        print(write_card(path))


def _extxyz(options: argparse.Namespace) -> None:
    """Write structures and labels of a database as extended XYZ.

    Example:
      spkphonon extxyz data/NAME.db NAME.extxyz
    """
    from schnetpack_phonon.data.export import write_extxyz

    write_extxyz(options.path, options.target)


def _labels(options: argparse.Namespace) -> None:
    """List, merge, export or prune label stores.

    Example:
      spkphonon labels list data/labels.jsonl
    """


def _list(options: argparse.Namespace) -> None:
    """Count finished and failed labels, with the reasons of failures.

    Example:
      spkphonon labels list data/labels.jsonl
    """
    from schnetpack_phonon.labels.maintenance import summary

    print(summary(options.store))


def _merge(options: argparse.Namespace) -> None:
    """Add the records of other stores to one.

    Example:
      spkphonon labels merge data/labels.jsonl OTHER.jsonl
    """
    from schnetpack_phonon.labels.maintenance import merge

    print(merge(options.into, options.sources))


def _export(options: argparse.Namespace) -> None:
    """Write structures and labels of a store for other programs.

    Example:
      spkphonon labels export data/labels.jsonl OUT.extxyz
    """
    from schnetpack_phonon.data.export import export

    print(export(options.store, options.target, options.failed))


def _prune(options: argparse.Namespace) -> None:
    """Drop failed records, so that they are computed again.

    Example:
      spkphonon labels prune data/labels.jsonl --code='CP2K 2023.1'
    """
    from schnetpack_phonon.labels.maintenance import prune

    if options.finished and options.code is None:
        options.parser.error("--finished drops finished labels: say --code of which code")
    print(prune(options.store, options.code, options.finished))


def _add_run_commands(commands: Any) -> None:
    add = add_command(commands, "report", _report).add_argument
    add("runs", nargs="+", type=Path, metavar="RUNS", help="runs, or folders of runs")
    add("-o", "--out", type=Path, default=Path("report"), help="folder of the page (%(default)s)")
    add("--test", nargs="+", type=Path, default=[], metavar="FILE", help="more test sets")
    add("--reference", default="phonon", help="ensemble to compare others with (%(default)s)")

    add = add_command(commands, "thermal", _thermal).add_argument
    add("runs", nargs="+", type=Path, metavar="RUNS", help="one, or several seeds")
    temperatures = [0, 100, 200, 300, 450, 600]
    add("-t", "--temperatures", nargs="+", type=float, default=temperatures, help="in K")
    add("-n", "--snapshots", type=int, default=1000, help="of each average (%(default)s)")
    add("--seed", type=int, default=1, help="of the snapshots (%(default)s)")
    add("-o", "--out", type=Path, default=Path("thermal"), help="folder of the page (%(default)s)")


def _report(options: argparse.Namespace) -> None:
    """Print the table of one run, or compare several on one page.

    Several runs: each model is tested on the test sets of all and on those of --test. Writes a page
    (index.html), its tables and its figures.

    Example:
      spkphonon report runs/NAME
      spkphonon report runs/A runs/B --test md.extxyz
    """
    from schnetpack_phonon.evaluation.run_report import PAGE, read_report

    if len(options.runs) == 1 and (options.runs[0] / PAGE).is_file() and not options.test:
        print(read_report(options.runs[0]))
        return
    show_messages()
    from schnetpack_phonon.evaluation.comparison.page import compare  # loads torch

    print(compare(options.runs, options.out, options.test, options.reference))


def _thermal(options: argparse.Namespace) -> None:
    """Average predictions over thermal snapshots at several temperatures.

    Writes a page (index.html): quantum and classical averages of the gap, the stress and all other
    outputs of the model against temperature, and the gap along single modes.

    Example:
      spkphonon thermal runs/NAME -t 0 150 300
    """
    if options.snapshots < 2 or min(options.temperatures) < 0:
        options.parser.error("expected at least 2 snapshots and temperatures of 0 K and above")
    show_messages()
    from schnetpack_phonon.evaluation.thermal.page import thermal_report

    out, temperatures, n_snapshots = options.out, options.temperatures, options.snapshots
    print(thermal_report(options.runs, out, temperatures, n_snapshots, options.seed))
